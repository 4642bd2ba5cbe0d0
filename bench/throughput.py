"""Faces per second by batch and runtime, and the floor of this machine measured in the same run.

    python bench/throughput.py                               the embedded bundle, every CPU runtime and precision it has
    python bench/throughput.py paper --batch 1 8 --torch     Swin-Base with random weights; ratios are to PyTorch eager
    python bench/throughput.py embedded paper --batch 1 --torch --targets      both, and whether they reach the targets
    python bench/throughput.py --hints                       OpenVINO by threads and hint, to choose `threads`

A size (paper, compact) is built with random weights: without sentences, in FP32 and INT8. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measuring.arithmetic import cpu_rates, macs
from measuring.facts import about, heading

from vlfau.models.bundle import Bundle, open_bundle, write_manifest
from vlfau.models.cache import VARIABLE
from vlfau.models.data.datasets import BP4D
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.base import Runtime
from vlfau.models.runtimes.graphs import INT8_ENCODER, cpu_threads, encoder_file, has_precision

SIZES = ("paper", "compact", "tiny")
UNITS = BP4D.units
COMPACT_MS, PAPER_TIMES = 6.0, 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="*", default=["embedded"], help="folders, 'embedded', or paper, compact, tiny")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=1.0, help="per table cell")
    parser.add_argument("--torch", action="store_true", help="time PyTorch eager, too")
    parser.add_argument("--targets", action="store_true", help="compare one face with the targets")
    parser.add_argument("--hints", action="store_true", help="only OpenVINO, by number of threads and hint")
    options = parser.parse_args(arguments)
    reached = True
    try:
        with tempfile.TemporaryDirectory(prefix="vlfau-throughput-") as folder:
            for where in options.bundle:
                if where in SIZES:
                    os.environ[VARIABLE] = ""  # the compiled graphs of random weights are not needed again
                bundle = random_bundle(where, Path(folder) / where) if where in SIZES else open_bundle(where)
                if options.hints:
                    print(hints(bundle, options.seconds))
                    continue
                table = measure(
                    bundle, variants(bundle, options.torch), options.batch, options.threads, options.seconds
                )
                print(f"{table}\n")
                if options.targets:
                    lines, held = targets(bundle, json.loads(table.splitlines()[-1]))
                    print("\n".join(lines) + "\n")
                    reached &= held
    except UserError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 2
    return 0 if reached else 1


def random_bundle(size: str, folder: Path) -> Bundle:
    """A network with random weights, its encoder in FP32 and INT8. Speed does not depend on training."""
    import torch

    from vlfau.calibration.quantise import log_odds, observe, quantise
    from vlfau.models.export.run import export
    from vlfau.models.export.selftest import structured_crops
    from vlfau.models.networks import NetworkChoice, build, configure

    torch.manual_seed(0)
    silent = {"local_captions": False, "global_caption": False}
    config = configure(NetworkChoice(size=size, pretrained=False), UNITS, None, silent)
    bundle = export(build(config).eval(), config, folder, name=f"{size}, random weights")
    model = onnx.load(str(bundle.path("encoder.onnx")))
    quantised = quantise(model, observe(model, structured_crops(2, bundle.manifest.side), "minmax"))
    onnx.save(quantised, folder / INT8_ENCODER)
    stored = bundle.selftest()
    stored["log_odds_int8"] = log_odds(quantised, stored["crops"])
    np.savez(folder / "selftest.npz", allow_pickle=False, **stored)
    write_manifest(folder, replace(bundle.manifest, files={**bundle.manifest.files, INT8_ENCODER: ""}))
    return open_bundle(folder)


def targets(bundle: Bundle, facts: dict[str, Any]) -> tuple[list[str], bool]:
    """The target for one face on two idle cores, and whether it is reached."""
    alone = {row["runtime"]: row["ms"] for row in facts["rows"] if row["batch"] == 1}
    best = min(alone, key=lambda name: alone[name])
    eager = alone.get("torch fp32")
    if bundle.manifest.side == 112:  # compact
        held, target = alone[best] <= COMPACT_MS, f"at most {COMPACT_MS:g} ms per face in the best precision"
        measured = f"{alone[best]:.2f} ms ({best})"
    elif eager is None:
        return [f"{bundle.manifest.name}: add --torch, because the target is a ratio to PyTorch eager."], False
    else:
        held, target = eager >= PAPER_TIMES * alone[best], f"at least {PAPER_TIMES:g} times PyTorch eager's speed"
        measured = f"{eager / alone[best]:.2f} times ({best})"
    note = f" The load was {facts['load']}: repeat on an idle machine." if facts["load"] > 0.5 else ""
    return [
        f"{bundle.manifest.name}: target {target}, measured {measured}: {'reached' if held else 'NOT REACHED'}.{note}"
    ], held


def hints(bundle: Bundle, seconds: float) -> str:
    """The executor's options measured: threads, and the hint; one face at a time, as from a live source."""
    from vlfau.models.openvino_core import openvino_core
    from vlfau.models.runtimes.race import race

    core, crop = openvino_core(), bundle.selftest()["crops"][:1]
    kinds = [kind for kind in (bundle.manifest.precision, "int8") if kind != "int8" or has_precision(bundle, "int8")]
    runners: dict[str, Any] = {}
    for kind in kinds:
        for hint in ("LATENCY", "THROUGHPUT"):
            for threads in range(1, min(8, os.cpu_count() or 1) + 1):
                options = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": str(threads)}
                options |= {"NUM_STREAMS": "1"} if hint == "LATENCY" else {}
                compiled = core.compile_model(
                    str(bundle.path(encoder_file(kind))), "CPU", options | {"INFERENCE_PRECISION_HINT": "f32"}
                )
                request = compiled.create_infer_request()
                runners[f"{kind} {hint.lower()} {threads}"] = partial(request.infer, {"crops": crop})
    where, rounds = about(), race(runners, seconds)
    lines = [heading(where), f"{bundle.manifest.name} in OpenVINO", ""]
    lines += ["| precision | hint | threads | ms per face |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(name.split())} | {1e3 * rounds.seconds(name):.2f} |" for name in runners]
    ms = {name: round(1e3 * rounds.seconds(name), 3) for name in runners}
    results = {"bundle": bundle.manifest.name, "ms": ms, "disturbed": rounds.disturbed}
    return "\n".join([*lines, json.dumps({"bench": "throughput --hints", **where, **results})])


