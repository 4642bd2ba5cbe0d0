"""From trained weights to a bundle: two ONNX graphs, the manifest, and a stored answer that runtimes must reproduce.

The graphs are traced from the modules that were trained; for FP16, `runtimes/half_precision.py` rewrites them.
`bundle.py` describes the format.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ..bundle import MANIFEST, Bundle, Manifest, open_bundle, write_manifest
from ..errors import UserError, unknown
from ..networks.base import AUNetwork
from ..runtimes.half_precision import to_half
from ..runtimes.rewriting import WRITTEN
from ..tensors import save_tensors
from ..training.run_folder import RunFolder, load_run, revision
from .selftest import selftest
from .tracing import caption_graph, encoder_graph


def export_run(
    folder: Path,
    output: Path,
    *,
    which: str = "last",
    precision: str = "fp32",
    name: str | None = None,
    licence: str = "",
) -> Bundle:
    """What `vlfau-export` does. `which` is last or best, and recorded in the provenance."""
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
    """Writes a bundle and opens it, verified. An older bundle in `output` is replaced."""
    if precision not in WRITTEN:
        raise unknown("precision", precision, WRITTEN)
    if output.exists() and not (output / MANIFEST).is_file() and any(output.iterdir()):
        raise UserError(f"{output} holds files that are not a bundle. Give an empty folder or a new one.")
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
    if precision == "fp16":  # half the download; torch widens them when it loads them
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


def _without_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle is shared; paths of this machine are not."""
    return {key: Path(value).name if key == "data" else value for key, value in data.items() if key != "cache"}
