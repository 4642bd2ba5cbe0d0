"""Where the time of a frame goes: means over reports, and the share of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlfau.engine.wire import Report

STAGES = ("detect", "align", "predict", "explain")


def stage_means(reports: Sequence[Report]) -> dict[str, float]:
    """Mean milliseconds by stage."""
    return {stage: float(np.mean([getattr(one.latency_ms, stage) for one in reports])) for stage in STAGES}


def decode_mean(reports: Sequence[Report]) -> float:
    """Mean milliseconds of decoding, which come before capture."""
    return float(np.mean([report.latency_ms.decode for report in reports]))


def mean_faces(reports: Sequence[Report]) -> float:
    return float(np.mean([len(report.faces) for report in reports]))


def shares(spent: Mapping[str, float]) -> dict[str, float]:
    whole = sum(spent.values()) or 1.0
    return {stage: value / whole for stage, value in spent.items()}
