"""FP16 written into an ONNX graph, with layer norms, softmax and reductions left in FP32, and the way back.

Strongly typed runtimes take a precision from the graph alone. Inputs and outputs keep their types, so both variants of
a graph are driven by the same code.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import UserError

# Sums of squares and exponentials leave FP16's range; Resize and Range want FP32 parameters.
KEPT = frozenset(
    (
        *("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "Softmax"),
        *("LogSoftmax", "Exp", "Log", "Pow", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare"),
        *("GlobalAveragePool", "Resize", "Range"),
    )
)
LARGEST = 65504.0


def to_half(model: onnx.ModelProto, kept: frozenset[str] = KEPT) -> onnx.ModelProto:
    """The same graph with FP16 weights and arithmetic, except in operators of `kept`."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    if any(attribute.type == onnx.AttributeProto.GRAPH for node in graph.node for attribute in node.attribute):
        raise UserError("This graph has subgraphs (Loop, If), which the FP16 pass does not enter. Export it unrolled.")
    floats = _float_values(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in floats}
    for name, array in weights.items():
        if np.abs(array[np.isfinite(array)]).max(initial=0.0) > LARGEST:
            raise UserError(f"Weight {name} exceeds FP16's largest number ({LARGEST:g}). Export this network in FP32.")
    nodes: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}  # FP16 value -> the FP32 copy that kept operators read
    single: set[str] = set()  # weights that a kept operator reads as FP32

    def widened(name: str) -> str:
        if name not in wide:
            wide[name] = f"{name}__fp32"
            if name in weights:
                single.add(name)
            else:
                nodes.append(_cast(name, wide[name], TensorProto.FLOAT))
        return wide[name]

    inputs = {value.name: f"{value.name}__fp16" for value in graph.input if value.name in floats}
    nodes += [_cast(name, short, TensorProto.FLOAT16) for name, short in inputs.items()]
    outputs = {value.name: f"{value.name}__fp16" for value in graph.output if value.name in floats}
    renamed = inputs | outputs
    for old in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        for i, name in enumerate(node.output):
            node.output[i] = outputs.get(name, name)
        if node.op_type in kept:
            for i, name in enumerate(old.input):
                if name in floats:
                    node.input[i] = widened(renamed.get(name, name))
            short = [(i, node.output[i]) for i, name in enumerate(old.output) if name in floats]
            for i, name in short:
                node.output[i] = f"{name}__wide"
            nodes.append(node)
            nodes += [_cast(f"{name}__wide", name, TensorProto.FLOAT16) for _, name in short]
        else:
            _shorten(node)
            nodes.append(node)
    nodes += [_cast(short, name, TensorProto.FLOAT) for name, short in outputs.items()]
    stored = [tensor for tensor in graph.initializer if tensor.name not in floats]
    read = {name for node in nodes for name in node.input}
    for name, array in weights.items():
        if name in read:
            stored.append(numpy_helper.from_array(array.astype(np.float16), name))
        if name in single:
            stored.append(numpy_helper.from_array(array, wide[name]))
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(stored)
    onnx.checker.check_model(half, full_check=True)
    return half


def to_single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in FP32: weights widened, casts between the two types removed. Calibration starts from it, since
    ranges are observed in FP32 and Q/DQ nodes take FP32."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    graph = single.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
    del graph.value_info[:]
    floats, fixed = _float_values(single), {value.name for value in (*graph.input, *graph.initializer)}
    outputs = {value.name for value in graph.output}
    other: dict[str, str] = {}  # value -> the value that replaces it
    idle = [node for node in graph.node if node.op_type == "Cast" and {*node.input, *node.output} <= floats]
    for node in idle:
        source, target = other.get(node.input[0], node.input[0]), node.output[0]
        if target not in outputs:
            other[target] = source
        elif source in fixed or source in outputs:
            continue  # neither may be renamed: the cast stays, without effect
        else:  # the outputs of a graph keep their names
            other = {name: target if value == source else value for name, value in other.items()} | {source: target}
        graph.node.remove(node)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [other.get(name, name) for name in names]
    read = {name for node in graph.node for name in node.input} | outputs
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
    onnx.checker.check_model(single, full_check=True)
    return single


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of all FP32 values of the graph."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    typed = [*inferred.value_info, *inferred.input, *inferred.output]
    names = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {tensor.name for tensor in inferred.initializer if tensor.data_type == TensorProto.FLOAT}


def _shorten(node: onnx.NodeProto) -> None:
    """Turns FP32 in a node's attributes into FP16."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)
