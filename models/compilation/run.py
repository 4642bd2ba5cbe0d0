"""What `vlfau-compile` does: builds engines, compares a runtime with FP32, times it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import UserError
from ..runtimes import open_runtime
from ..runtimes.base import Runtime
from .agreement import agreement


def build(bundle: Bundle, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    from ..runtimes import tensorrt, tensorrt_engines

    precision = "fp16" if options.precision == "auto" else options.precision
    if options.capability is None:
        if tensorrt_engines.gpu_count() == 0:
            raise UserError("No NVIDIA GPU here. Add --capability: TensorRT-RTX builds for GPUs of other machines.")
        runtime = Runtime(
            bundle,
            tensorrt.TensorRT(
                bundle, device=options.device, precision=precision, sizes=tuple(options.batch), folder=options.output
            ),
        )
        with runtime:
            return report(bundle, runtime, options.batch)
    used = tensorrt_engines.flavour("tensorrt_rtx")
    lines, facts = _graphs_verified(bundle, precision)
    lines += ["", f"{used.name} {used.version} for {options.capability}, {precision}"]
    seconds: dict[str, float] = {}
    for part in ("encoder", *(("caption",) if bundle.has_captions else ())):
        for size in options.batch:
            start = time.perf_counter()
            path = tensorrt_engines.compile_part(
                bundle,
                part,
                used,
                options.capability,
                precision,
                size,
                folder=options.output,
                elsewhere=True,
                progress=tensorrt_engines.show_progress,
            )
            seconds[f"{part}-{size}"] = round(time.perf_counter() - start, 2)
            lines.append(f"  {part} batch {size}: {path.stat().st_size / 1e6:.1f} MB in {seconds[f'{part}-{size}']} s")
    lines.append("Built, not run: an engine only runs on its GPU, where the self-test will verify it.")
    facts |= {"runtime": used.name, "version": used.version, "precision": precision, "build_s": seconds}
    return lines, facts


def _graphs_verified(bundle: Bundle, precision: str) -> tuple[list[str], dict[str, Any]]:
    """Runs the graphs that engines are built from on the CPU, to show what this precision changes."""
    from ..runtimes.rewriting import in_half

    if precision == "fp8":
        return ["No CPU runs FP8: its graph is not verified."], {"largest_difference": None}
    with TemporaryDirectory(prefix="vlfau-graphs-") as folder:
        if precision == "fp16":  # OpenVINO would compute it in FP32, ONNX Runtime computes it in FP16
            written, name = in_half(bundle, Path(folder)), "onnxruntime"
            if find_spec(name) is None:
                return ["ONNX Runtime is not installed: FP16 is not verified."], {"largest_difference": None}
        else:
            written, name = bundle, "openvino"
        with open_runtime(written, name, precision=precision) as runtime:
            return report(written, runtime, [])


def verify(bundle: Bundle, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    if options.output is not None:
        raise UserError(
            f"{options.runtime} keeps its compiled graphs in the user's cache (VLFAU_CACHE). Leave out --output."
        )
    with open_runtime(bundle, options.runtime, device=options.device, precision=options.precision) as runtime:
        return report(bundle, runtime, options.batch)


def report(bundle: Bundle, runtime: Runtime, batches: Sequence[int]) -> tuple[list[str], dict[str, Any]]:
    """Agreement per unit and time per batch size, as lines and as numbers."""
    agrees = agreement(bundle, runtime)
    lines = [
        f"{runtime.description}: agreement with FP32{', then time' if batches else ''}",
        "",
        "| AU | largest difference | equal states |",
    ]
    lines += ["|---|---|---|"]
    for unit, difference, share in zip(bundle.manifest.units, agrees.difference, agrees.states):
        lines.append(f"| {unit} | {difference:.4f} | {100 * share:.1f} % |")
    if agrees.tokens is not None:
        lines += ["", f"Equal tokens in the stored sentences: {100 * agrees.tokens:.1f} %."]
    lines += [f"Negative control, other images: differs by {agrees.control:.3f}."]
    if batches:
        lines += ["", "| batch | ms | ms per face |", "|---|---|---|"]
    times = {}
    for batch in batches:
        times[batch] = milliseconds(runtime, batch)
        lines.append(f"| {batch} | {times[batch]:.2f} | {times[batch] / batch:.2f} |")
    facts = {
        "runtime": runtime.executor.name,
        "device": runtime.executor.device,
        "precision": runtime.executor.precision,
        "largest_difference": float(agrees.difference.max()),
        "equal_tokens": agrees.tokens,
        "ms": times,
    }
    return lines, facts


def milliseconds(runtime: Runtime, batch: int, *, seconds: float = 0.5) -> float:
    """Median time of one batch."""
    stored = runtime.bundle.selftest()["crops"]
    crops = np.resize(stored, (batch, *stored.shape[1:]))
    took: list[float] = []
    until = time.perf_counter() + seconds
    while len(took) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        runtime.predict(crops)
        took.append(1e3 * (time.perf_counter() - start))
    return float(np.median(took[1:]))
