"""Hours of looped video: does memory stay flat, does latency stay what it was?

    python bench/soak.py CLIP [--minutes 120] [--streams 1] [--realtime] [--model embedded] [--runtime auto]

The clip is opened again at each end, as a camera that reconnects would be; index and time go on. Ten lines are printed
on the way, a verdict and one JSON line last. It fails (exit code 1) when memory in the last third is more than 5 % (and
10 MB) above the second, or the 95th percentile of the latency more than a half (and 5 ms) above.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from vlfau.engine.app import Engine
from vlfau.engine.packets import Ended, Frame
from vlfau.engine.settings import for_python


@dataclass
class Part:
    """A tenth of the run."""

    memory_mb: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        p50, p95 = np.percentile(self.latencies_ms, (50, 95)) if self.latencies_ms else (0.0, 0.0)
        memory = float(np.median(self.memory_mb)) if self.memory_mb else 0.0
        return {
            "fps": round(self.frames / max(self.seconds, 1e-9), 1),
            "memory_mb": round(memory, 1),
            "p50_ms": round(float(p50), 2),
            "p95_ms": round(float(p95), 2),
            "threads": threading.active_count(),
        }


def looped(
    play: Callable[[], Generator[Frame | Ended, None, None]], until: float
) -> Generator[Frame | Ended, None, None]:
    """The same source again and again, with a rising index and rising times."""
    index, shift, last = 0, 0.0, 0.0
    while True:
        for item in play():
            if isinstance(item, Ended):
                continue
            if time.monotonic() > until:
                yield Ended(item.stamp.stream, "finished")
                return
            last = item.stamp.pts + shift
            yield Frame(replace(item.stamp, index=index, pts=last), item.pixels)
            index += 1
        shift = last + 0.04


def soak(clip: Path, minutes: float, streams: int, parts: int = 10, **settings: object) -> list[dict[str, float]]:
    seconds = minutes * 60
    engine = Engine(for_python((str(clip),) * streams, settings))
    began = time.monotonic()
    for source in engine.sources:
        source.frames = lambda play=source.frames: looped(play, began + seconds)  # type: ignore[method-assign,misc]
    process = psutil.Process()
    rows: list[dict[str, float]] = []
    part, started = Part(), time.monotonic()
    with engine as reports:
        for report in reports:
            part.frames += 1
            part.latencies_ms.append(report.latency_ms.total)
            now = time.monotonic()
            if part.frames % 50 == 0:
                part.memory_mb.append(process.memory_info().rss / 2**20)
            if now - started > seconds / parts:
                part.seconds = now - started
                gc.collect()
                rows.append(part.row())
                print(f"{now - began:7.0f} s  {json.dumps(rows[-1])}", flush=True)
                part, started = Part(), now
    return rows


def verdict(rows: list[dict[str, float]]) -> str:
    """What grew; empty if nothing did."""
    third = len(rows) // 3
    if not third:
        return "too short to judge"
    grew = []
    for name, share, least in (("memory_mb", 0.05, 10.0), ("p95_ms", 0.5, 5.0)):
        before, after = (float(np.median([row[name] for row in part])) for part in (rows[third:-third], rows[-third:]))
        if after > before * (1 + share) and after > before + least:
            grew.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return ", ".join(grew)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto")
    given = parser.parse_args()
    settings = {"model": given.model, "runtime": given.runtime, "realtime": given.realtime}
    rows = soak(given.clip, given.minutes, given.streams, **settings)
    grew = verdict(rows)
    print(f"{given.minutes:g} minutes, {given.streams} streams: {grew or 'flat'}")
    print(json.dumps({"bench": "soak", "minutes": given.minutes, "streams": given.streams, "grew": grew, "rows": rows}))
    return 1 if grew else 0


if __name__ == "__main__":
    sys.exit(main())
