"""What a graph costs at least: its multiply-adds and weights, and how fast this machine multiplies and reads memory.

The rates are measured in the same run as what they are compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Rates:
    """What one device reaches in one precision."""

    gmac_s: float  # multiply-adds per second in a large matrix product, in 1e9
    gbyte_s: float  # bytes per second read from memory, in 1e9

    def floor_ms(self, gmac: float, megabytes: float, batch: int) -> float:
        """The least time of a call with `batch` faces: all products at full rate, or all weights read once."""
        return 1e3 * max(batch * gmac / self.gmac_s, megabytes / 1e3 / self.gbyte_s)


def macs(model: onnx.ModelProto) -> float:
    """Multiply-adds of convolutions and matrix products for one face, in 1e9."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in ("N", "n"):
                axis.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type in ("MatMul", "Gemm"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-2 if transposed else -1]
    return total / 1e9


def cpu_rates(precision: str, threads: int | None = None, side: int = 1024) -> Rates:
    """Measured with OpenVINO, on as many threads as its executor would take."""
    from vlfau.models.openvino_core import openvino_core

    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(_product(side, precision).SerializeToString()),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {}),
        },
    )
    request = compiled.create_infer_request()
    matrix = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    seconds = fastest(lambda: request.infer([matrix], share_inputs=True))
    large = np.ones(32 << 20, np.float32)
    read = fastest(lambda: large.sum(), least=5)
    return Rates(side**3 / seconds / 1e9, large.nbytes / read / 1e9)


def gpu_rates(torch: Any, device: Any, kind: Any, side: int = 8192) -> Rates:
    """Measured with torch: a square product, and a copy of one gigabyte (read once, written once)."""
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    large = torch.empty(1 << 28, dtype=torch.float32, device=device)
    target = torch.empty_like(large)

    def timed(work: Callable[[], Any]) -> float:
        def whole() -> None:
            work()
            torch.cuda.synchronize(device)

        return fastest(whole)

    return Rates(side**3 / timed(lambda: a @ b) / 1e9, 2 * large.nbytes / timed(lambda: target.copy_(large)) / 1e9)


def fastest(work: Callable[[], Any], least: int = 10, seconds: float = 0.5) -> float:
    """Seconds of the fastest of several runs, because a floor is the best a machine can do, not its average."""
    work()
    took: list[float] = []
    until = time.perf_counter() + seconds
    while len(took) < least or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def _product(side: int, precision: str) -> onnx.ModelProto:
    """x @ W; for INT8 with the Q/DQ nodes that calibration writes."""
    weight = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    nodes, stored, operand = [], [], "x"
    if precision == "int8":
        scale = np.abs(weight).max(0) / 127
        stored = [
            numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), "q"),
            numpy_helper.from_array(scale.astype(np.float32), "w_scale"),
            numpy_helper.from_array(np.zeros(side, np.int8), "w_zero"),
            numpy_helper.from_array(np.array(0.04, np.float32), "x_scale"),
            numpy_helper.from_array(np.array(0, np.int8), "x_zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
            helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_back"]),
            helper.make_node("DequantizeLinear", ["q", "w_scale", "w_zero"], ["w"], axis=1),
        ]
        operand = "x_back"
    else:
        stored = [numpy_helper.from_array(weight, "w")]
    nodes.append(helper.make_node("MatMul", [operand, "w"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
