"""INT8 and FP8 written into an encoder graph as Q/DQ nodes: one artefact for OpenVINO, ONNX Runtime and TensorRT.

Only convolutions and matrix products with constant weights are quantised: symmetric, weights per output channel. Layer
norms, softmax, residual sums and everything else between them stay in float. The captioner is never quantised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vlfau.models.errors import UserError, unknown

from .observers import observer

KINDS = {"int8": (TensorProto.INT8, 127.0), "fp8": (TensorProto.FLOAT8E4M3FN, 448.0)}  # type, largest magnitude
PRODUCTS = ("Conv", "MatMul", "Gemm")
BATCH = 8


@dataclass(frozen=True)
class Layer:
    """One product that can be quantised."""

    name: str
    kind: str
    activation: str  # its input
    weight: str
    axis: int  # of the weight's output channels


def layers(model: onnx.ModelProto) -> list[Layer]:
    """All products with a constant weight, in the graph's order."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = []
    for i, node in enumerate(model.graph.node):
        if node.op_type not in PRODUCTS or node.input[1] not in constants or node.input[0] in constants:
            continue
        shape = tuple(constants[node.input[1]].dims)
        if constants[node.input[1]].data_type != TensorProto.FLOAT or len(shape) < 2:
            continue
        if node.op_type == "MatMul" and len(shape) != 2:
            continue  # a stack of matrices has no single axis of output channels
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        name = node.name or f"{node.op_type}_{i}"
        products.append(Layer(name, node.op_type, node.input[0], node.input[1], axis))
    return products


def observe(model: onnx.ModelProto, crops: NDArray[np.uint8], method: str = "percentile") -> dict[str, float]:
    """The range of each activation that quantised layers would read, over all crops (N, S, S, 3)."""
    import onnxruntime

    if not len(crops):
        raise UserError("Calibration needs images, got none. Give a few hundred crops of faces.")
    names = list(dict.fromkeys(layer.activation for layer in layers(model)))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in model.graph.output} | {tensor.name for tensor in model.graph.input}
    for name in names:
        if name not in present:
            watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # fusing would hide tensors
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen = {name: observer(method) for name in names}
    for at in range(0, len(crops), BATCH):
        for name, values in zip(names, session.run(names, {"crops": crops[at : at + BATCH]})):
            seen[name].see(values)
    return {name: activation.limit() for name, activation in seen.items()}


def quantise(
    model: onnx.ModelProto, limits: Mapping[str, float], *, kind: str = "int8", leave: Iterable[str] = ()
) -> onnx.ModelProto:
    """The same graph with Q/DQ before the products, except those named in `leave`."""
    if kind not in KINDS:
        raise unknown("quantised type", kind, KINDS)
    products = layers(model)
    left = set(leave)
    for name in left - {layer.name for layer in products}:
        raise unknown("layer", name, [layer.name for layer in products])
    chosen = {
        layer.name: layer for layer in products if layer.name not in left and limits.get(layer.activation, 0.0) > 0
    }
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    stored: dict[str, onnx.TensorProto] = {}
    activations: dict[str, str] = {}  # activation -> its dequantised copy; all readers share one pair
    for i, old in enumerate(model.graph.node):
        node = onnx.NodeProto()
        node.CopyFrom(old)
        layer = chosen.get(node.name or f"{node.op_type}_{i}")
        if layer is not None and node.op_type in PRODUCTS:
            if layer.activation not in activations:
                activations[layer.activation] = f"{layer.activation}_back"
                nodes += _pair(layer.activation, limits[layer.activation], kind, stored)
            node.input[0] = activations[layer.activation]
            back = f"{layer.weight}_back_{layer.axis}"
            if back not in stored:
                nodes.append(_weight(layer, weights[layer.weight], kind, back, stored))
                stored[back] = onnx.TensorProto()  # a mark, so that shared weights are quantised once
            node.input[1] = back
        nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for tensor in stored.values() if tensor.name)
    read = {name for node in nodes for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
    if kind == "fp8":
        _opset(quantised, 19)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _pair(name: str, limit: float, kind: str, stored: dict[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
    scale, zero = f"{name}_scale", f"{name}_zero"
    stored[scale] = numpy_helper.from_array(np.array(limit / KINDS[kind][1], np.float32), scale)
    stored[zero] = _numbers(np.zeros((), np.float32), kind, zero)
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_{kind}"], name=f"{name}_to_{kind}"),
        helper.make_node("DequantizeLinear", [f"{name}_{kind}", scale, zero], [f"{name}_back"], name=f"{name}_from"),
    ]


def _weight(
    layer: Layer, weight: NDArray[Any], kind: str, back: str, stored: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """Stores the numbers with one scale per output channel, and returns the node that reads them."""
    others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
    largest = np.abs(weight).max(others)
    scale = np.where(largest > 0, largest, 1.0).astype(np.float32) / np.float32(KINDS[kind][1])
    shape = [1] * weight.ndim
    shape[layer.axis] = -1
    numbers, factor, zero = f"{back}_{kind}", f"{back}_scale", f"{back}_zero"
    stored[numbers] = _numbers(weight / scale.reshape(shape), kind, numbers)
    stored[factor] = numpy_helper.from_array(scale, factor)
    stored[zero] = _numbers(np.zeros(len(scale), np.float32), kind, zero)
    return helper.make_node("DequantizeLinear", [numbers, factor, zero], [back], name=f"{back}_from", axis=layer.axis)


def _numbers(values: NDArray[Any], kind: str, name: str) -> onnx.TensorProto:
    if kind == "int8":
        return numpy_helper.from_array(np.clip(np.rint(values), -127, 127).astype(np.int8), name)
    import ml_dtypes

    return numpy_helper.from_array(values.astype(ml_dtypes.float8_e4m3fn), name)


def _opset(model: onnx.ModelProto, least: int) -> None:
    """FP8 came with opset 19, which changed nothing else in these graphs."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, least)


def log_odds(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, S, S, 3) -> (N, A)"""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = [session.run(["log_odds"], {"crops": crops[i : i + BATCH]})[0] for i in range(0, len(crops), BATCH)]
    return np.asarray(np.concatenate(parts), np.float32)
