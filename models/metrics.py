"""The metrics of action unit recognition, on arrays.

Axes: N images, A action units, S subjects. Labels are 1, 0 and -1 for unknown; unknown labels are ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]
Kind = TypeVar("Kind", bound=np.floating[Any])


def sigmoid(log_odds: NDArray[Kind]) -> NDArray[Kind]:
    """Probabilities, in the same type."""
    with np.errstate(over="ignore"):  # exp of large log-odds is inf, whose inverse is the 0 that is meant
        return np.asarray(1 / (1 + np.exp(-log_odds)), log_odds.dtype)


def number(value: float | np.floating[Any]) -> float | None:
    """For JSON, which has no NaN: None stands for it."""
    return float(value) if np.isfinite(value) else None


def counts(labels: Labels, states: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N, A), (N, A) -> (A, 4) true positives, false positives, false negatives, true negatives."""
    yes, no = labels == 1, labels == 0
    return np.stack([(yes & states).sum(0), (no & states).sum(0), (yes & ~states).sum(0), (no & ~states).sum(0)], -1)


def f1(table: NDArray[Any]) -> Floats:
    """(..., A, 4) -> (..., A); NaN for a unit without a positive label, on which no predictor can score."""
    tp, fp, fn = (table[..., k].astype(float) for k in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def accuracy(table: NDArray[Any]) -> Floats:
    """(..., A, 4) -> (..., A); NaN for a unit without any known label."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((table[..., 0] + table[..., 3]) / table.sum(-1))


def auc(labels: Labels, scores: NDArray[np.floating[Any]]) -> Floats:
    """Area under the ROC curve per unit, with ties counted as one half; NaN if one class is missing."""
    areas = np.full(labels.shape[1], np.nan)
    for unit in range(labels.shape[1]):
        known = labels[:, unit] >= 0
        yes = labels[known, unit] == 1
        if not yes.any() or yes.all():
            continue
        _, place, size = np.unique(scores[known, unit], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(size) - (size - 1) / 2)[place]  # mean rank of each group of ties, from 1
        n_yes = int(yes.sum())
        areas[unit] = (ranks[yes].sum() - n_yes * (n_yes + 1) / 2) / (n_yes * (len(yes) - n_yes))
    return areas


def mean(values: Floats) -> float:
    """Mean over the units that have a value; NaN if none has."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def subject_interval(
    labels: Labels,
    states: NDArray[np.bool_],
    subjects: NDArray[Any],
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of the mean F1. Whole subjects are drawn, since frames of one are not independent."""
    return interval([subject_draws(labels, states, subjects, draws=draws, seed=seed)], level=level)


def subject_draws(
    labels: Labels, states: NDArray[np.bool_], subjects: NDArray[Any], *, draws: int = 1000, seed: int = 0
) -> Floats:
    """(draws,) mean F1 of as many subjects as there are, drawn with replacement; empty for fewer than two."""
    names = np.unique(subjects)
    if len(names) < 2:
        return np.empty(0)
    per_subject = np.stack([counts(labels[subjects == name], states[subjects == name]) for name in names])  # (S, A, 4)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # (draws, S)
    tables = np.einsum("ds,sak->dak", drawn, per_subject)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw without any positive label has no mean
        return np.asarray(np.nanmean(f1(tables), axis=1))


def interval(parts: Sequence[Floats], *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean over parts (folds) that are drawn independently; NaN if a part could not be drawn."""
    if not parts or not all(len(part) for part in parts):
        return float("nan"), float("nan")
    means = np.mean(np.stack(parts), axis=0)
    tail = (1 - level) / 2 * 100
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return float(low), float(high)


def all_ones(labels: Labels) -> Floats:
    """F1 of the predictor that always says yes, the floor of every table."""
    return f1(counts(labels, np.ones(labels.shape, bool)))


def reliability(
    labels: Labels, probabilities: NDArray[np.floating[Any]], *, bins: int = 10
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean probability, share of positives and number of known labels, per equally wide bin of probability."""
    known = labels >= 0
    p, y = probabilities[known].astype(float), labels[known] == 1
    which = np.minimum((p * bins).astype(int), bins - 1)
    size = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(which, p, bins) / size, np.bincount(which, y, bins) / size, size


def calibration_error(labels: Labels, probabilities: NDArray[np.floating[Any]], *, bins: int = 10) -> float:
    """Expected calibration error: mean distance of the reliability curve from the diagonal."""
    predicted, observed, size = reliability(labels, probabilities, bins=bins)
    filled = size > 0
    if not filled.any():
        return float("nan")
    return float((np.abs(predicted - observed)[filled] * size[filled]).sum() / size.sum())
