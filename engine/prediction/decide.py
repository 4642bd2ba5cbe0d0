"""From log-odds to decisions, per track: baseline, smoothing, states with hysteresis, and when sentences are due."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..settings import PredictSettings, explain_interval
from .baseline import Baseline

USUAL_STEP_S = 0.04  # for the first frame of a track, or after a jump of the clock


@dataclass(slots=True, eq=False)
class Decision:
    """Axes: A action units."""

    probabilities: NDArray[np.float32]  # (A,) after baseline and smoothing
    states: NDArray[np.bool_]  # (A,)
    rested: bool  # the baseline has been learned and is subtracted
    explain: bool  # sentences are due


class TrackState:
    """What a track carries from frame to frame: smoothing, baseline, states and its current sentences."""

    def __init__(self, settings: PredictSettings, thresholds: NDArray[np.float32], baseline_s: float) -> None:
        self._settings = settings
        self._interval = explain_interval(settings.explain)
        self._on, self._off = thresholds, thresholds * np.float32(1 - settings.hysteresis)
        self._baseline = Baseline(len(thresholds), baseline_s) if baseline_s > 0 else None
        self._states: NDArray[np.bool_] = np.zeros(len(thresholds), bool)
        self._smooth: NDArray[np.float32] | None = None
        self.last_pts: float | None = None
        self._described: NDArray[np.bool_] | None = None
        self._described_pts = -math.inf
        self.text: str | None = None
        self.why: dict[str, str] = {}
        self.text_frame: int | None = None

    def decide(self, log_odds: NDArray[np.floating], pts: float) -> Decision:
        """log_odds (A,), already divided by the bundle's temperatures."""
        step = USUAL_STEP_S if self.last_pts is None else pts - self.last_pts
        step = step if 0 < step < 10 else USUAL_STEP_S
        self.last_pts = pts
        level = np.asarray(log_odds, np.float32)
        if self._baseline is not None:
            level = level - self._baseline.update(level, step)
        if self._settings.smooth > 0:
            # a first-order low pass: delays a change by about the time constant
            share = np.float32(1 - math.exp(-step / self._settings.smooth))
            level = level if self._smooth is None else self._smooth + share * (level - self._smooth)
            self._smooth = level
        probabilities: NDArray[np.float32] = (1 / (1 + np.exp(-level))).astype(np.float32)
        self._states = (probabilities >= self._on) | (self._states & (probabilities >= self._off))
        rested = self._baseline is not None and self._baseline.learned
        return Decision(probabilities, self._states, rested, self._due(pts))

    def _due(self, pts: float) -> bool:
        if self._settings.explain == "never":
            return False
        if self._settings.explain == "every" or self._described is None:
            return True
        if self._interval is not None:
            return not 0 <= pts - self._described_pts < self._interval
        return not np.array_equal(self._states, self._described)

    def describe(self, states: NDArray[np.bool_], pts: float) -> None:
        """Sentences for these states are being generated."""
        self._described, self._described_pts = states, pts

    def say(self, frame: int, text: str, why: dict[str, str]) -> None:
        self.text_frame, self.text, self.why = frame, text, why
