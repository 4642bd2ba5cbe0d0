"""A bundle's graphs in another precision. Needs onnx, which is not a dependency of streaming."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx

from ..bundle import Bundle, open_bundle, write_manifest
from ..errors import unknown
from .half_precision import to_half, to_single

WRITTEN = ("fp32", "fp16")


def graph_in(bundle: Bundle, name: str, precision: str) -> bytes:
    """encoder.onnx or caption.onnx in that precision. Graphs with loops are returned as they are."""
    if precision not in WRITTEN:
        raise unknown("precision of a graph", precision, WRITTEN)
    path = bundle.path(name)
    if precision == bundle.manifest.precision:
        return path.read_bytes()
    model = onnx.load(str(path))
    if any(one.type == onnx.AttributeProto.GRAPH for node in model.graph.node for one in node.attribute):
        return path.read_bytes()
    rewritten = to_half(model) if precision == "fp16" else to_single(model)
    return bytes(rewritten.SerializeToString())


def in_half(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with its graphs in FP16, written to `folder` and verified, or itself if they are already. The stored
    answers remain those of FP32."""
    if bundle.manifest.precision == "fp16":
        return bundle
    folder.mkdir(parents=True, exist_ok=True)
    graphs = [name for name in ("encoder.onnx", "caption.onnx") if name in bundle.manifest.files]
    for name in graphs:
        (folder / name).write_bytes(graph_in(bundle, name, "fp16"))
    shutil.copy(bundle.path("selftest.npz"), folder)
    files = dict.fromkeys([*graphs, "selftest.npz"], "")
    write_manifest(folder, replace(bundle.manifest, precision="fp16", files=files))
    return open_bundle(folder)
