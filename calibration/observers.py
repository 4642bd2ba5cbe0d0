"""How large the values of a tensor get, and which range of them INT8 should cover."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlfau.models.errors import unknown

OBSERVERS = ("minmax", "percentile", "entropy")
BINS = 2048
LEVELS = 128  # of a symmetric 8-bit scale, without its sign
PERCENTILE = 99.99


class Observer(Protocol):
    def see(self, values: NDArray[Any]) -> None: ...

    def limit(self) -> float:
        """The largest magnitude that is represented; larger ones are clipped."""


def observer(name: str) -> Observer:
    match name:
        case "minmax":
            return MinMax()
        case "percentile":
            return Histogram(_percentile)
        case "entropy":
            return Histogram(_entropy)
    raise unknown("observer", name, OBSERVERS)


class MinMax:
    def __init__(self) -> None:
        self._largest = 0.0

    def see(self, values: NDArray[Any]) -> None:
        self._largest = max(self._largest, float(np.abs(values).max(initial=0.0)))

    def limit(self) -> float:
        return self._largest


class Histogram:
    """Magnitudes in bins of equal width; the width doubles, merging pairs of bins, when larger values come."""

    def __init__(self, choose: Any) -> None:
        self._choose, self._counts, self._top = choose, np.zeros(BINS), 0.0

    def see(self, values: NDArray[Any]) -> None:
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if largest == 0.0:
            return
        if self._top == 0.0:
            self._top = largest
        while largest > self._top:
            self._counts = np.concatenate([self._counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self._top *= 2
        self._counts += np.histogram(magnitudes, BINS, (0.0, self._top))[0]

    def limit(self) -> float:
        return 0.0 if self._top == 0.0 else float(self._choose(self._counts) * self._top / BINS)


def _percentile(counts: NDArray[np.float64]) -> int:
    """Number of bins that hold all but the last hundredth of a percent of the values."""
    reached = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(reached, PERCENTILE / 100)) + 1


def _entropy(counts: NDArray[np.float64]) -> int:
    """Number of bins whose 8-bit version loses the least information (Kullback-Leibler divergence)."""
    counts = counts.copy()
    counts[0] = counts[1]  # the zeros after a ReLU say nothing about the range
    best, fewest = BINS, np.inf
    for end in range(LEVELS, BINS + 1, 16):
        clipped = counts[:end].copy()
        clipped[-1] += counts[end:].sum()  # clipped values land on the edge
        group = np.arange(end) * LEVELS // end
        filled = counts[:end] > 0
        total = np.bincount(group, counts[:end], LEVELS)
        share = np.bincount(group, filled, LEVELS)
        coarse = np.where(filled, (total / np.maximum(share, 1))[group], 0.0)
        if coarse.sum() == 0:
            continue
        p, q = clipped / clipped.sum(), coarse / coarse.sum()
        used = (p > 0) & (q > 0)
        lost = float((p[used] * np.log(p[used] / q[used])).sum()) + float(p[(p > 0) & (q == 0)].sum()) * 10
        if lost < fewest:
            best, fewest = end, lost
    return best
