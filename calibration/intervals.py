"""What one precision costs compared with another, per unit, with intervals from a paired bootstrap over subjects.

Whole subjects are drawn, since frames of one subject are not independent, and both precisions get the same draws. The
measures are those of `vlfau.models.metrics`, with a weight for each image. Axes: N images, A units, D draws.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Difference = tuple[float, float, float]  # value, low, high
DRAWS = 1000
BINS = 10  # of the calibration error, as in metrics
MEASURES = ("f1", "auc", "ece")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of one precision, for N images."""

    log_odds: NDArray[Any]  # (N, A)
    probabilities: NDArray[Any]
    states: NDArray[np.bool_]


def measures(labels: NDArray[np.integer[Any]], predictions: Predictions, weights: Floats) -> dict[str, Floats]:
    """weights (D, N) -> each of MEASURES as (D, A + 1); the last column covers all units: their mean, and for the
    ECE all labels pooled. NaN where undefined."""
    f1, auc, ece = (np.full((len(weights), labels.shape[1] + 1), np.nan) for _ in MEASURES)
    gaps, sizes = np.zeros((len(weights), BINS)), np.zeros(len(weights))
    for unit in range(labels.shape[1]):
        labelled = labels[:, unit] >= 0
        if not labelled.any():
            continue
        w, yes = weights[:, labelled], labels[labelled, unit] == 1
        f1[:, unit] = _f1(w, yes, predictions.states[labelled, unit])
        auc[:, unit] = _auc(w, yes, predictions.log_odds[labelled, unit])
        gap, size = _gaps(w, yes, predictions.probabilities[labelled, unit].astype(float))
        with np.errstate(invalid="ignore", divide="ignore"):
            ece[:, unit] = np.abs(gap).sum(1) / size
        gaps, sizes = gaps + gap, sizes + size
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw in which no unit has a positive label has no mean
        f1[:, -1], auc[:, -1] = np.nanmean(f1[:, :-1], 1), np.nanmean(auc[:, :-1], 1)
        ece[:, -1] = np.abs(gaps).sum(1) / sizes
    return {"f1": f1, "auc": auc, "ece": ece}


def differences(
    labels: NDArray[np.integer[Any]], subjects: NDArray[Any], first: Predictions, second: Predictions, *, seed: int = 0
) -> dict[str, list[Difference | None]]:
    """Second minus first with 95 % intervals: per measure A + 1 entries, the last over all units. The interval is NaN
    for a single subject, and an entry is None where undefined."""
    names, which = np.unique(subjects, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    weights = np.concatenate([np.ones((1, len(labels))), drawn[:, which].astype(float)])
    if len(names) < 2:
        weights = weights[:1]
    one, other = measures(labels, first, weights), measures(labels, second, weights)
    return {name: [_interval(column) for column in (other[name] - one[name]).T] for name in MEASURES}


def _interval(values: Floats) -> Difference | None:
    """values (1 + D,): the measured one, then the draws."""
    value, draws = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value):
        return None
    if not len(draws):
        return value, float("nan"), float("nan")
    low, high = np.percentile(draws, [2.5, 97.5])
    return value, float(low), float(high)


def _f1(weights: Floats, yes: NDArray[np.bool_], states: NDArray[np.bool_]) -> Floats:
    tp, fp, fn = (weights[:, group].sum(1) for group in (yes & states, ~yes & states, yes & ~states))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def _auc(weights: Floats, yes: NDArray[np.bool_], scores: NDArray[Any]) -> Floats:
    """Share of pairs in the right order; ties count half."""
    order = np.argsort(scores, kind="stable")
    begins = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # of each group of equal scores
    w, yes = weights[:, order], yes[order]
    positive = np.add.reduceat(w * yes, begins, axis=1)
    negative = np.add.reduceat(w * ~yes, begins, axis=1)
    below = np.cumsum(negative, 1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, (positive * below).sum(1) / pairs, np.nan))


def _gaps(weights: Floats, yes: NDArray[np.bool_], probabilities: Floats) -> tuple[Floats, Floats]:
    """(D, BINS) weighted sum of probability minus label in each bin, and (D,) the total weight."""
    which = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    into = np.zeros((len(yes), BINS))
    into[np.arange(len(yes)), which] = probabilities - yes
    return weights @ into, weights.sum(1)
