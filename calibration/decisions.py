"""One temperature and one threshold per action unit, fitted on labelled images.

The reported figures are cross-fitted over subjects: each subject is scored with values fitted without that subject. The
values written to the manifest are fitted on all subjects.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfau.models import metrics
from vlfau.models.bundle import Bundle, open_bundle, write_manifest
from vlfau.models.errors import UserError
from vlfau.models.metrics import number, sigmoid

Floats = NDArray[np.float64]
FEWEST = 10  # labelled images of each class; with fewer a unit keeps temperature 1 and threshold 0.5
FOLDS = 5
TEMPERATURES = (0.1, 20.0)
THRESHOLDS = (0.02, 0.98)  # beyond these a unit would be always on or always off


@dataclass(frozen=True)
class Goal:
    """What the thresholds are chosen for."""

    precision: float | None = None  # None: best F1
    prior: tuple[float, ...] | None = None  # share of active frames in use, for all units or one per unit

    def __post_init__(self) -> None:
        if self.precision is not None and not 0 < self.precision < 1:
            raise UserError(f"--precision-wanted must lie between 0 and 1, got {self.precision}.")
        if self.prior is not None and not all(0 < share < 1 for share in self.prior):
            raise UserError(f"--prior must be shares between 0 and 1, got {self.prior}.")


@dataclass(frozen=True)
class Quality:
    """Of all units together, and of each; on the 0..1 scale, None where undefined."""

    ece: float | None
    f1: float | None
    precision: float | None
    unit_ece: tuple[float | None, ...]
    unit_f1: tuple[float | None, ...]
    reliability: tuple[
        tuple[float, float, int], ...
    ]  # mean probability, share of positives, number of labels; filled bins only


@dataclass(frozen=True)
class Decisions:
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]
    before: Quality  # temperature 1, threshold 0.5
    after: Quality  # cross-fitted over subjects
    notes: tuple[str, ...]  # per unit: "", or a warning
    pictures: int
    subjects: int
    wanted: Goal = Goal()

    def write(self, bundle: Bundle, source: str) -> Bundle:
        """Writes the values and figures to the manifest, and returns the bundle reopened, which verifies it."""
        if len(self.temperatures) != len(bundle.manifest.units):
            raise UserError(
                f"Decisions for {len(self.temperatures)} units do not fit a bundle with {len(bundle.manifest.units)}."
            )
        measured = {"source": source} | {
            key: value for key, value in asdict(self).items() if key not in ("temperatures", "thresholds")
        }
        manifest = replace(
            bundle.manifest,
            temperatures=self.temperatures,
            thresholds=self.thresholds,
            provenance=bundle.manifest.provenance | {"decisions": measured},
        )
        write_manifest(bundle.folder, manifest)
        return open_bundle(bundle.folder)


def fit_decisions(
    log_odds: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    subjects: NDArray[Any],
    goal: Goal = Goal(),
    *,
    seed: int = 0,
) -> Decisions:
    """log_odds (n, A), labels (n, A) 0, 1 or -1 for unknown, subjects (n,)."""
    log_odds = np.asarray(log_odds, np.float64)
    if log_odds.shape != labels.shape or log_odds.ndim != 2 or len(subjects) != len(labels):
        raise UserError(
            f"Decisions need log-odds and labels of one shape (n, A) and n subjects, got {log_odds.shape}, "
            f"{labels.shape} and {len(subjects)}."
        )
    if not np.isfinite(log_odds).all():
        raise UserError("Some log-odds are not finite: the network or its precision is broken. Evaluate it in FP32.")
    names = np.unique(subjects)
    if len(names) < 2:
        raise UserError(
            "Decisions need two subjects or more, because figures are reported on subjects that were not fitted on."
        )
    crossed = cross_fit(log_odds, labels, subjects, goal, seed=seed)
    calibrated = sigmoid(log_odds / crossed[0])
    states = calibrated >= crossed[1]
    temperatures, thresholds, notes = _fit(log_odds, labels, goal)
    plain = sigmoid(log_odds)
    return Decisions(
        tuple(round(float(t), 4) for t in temperatures),
        tuple(round(float(t), 4) for t in thresholds),
        before=quality(labels, plain, plain >= 0.5),
        after=quality(labels, calibrated, states),
        notes=tuple(notes),
        pictures=len(labels),
        subjects=len(names),
        wanted=goal,
    )


def cross_fit(
    log_odds: Floats, labels: NDArray[np.integer[Any]], subjects: NDArray[Any], goal: Goal, *, seed: int = 0
) -> tuple[Floats, Floats]:
    """Temperatures and thresholds of each image (n, A), fitted without the subject in it."""
    names = np.random.default_rng(seed).permutation(np.unique(subjects))
    temperatures, thresholds = np.ones_like(log_odds), np.full_like(log_odds, 0.5)
    for held in np.array_split(names, min(FOLDS, len(names))):
        out = np.isin(subjects, held)
        temperatures[out], thresholds[out], _ = _fit(log_odds[~out], labels[~out], goal)
    return temperatures, thresholds


def quality(labels: NDArray[np.integer[Any]], probabilities: Floats, states: NDArray[np.bool_]) -> Quality:
    table = metrics.counts(labels, states)
    tp, fp = table[:, 0].astype(float), table[:, 1].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(tp + fp > 0, tp / (tp + fp), np.nan)
    predicted, actual, size = metrics.reliability(labels, probabilities)
    ece = [metrics.calibration_error(labels[:, [a]], probabilities[:, [a]]) for a in range(labels.shape[1])]
    f1 = metrics.f1(table)
    return Quality(
        ece=number(metrics.calibration_error(labels, probabilities)),
        f1=number(metrics.mean(f1)),
        precision=number(metrics.mean(precision)),
        unit_ece=tuple(map(number, ece)),
        unit_f1=tuple(map(number, f1)),
        reliability=tuple((float(p), float(q), int(k)) for p, q, k in zip(predicted, actual, size) if k),
    )


def _fit(log_odds: Floats, labels: NDArray[np.integer[Any]], goal: Goal) -> tuple[Floats, Floats, list[str]]:
    """Temperatures (A,), thresholds (A,) on the tempered probability, and a note per unit."""
    count = log_odds.shape[1]
    temperatures, thresholds, notes = np.ones(count), np.full(count, 0.5), [""] * count
    priors = None if goal.prior is None else np.broadcast_to(np.array(goal.prior, float), (count,))
    for unit in range(count):
        labelled = labels[:, unit] >= 0
        x, y = log_odds[labelled, unit], labels[labelled, unit] == 1
        if min(y.sum(), (~y).sum()) < FEWEST:
            notes[unit] = f"{int(y.sum())} active and {int((~y).sum())} inactive images are too few: values kept"
            continue
        weights = np.ones(len(x))
        if priors is not None:
            rate = y.mean()
            weights = np.where(y, priors[unit] / rate, (1 - priors[unit]) / (1 - rate))
        temperatures[unit] = temperature(x, y, weights)
        thresholds[unit], notes[unit] = threshold(sigmoid(x / temperatures[unit]), y, weights, goal.precision)
    return temperatures, thresholds, notes


def temperature(x: Floats, y: NDArray[np.bool_], weights: Floats) -> float:
    """The most likely T in sigmoid(x / T). The loss is convex in 1/T, so its minimum is found by bisection."""
    signed = np.where(y, x, -x)
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(50):
        middle = (low + high) / 2
        slope = -(weights * signed * sigmoid(-signed * middle)).sum()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / middle


def threshold(p: Floats, y: NDArray[np.bool_], weights: Floats, precision: float | None) -> tuple[float, str]:
    """The threshold of best F1, or the lowest that reaches `precision`, and a note if none does."""
    order = np.argsort(-p, kind="stable")
    p, hit, weight = p[order], y[order], weights[order]
    tp, fp = np.cumsum(weight * hit), np.cumsum(weight * ~hit)  # if everything up to here is called active
    last = np.append(p[1:] != p[:-1], True)  # ties are called together
    enough = np.arange(1, len(p) + 1) >= FEWEST
    f1 = np.where(last & enough, 2 * tp / (tp + fp + (weight * hit).sum()), -1)
    best, note = int(f1.argmax()), ""
    if precision is not None:
        reached = np.flatnonzero(last & enough & (tp / (tp + fp) >= precision))
        if len(reached):
            best = int(reached[-1])
        else:
            note = f"no threshold reaches precision {precision:g}: best F1 instead"
    below = p[best + 1] if best + 1 < len(p) else p[best]
    return float(np.clip((p[best] + below) / 2, *THRESHOLDS)), note
