"""From trained weights to a bundle: two ONNX graphs, the manifest, and a stored answer that every runtime is held to.

The graphs are traced from the same modules that were trained; `half_precision.py` rewrites them to FP16 when asked.
What a bundle is, is said in `bundle.py`; which networks there are, in `networks.py`.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .bundle import MANIFEST, Bundle, Manifest, open_bundle, write_manifest
from .checkpoint import save_tensors
from .errors import UserError, unknown
from .half_precision import to_half
from .network import AUNetwork
from .networks import build
from .run_folder import RunFolder, revision
from .runtime import MEMORY
from .scripted import scripted
from .training_state import check_fits

OPSET = 18
CROPS = 8  # of the self-test
PRECISIONS = ("fp32", "fp16")


class EncoderGraph(nn.Module):
    """crops -> log_odds, and the memory of networks with captions."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(crops)
        return (encoded.log_odds.float(), *(encoded.memory if self.network.has_captions else ()))


class CaptionGraph(nn.Module):
    """Memory and decided states -> tokens."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, visual: Tensor, channel: Tensor, spatial: Tensor, active: Tensor, rows: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(self.network.caption((visual, channel, spatial), active, rows))


def load_run(folder: Path, which: str = "last") -> tuple[AUNetwork, dict[str, Any]]:
    """The network of a run folder with the weights after its last epoch, or of its best on the test part."""
    run = RunFolder(folder)
    config = run.config()
    tensors, path = run.weights(which)
    network = build(config["network"])
    check_fits(tensors, network.state_dict(), path)
    network.load_state_dict(tensors)
    return network.eval(), config


def export_run(
    folder: Path,
    output: Path,
    *,
    which: str = "last",
    precision: str = "fp32",
    name: str | None = None,
    licence: str = "",
) -> Bundle:
    """What `vlfau-export` does. `which` is last or best; the provenance says which."""
    network, config = load_run(folder, which)
    rows = RunFolder(folder).rows("epoch")
    provenance = {
        "data": _without_paths(config.get("data", {})),
        "training": config.get("training", {}),
        "weights": which,
        "metrics": rows[-1] if rows else {},
        "licence": licence or "as the data it was trained on allows",
    }
    return export(
        network, config["network"], output, precision=precision, name=name or folder.name, provenance=provenance
    )


def export(
    network: AUNetwork,
    config: Mapping[str, Any],
    output: Path,
    *,
    precision: str = "fp32",
    name: str = "vlfau",
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle and open it again, verified. An older bundle in `output` is replaced."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if output.exists() and not (output / MANIFEST).is_file() and any(output.iterdir()):
        raise UserError(f"{output} holds other files than a bundle. Give an empty folder or a new one.")
    network = network.to("cpu").to(memory_format=torch.contiguous_format).eval()
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    graphs = {"encoder.onnx": encoder_graph(network)}
    if network.has_captions:
        graphs["caption.onnx"] = caption_graph(network)
    for file, graph in graphs.items():
        onnx.save(to_half(graph) if precision == "fp16" else graph, partial / file)
    weights = network.state_dict()
    if precision == "fp16":  # half the download; torch widens them again when it loads them
        weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_tensors(partial / "weights.safetensors", weights, {"network": json.dumps(dict(config))})
    np.savez(partial / "selftest.npz", allow_pickle=False, **selftest(network))
    count = len(network.units)
    manifest = Manifest(
        name=name,
        units=tuple(network.units),
        side=network.side,
        network=dict(config),
        thresholds=(0.5,) * count,
        temperatures=(1.0,) * count,
        tiers=("unrated",) * count,
        vocabulary=tuple(config.get("vocabulary", ())) if network.has_captions else (),
        words=network.words,
        precision=precision,
        files=dict.fromkeys([*graphs, "weights.safetensors", "selftest.npz"], ""),
        provenance={"revision": revision(), "exported": time.strftime("%Y-%m-%d", time.gmtime()), **(provenance or {})},
    )
    write_manifest(partial, manifest)
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
    return open_bundle(output)


def encoder_graph(network: AUNetwork) -> onnx.ModelProto:
    crops = torch.from_numpy(structured_crops(2, network.side))
    outputs = ["log_odds", *(MEMORY if network.has_captions else ())]
    return trace(EncoderGraph(network), {"crops": crops}, outputs, {"crops": {0: "N"}})


def caption_graph(network: AUNetwork) -> onnx.ModelProto:
    """Greedy decoding with its T steps unrolled.

    The other way is one step inside an ONNX Loop; `bench/captions.py` holds both against each other (same words, time,
    seconds to open). For compact on CPUs the Loop takes as long as the unrolled graph when sentences have full length,
    about half as long when they end at half length, since it stops there, and opens about ten times faster. Unrolled
    it is all the same: FP16 is written into the graph and that rewriting enters no subgraph, every output has a fixed
    shape, and on a GPU a Loop that ends early asks the host after every word. Sentences are made when a state changes,
    not for every frame, so the milliseconds are few.
    """
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


def structured_crops(count: int, side: int) -> NDArray[np.uint8]:
    """(count, S, S, 3): noise, edges, gradients, flat black and white, and face-like ovals. Always the same."""
    rng = np.random.default_rng(20240)
    y, x = np.mgrid[0:side, 0:side] / side
    made = []
    for number in range(count):
        kind = number % 5
        if kind == 0:
            small = rng.integers(0, 256, (7, 7, 3)).astype(np.uint8)
            picture = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        elif kind == 1:
            picture = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        elif kind == 2:
            bars = np.sign(np.sin((x * rng.uniform(5, 30) + y * rng.uniform(-20, 20)) * 2))
            picture = np.repeat((127.5 + 127.5 * bars)[..., None], 3, 2).astype(np.uint8)
        elif kind == 3:
            ramp = np.stack([x, y, (x + y) / 2], 2) * rng.uniform(100, 255)
            picture = ramp.astype(np.uint8)
        else:
            picture = np.full((side, side, 3), 90, np.uint8)
            centre = (side // 2, side // 2)
            cv2.ellipse(picture, centre, (int(side * 0.36), int(side * 0.46)), 0, 0, 360, (205, 160, 140), -1)
            for place in (0.33, 0.67):
                cv2.circle(picture, (int(side * place), int(side * 0.42)), max(1, side // 16), (40, 30, 30), -1)
            cv2.ellipse(picture, (side // 2, int(side * 0.7)), (side // 6, side // 14), 0, 0, 180, (150, 50, 60), -1)
        made.append(picture)
    return np.stack(made)


def selftest(network: AUNetwork) -> dict[str, NDArray[Any]]:
    """crops, log_odds; with captions active, and the tokens of all units of all faces in order."""
    crops = structured_crops(CROPS, network.side)
    with torch.inference_mode():
        encoded = network.encode(torch.from_numpy(crops))
        stored = {"crops": crops, "log_odds": encoded.log_odds.float().numpy()}
        if network.has_captions:
            active = (encoded.log_odds >= 0).float()
            rows = torch.ones_like(active).nonzero()
            local, whole, _ = network.caption(encoded.memory, active, rows)
            stored |= {"active": active.numpy(), "local_tokens": local.numpy(), "global_tokens": whole.numpy()}
    return stored


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], axes: Mapping[str, Mapping[int, str]]
) -> onnx.ModelProto:
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
    """The tracer's notes (paths of this machine, stack traces) do not belong in a bundle."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


def _without_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle travels; where somebody's files lie does not."""
    return {key: Path(value).name if key == "data" else value for key, value in data.items() if key != "cache"}


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracer speaks about its own insides."""
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
