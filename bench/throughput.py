"""Faces a second by batch and runtime, beside the floor of this machine measured in the same run.

python bench/throughput.py                                   the embedded bundle, every CPU runtime and precision it has
python bench/throughput.py bundles/paper --batch 1 8 --torch the reference too; ratios are to it
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
import onnx
from arithmetic import cpu_rates, macs
from facts import about, heading

from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.runtime import Runtime
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.graphs import cpu_threads, encoder_file, has_precision


def main(arguments: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("bundle", nargs="?", default="embedded")
    made.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    made.add_argument("--threads", type=int)
    made.add_argument("--seconds", type=float, default=1.0, help="per cell")
    made.add_argument("--torch", action="store_true", help="time PyTorch eager too")
    options = made.parse_args(arguments)
    try:
        bundle = open_bundle(options.bundle)
        table = measure(bundle, variants(bundle, options.torch), options.batch, options.threads, options.seconds)
    except UserError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 2
    print(table)
    return 0


def variants(bundle: Bundle, reference: bool) -> list[tuple[str, str]]:
    own = bundle.manifest.precision
    found = [("torch", "fp32")] if reference else []
    for name in ("openvino", "onnxruntime"):
        found += [(name, own), *([(name, "int8")] if has_precision(bundle, "int8") else [])]
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found.append(("openvino", "bf16"))
    return found


def measure(
    bundle: Bundle, chosen: Sequence[tuple[str, str]], batches: Sequence[int], threads: int | None, seconds: float
) -> str:
    """A table and a JSON line."""
    runtimes = [open_runtime(bundle, name, precision=kind, threads=threads) for name, kind in chosen]
    gmac = macs(onnx.load(str(bundle.path("encoder.onnx"))))
    own_threads = cpu_threads(threads)
    kinds = sorted({kind for _, kind in chosen})
    rates = {
        kind: max((cpu_rates(kind, own_threads) for _ in range(3)), key=lambda rate: rate.gmac_s) for kind in kinds
    }
    where = about()
    lines = [
        heading(where),
        f"{bundle.manifest.name}, {gmac:.3f} GMAC a face, {own_threads} thread(s), {runtimes[0].executor.device}",
        "",
        *[f"floor {kind}: {rate.gmac_s:.0f} GMAC/s, {rate.gbyte_s:.1f} GB/s" for kind, rate in sorted(rates.items())],
        "",
        "| runtime | batch | ms | ms a face | faces/s | fastest / floor | times the first row's speed |",
        "|---|---|---|---|---|---|---|",
    ]
    facts = []
    try:
        for batch in batches:
            took = _interleaved(runtimes, batch, seconds)
            for runtime, (_, kind), (median, least) in zip(runtimes, chosen, took):
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
    """Median and least ms of each. They take turns in blocks: load from outside hits all alike, and no runtime is timed
    while the threads of another still spin."""
    took: list[list[float]] = [[] for _ in runtimes]
    stored = runtimes[0].bundle.selftest()["crops"]
    crops = np.resize(stored, (batch, *stored.shape[1:]))
    until = time.perf_counter() + seconds * len(runtimes)
    while len(took[0]) < 6 or time.perf_counter() < until:
        for runtime, mine in zip(runtimes, took):
            time.sleep(0.02)
            runtime.predict(crops)
            block = time.perf_counter() + 0.1
            while time.perf_counter() < block:
                start = time.perf_counter()
                runtime.predict(crops)
                mine.append(1e3 * (time.perf_counter() - start))
    return [(float(np.median(mine)), min(mine)) for mine in took]


if __name__ == "__main__":
    sys.exit(main())