def variants(bundle: Bundle, reference: bool) -> list[tuple[str, str]]:
    own = bundle.manifest.precision
    pairs = [("torch", "fp32")] if reference else []
    for name in ("openvino", "onnxruntime"):
        pairs += [(name, own), *([(name, "int8")] if has_precision(bundle, "int8") else [])]
    from vlfau.models.openvino_core import openvino_core

    if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pairs.append(("openvino", "bf16"))
    return pairs


def measure(
    bundle: Bundle, chosen: Sequence[tuple[str, str]], batches: Sequence[int], threads: int | None, seconds: float
) -> str:
    """A table and a JSON line."""
    runtimes, precisions, reasons = [], [], []
    for name, kind in chosen:
        try:
            runtimes.append(open_runtime(bundle, name, precision=kind, threads=threads))
            precisions.append(kind)
        except UserError as error:  # a processor may have BF16 and fail its self-test
            reasons.append(f"without {name} {kind}: {error}")
    if not runtimes:
        raise UserError(" ".join(reasons))
    gmac = macs(onnx.load(str(bundle.path("encoder.onnx"))))
    own_threads = cpu_threads(threads)
    rates = {
        kind: max((cpu_rates(kind, own_threads) for _ in range(3)), key=lambda rate: rate.gmac_s)
        for kind in sorted(set(precisions))
    }
    where = about()
    lines = [
        heading(where),
        f"{bundle.manifest.name}, {gmac:.3f} GMAC per face, {own_threads} thread(s), {runtimes[0].executor.device}",
        "",
        *[f"floor {kind}: {rate.gmac_s:.0f} GMAC/s, {rate.gbyte_s:.1f} GB/s" for kind, rate in rates.items()],
        *(["", *reasons] if reasons else []),
        "",
        "| runtime | batch | ms | ms per face | faces/s | fastest / floor | speed / first row |",
        "|---|---|---|---|---|---|---|",
    ]
    facts = []
    try:
        for batch in batches:
            took = _interleaved(runtimes, batch, seconds)
            for runtime, kind, (median, least) in zip(runtimes, precisions, took):
                size = bundle.path(encoder_file(kind)).stat().st_size / 1e6
                floor = rates[kind].floor_ms(gmac, size, batch)
                name = f"{runtime.executor.name} {kind}"
                lines.append(
                    f"| {name} | {batch} | {median:.2f} | {median / batch:.2f} | {1e3 * batch / median:.0f} | "
                    f"{least / floor:.1f} | {took[0][0] / median:.2f} |"
                )
                facts.append({"runtime": name, "batch": batch, "ms": round(median, 3), "floor_ms": round(floor, 3)})
    finally:
        for runtime in runtimes:
            runtime.close()
    what = {"bundle": bundle.manifest.name, "checksum": bundle.checksum, "gmac": gmac, "threads": own_threads}
    return "\n".join([*lines, json.dumps({"bench": "throughput", **where, **what, "rows": facts})])


def _interleaved(runtimes: Sequence[Runtime], batch: int, seconds: float) -> list[tuple[float, float]]:
    """Median and least ms of each. They take turns in blocks, so that other load affects all alike and no runtime is
    timed while the threads of another still spin."""
    took: list[list[float]] = [[] for _ in runtimes]
    stored = runtimes[0].bundle.selftest()["crops"]
    crops = np.resize(stored, (batch, *stored.shape[1:]))
    until = time.perf_counter() + seconds * len(runtimes)
    while len(took[0]) < 6 or time.perf_counter() < until:
        for runtime, times in zip(runtimes, took):
            time.sleep(0.02)
            runtime.predict(crops)
            block = time.perf_counter() + 0.1
            while time.perf_counter() < block:
                start = time.perf_counter()
                runtime.predict(crops)
                times.append(1e3 * (time.perf_counter() - start))
    return [(float(np.median(times)), min(times)) for times in took]


if __name__ == "__main__":
    sys.exit(main())
