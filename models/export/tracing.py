"""Encoder and caption graphs as ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import onnx
import torch
from torch import Tensor, nn

from ..bundle import MEMORY
from ..networks.base import AUNetwork, EncoderOutputs
from .selftest import structured_crops

OPSET, SCRIPTED_OPSET = 18, 17  # of the two tracers


class CaptionGraph(nn.Module):
    """Memory and decided states -> tokens."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, visual: Tensor, channel: Tensor, spatial: Tensor, active: Tensor, rows: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(self.network.caption((visual, channel, spatial), active, rows))


def encoder_graph(network: AUNetwork) -> onnx.ModelProto:
    crops = torch.from_numpy(structured_crops(2, network.side))
    outputs = EncoderOutputs(network)
    return trace(outputs, {"crops": crops}, list(outputs.names), {"crops": {0: "N"}})


def caption_graph(network: AUNetwork) -> onnx.ModelProto:
    """Greedy decoding with its T steps unrolled; `docs/explanation/network.md` says why it is not an ONNX Loop."""
    with torch.inference_mode():
        encoded = network.encode(torch.from_numpy(structured_crops(2, network.side)))
    units = encoded.log_odds.shape[1]
    inputs = {
        **{name: tensor.clone() for name, tensor in zip(MEMORY, encoded.memory)},
        "active": (encoded.log_odds >= 0).float().clone(),
        "rows": torch.tensor([[0, 0], [1, units - 1], [0, 1]]),
    }
    axes = {name: {0: "n"} for name in (*MEMORY, "active")} | {"rows": {0: "R"}}
    return trace(CaptionGraph(network), inputs, ["local_tokens", "global_tokens", "global_log_odds"], axes)


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], axes: Mapping[str, Mapping[int, str]]
) -> onnx.ModelProto:
    """`axes` names the open axes of inputs."""
    if find_spec("onnxscript") is None:
        model = scripted(module, inputs, outputs, axes)
        _strip(model)
        return model
    shapes = tuple(dict(axes.get(name, {})) for name in inputs)
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Removes the tracer's notes (paths of this machine, stack traces)."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings about the tracer's internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def scripted(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], axes: Mapping[str, Mapping[int, str]]
) -> onnx.ModelProto:
    """By torch's older tracer, which needs no onnxscript; the first axis of each output is open."""
    opened = {name: dict(which) for name, which in axes.items()} | {name: {0: f"{name}_rows"} for name in outputs}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # it warns of each number that becomes a constant, as intended here
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=opened,
            opset_version=SCRIPTED_OPSET,
        )
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model
