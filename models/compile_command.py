"""`vlfau-compile`: build a bundle for one runtime, hold it against FP32, time it, and keep the engine.

What it verifies with is the bundle's stored self-test and structured pictures; accuracy on labelled pictures is
vlfau-calibrate's work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, open_bundle
from .commands import command
from .errors import UserError
from .runtime import Runtime, allowed_error, expected_log_odds
from .runtimes import PRECISIONS, RUNTIMES, open_runtime

EPILOG = """examples:
  vlfau-compile embedded --runtime openvino                                  the CPU default, verified and timed
  vlfau-compile bundles/mine --runtime tensorrt --precision fp16 --batch 1,2,4,8
  vlfau-compile bundles/mine --runtime tensorrt --capability sm89 --output engines     for a GPU elsewhere (RTX only)
"""


@dataclass(frozen=True)
class Agreement:
    """A runtime against FP32, per unit."""

    difference: NDArray[np.float64]  # (A,) largest difference in probability
    states: NDArray[np.float64]  # (A,) share of equal states
    tokens: float | None  # share of equal tokens
    control: float  # largest difference in probability when the runtime is given other pictures: must be large


@command("vlfau-compile")
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    bundle = open_bundle(options.bundle)
    lines, facts = (_tensorrt if options.runtime == "tensorrt" else _verified)(bundle, options)
    print("\n".join([*lines, json.dumps(facts)]))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vlfau-compile",
        description="Build a bundle for one runtime, verify it against FP32, and time it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("bundle", help="a folder written by vlfau-export, or 'embedded'")
    made.add_argument("--runtime", default="openvino", choices=[name for name in RUNTIMES if name != "auto"])
    made.add_argument("--precision", default="auto", choices=PRECISIONS, help="default: the fastest the bundle has")
    made.add_argument("--batch", type=_sizes, default=[1, 2, 4, 8, 16], help="batch sizes (default: 1,2,4,8,16)")
    made.add_argument(
        "--output", type=Path, help="folder for engines (default: beside the bundle, or the user's cache)"
    )
    made.add_argument("--device", help="CPU, cuda:1, ...")
    made.add_argument("--capability", help="build for a GPU that is not here, such as sm89 (TensorRT-RTX)")
    return made


def _sizes(text: str) -> list[int]:
    """1,2,4 -> [1, 2, 4]"""
    sizes = sorted({int(part) for part in text.split(",")})
    if sizes[0] < 1:
        raise argparse.ArgumentTypeError("batch sizes start at 1")
    return sizes


def _tensorrt(bundle: Bundle, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    from .runtimes import nvidia

    precision = "fp16" if options.precision == "auto" else options.precision
    if options.capability is None:
        if nvidia.gpu_count() == 0:
            raise UserError("No NVIDIA GPU here. Give --capability (TensorRT-RTX builds for GPUs that are elsewhere).")
        runtime = Runtime(
            bundle,
            nvidia.TensorRT(
                bundle, device=options.device, precision=precision, sizes=tuple(options.batch), folder=options.output
            ),
        )
        with runtime:
            return report(bundle, runtime, options.batch)
    used = nvidia.flavour("tensorrt_rtx")
    lines, facts = _graphs_verified(bundle, precision)
    lines += ["", f"{used.name} {used.version} for {options.capability}, {precision}"]
    seconds: dict[str, float] = {}
    for part in ("encoder", *(("caption",) if bundle.has_captions else ())):
        for size in options.batch:
            start = time.perf_counter()
            path = nvidia.compile_part(
                bundle,
                part,
                used,
                options.capability,
                precision,
                size,
                folder=options.output,
                elsewhere=True,
                progress=nvidia.show_progress,
            )
            seconds[f"{part}-{size}"] = round(time.perf_counter() - start, 2)
            lines.append(f"  {part} batch {size}: {path.stat().st_size / 1e6:.1f} MB in {seconds[f'{part}-{size}']} s")
    lines.append("Built, not run: an engine runs only on the GPU it is for. That GPU's self-test verifies it.")
    facts |= {"runtime": used.name, "version": used.version, "precision": precision, "build_s": seconds}
    return lines, facts


def _graphs_verified(bundle: Bundle, precision: str) -> tuple[list[str], dict[str, Any]]:
    """The graphs that an engine is built from, run on the CPU: what writing them in this precision does to answers."""
    from .rewriting import in_half

    if precision == "fp8":
        return ["No CPU runs FP8: its graph is not verified here."], {"largest_difference": None}
    with TemporaryDirectory(prefix="vlfau-graphs-") as folder:
        if precision == "fp16":  # OpenVINO would compute it in FP32, ONNX Runtime rounds as it is written
            written, name = in_half(bundle, Path(folder)), "onnxruntime"
            if find_spec(name) is None:
                return ["ONNX Runtime is not installed: FP16 is not verified here."], {"largest_difference": None}
        else:
            written, name = bundle, "openvino"
        with open_runtime(written, name, precision=precision) as runtime:
            return report(written, runtime, [])


def _verified(bundle: Bundle, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    if options.output is not None:
        raise UserError(
            f"{options.runtime} keeps its compiled graphs in the user's cache (VLFAU_CACHE). Drop --output."
        )
    with open_runtime(bundle, options.runtime, device=options.device, precision=options.precision) as runtime:
        return report(bundle, runtime, options.batch)


def report(bundle: Bundle, runtime: Runtime, batches: Sequence[int]) -> tuple[list[str], dict[str, Any]]:
    """Agreement per unit and time per batch size, as lines and as numbers."""
    found = agreement(bundle, runtime)
    lines = [
        f"{runtime.description}: agreement with FP32{', then time' if batches else ''}",
        "",
        "| AU | largest difference | equal states |",
    ]
    lines += ["|---|---|---|"]
    for unit, difference, share in zip(bundle.manifest.units, found.difference, found.states):
        lines.append(f"| {unit} | {difference:.4f} | {100 * share:.1f} % |")
    if found.tokens is not None:
        lines += ["", f"Equal tokens in the stored sentences: {100 * found.tokens:.1f} %."]
    lines += [f"Negative control, other pictures: differs by {found.control:.3f}."]
    if batches:
        lines += ["", "| batch | ms | ms a face |", "|---|---|---|"]
    times = {}
    for batch in batches:
        times[batch] = milliseconds(runtime, batch)
        lines.append(f"| {batch} | {times[batch]:.2f} | {times[batch] / batch:.2f} |")
    facts = {
        "runtime": runtime.executor.name,
        "device": runtime.executor.device,
        "precision": runtime.executor.precision,
        "largest_difference": float(found.difference.max()),
        "equal_tokens": found.tokens,
        "ms": times,
    }
    return lines, facts


def agreement(bundle: Bundle, runtime: Runtime) -> Agreement:
    """Against the stored FP32 answer; refuses a runtime whose answer does not depend on the picture."""
    stored = bundle.selftest()
    expected = _probabilities(bundle, stored["log_odds"])
    found = runtime.predict(stored["crops"])
    difference = np.abs(found.probabilities - expected)
    control = float(np.abs(runtime.predict(255 - stored["crops"]).probabilities - expected).max())
    worst = float(np.abs(found.log_odds - expected_log_odds(stored, runtime.executor.precision)).max())
    if worst > allowed_error(bundle, runtime.executor.precision) or control <= difference.max():
        raise UserError(
            f"{runtime.description} does not agree with FP32: log-odds differ by {worst:.3g}, probabilities by "
            f"{difference.max():.3g}, by {control:.3g} for other pictures. Nothing was written."
        )
    tokens = None
    if "local_tokens" in stored:
        rows = np.argwhere(np.ones_like(stored["active"])).astype(np.int64)
        same = []
        for face in range(len(stored["crops"])):  # one at a time: a batch may be larger than the runtime takes
            memory = runtime.executor.take(found.memory, [face])
            mine = rows[rows[:, 0] == face] * [0, 1]
            said = runtime.executor.caption(memory, stored["active"][[face]], mine)
            same.append(said["local_tokens"] == stored["local_tokens"][rows[:, 0] == face])
        tokens = float(np.concatenate(same).mean())
    states = (found.probabilities >= runtime.thresholds) == (expected >= runtime.thresholds)
    return Agreement(difference.max(0).astype(float), states.mean(0), tokens, control)


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


def _probabilities(bundle: Bundle, log_odds: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-log_odds / np.array(bundle.manifest.temperatures, np.float32))), np.float32)


if __name__ == "__main__":
    sys.exit(main())
