"""Percentiles of latencies, and whether two sets of runs differ.

Consecutive frames are alike, and so are frames of one run. The bootstrap therefore draws whole runs, and
within each run blocks of neighbouring frames; drawing single frames would report every slow second as a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Runs = Sequence[NDArray[np.float64]]  # one array of milliseconds per run, in order of time
BLOCK = 15  # frames: half a second at 30 frames/s
ENOUGH_RUNS = 3  # fewer cannot show how much runs differ


def percentiles(values: NDArray[np.float64] | Sequence[float]) -> tuple[float, float, float]:
    """p50, p95, p99"""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    p50, p95, p99 = percentiles(values)
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": float(values.max())}


def percentile(share: float) -> Callable[[NDArray[np.float64]], float]:
    return lambda values: float(np.percentile(values, share))


def jitter(latencies: NDArray[np.float64]) -> float:
    """Mean change of latency from one frame to the next, as in RFC 3550 but without smoothing."""
    return float(np.abs(np.diff(latencies)).mean()) if len(latencies) > 1 else 0.0


@dataclass(frozen=True)
class Ratio:
    """B over A, with its 95 % bootstrap interval."""

    ratio: float
    low: float
    high: float
    runs: int  # of the side with fewer

    @property
    def verdict(self) -> str:
        if self.low <= 1 <= self.high:
            return "inside the noise"
        word = "more" if self.ratio > 1 else "less"
        if self.runs < ENOUGH_RUNS:
            return f"{word}, in these runs only: {self.runs} cannot show the noise between runs, use {ENOUGH_RUNS}"
        return word


def compare(
    a: Runs, b: Runs, statistic: Callable[[NDArray[np.float64]], float], *, draws: int = 1000, seed: int = 0
) -> Ratio:
    """`statistic` over all frames of B, relative to that of A."""
    random = np.random.default_rng(seed)
    drawn = np.array([_over(statistic(_draw(b, random)), statistic(_draw(a, random))) for _ in range(draws)])
    low, high = np.percentile(drawn, (2.5, 97.5))
    ratio = _over(statistic(np.concatenate(b)), statistic(np.concatenate(a)))
    return Ratio(ratio, float(low), float(high), min(len(a), len(b)))


def _over(b: float, a: float) -> float:
    return b / a if a else math.inf


def _draw(runs: Runs, random: np.random.Generator) -> NDArray[np.float64]:
    return np.concatenate([_blocks(runs[k], random) for k in random.integers(0, len(runs), len(runs))])


def _blocks(run: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """As many frames as the run has, in blocks that start anywhere and wrap around its end."""
    size = min(BLOCK, max(1, len(run) // 4))
    starts = random.integers(0, len(run), math.ceil(len(run) / size))
    places: NDArray[np.int64] = (starts[:, None] + np.arange(size)).ravel()[: len(run)] % len(run)
    drawn: NDArray[np.float64] = run[places]
    return drawn
