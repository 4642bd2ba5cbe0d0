"""What a face shows at rest, learned per track and action unit, and taken out of what is reported. Arrays only.

Faces differ at rest: low brows look like AU04, full cheeks like AU06. A low percentile of the log-odds over time is
taken for the resting level of this face; what it lies above or below the population's resting level is subtracted.
Until `seconds` have been seen the correction fades in, and it never exceeds `LIMIT`, so that a face that smiles from
the first frame to the last keeps some of its smile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 0.2  # of the time, each unit is taken to be at rest
NEUTRAL = -2.5  # log-odds of a resting face, as trained probabilities have them (8 %)
LIMIT = 3.0  # log-odds
EDGE, BINS = 12.0, 240  # histogram of log-odds from -12 to 12, a tenth each
FORGET_S = 120.0  # what was seen longer ago counts less and less


class Baseline:
    """One track's. Feed it every valid frame in order."""

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
        """(A,) of this frame, which stands for `step_s` seconds -> (A,) what to subtract from now on."""
        step = float(np.clip(step_s, 1e-3, 1.0))
        columns = ((log_odds + EDGE) * (BINS / (2 * EDGE))).astype(int).clip(0, BINS - 1)
        self._time *= 1 - step / FORGET_S
        self._time[self._rows, columns] += step
        self.seen_s += step
        share = min(1.0, self.seen_s / max(self.seconds, 1e-6))
        shift = np.clip(self.resting() - self.neutral, -LIMIT, LIMIT)
        return np.asarray(share * shift, np.float32)

    def resting(self) -> NDArray[np.float32]:
        """(A,) the low percentile of the log-odds so far, between the edges of its bin by proportion."""
        sums = self._time.cumsum(1)
        wanted = self.percentile * sums[:, -1]
        column = (sums < wanted[:, None]).sum(1).clip(0, BINS - 1)
        inside = self._time[self._rows, column]
        part = (wanted - (sums[self._rows, column] - inside)) / np.maximum(inside, 1e-12)
        return np.asarray((column + part.clip(0, 1)) * (2 * EDGE / BINS) - EDGE, np.float32)
