"""Learns how a face looks at rest, per track and action unit, so that reports can be relative to it.

Faces differ at rest: low brows look like AU04, full cheeks like AU06. A low percentile of the log-odds over time is
taken as the resting level of a face, and its difference from the population's resting level is subtracted. The
correction fades in over the first `seconds` and never exceeds `LIMIT`, so that a face that smiles from the first frame
to the last keeps some of its smile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 0.2  # share of the time for which each unit is assumed to be at rest
NEUTRAL = -2.5  # log-odds of a resting face in trained networks (8 %)
LIMIT = 3.0  # log-odds
EDGE, BINS = 12.0, 240  # histogram of log-odds from -12 to 12, a tenth each
FORGET_S = 120.0  # time constant with which older frames lose weight


class Baseline:
    """The baseline of one track. Update it with every valid frame, in order."""

    def __init__(
        self,
        units: int,
        seconds: float,
        *,
        percentile: float = PERCENTILE,
        neutral: float | NDArray[np.floating] = NEUTRAL,
    ) -> None:
        self.seconds, self.percentile = seconds, percentile
        self.neutral = np.broadcast_to(np.asarray(neutral, np.float32), (units,))
        self.seen_s = 0.0
        self._time: NDArray[np.float64] = np.zeros((units, BINS))  # seconds spent at each level
        self._rows = np.arange(units)

    @property
    def learned(self) -> bool:
        return self.seen_s >= self.seconds

    def update(self, log_odds: NDArray[np.floating], step_s: float) -> NDArray[np.float32]:
        """(A,) of this frame, which lasts `step_s` seconds -> (A,) to subtract from now on."""
        step = float(np.clip(step_s, 1e-3, 1.0))
        columns = ((log_odds + EDGE) * (BINS / (2 * EDGE))).astype(int).clip(0, BINS - 1)
        self._time *= 1 - step / FORGET_S
        self._time[self._rows, columns] += step
        self.seen_s += step
        share = min(1.0, self.seen_s / max(self.seconds, 1e-6))
        shift = np.clip(self.resting() - self.neutral, -LIMIT, LIMIT)
        return np.asarray(share * shift, np.float32)

    def resting(self) -> NDArray[np.float32]:
        """(A,) the low percentile of the log-odds so far, interpolated within its bin."""
        sums = self._time.cumsum(1)
        target = self.percentile * sums[:, -1]
        column = (sums < target[:, None]).sum(1).clip(0, BINS - 1)
        inside = self._time[self._rows, column]
        part = (target - (sums[self._rows, column] - inside)) / np.maximum(inside, 1e-12)
        return np.asarray((column + part.clip(0, 1)) * (2 * EDGE / BINS) - EDGE, np.float32)
