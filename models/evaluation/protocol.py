"""Scores predictions for a test part by the protocol of the field.

Thresholds are the network's own (0.5 for a run folder). Counts are taken over the whole test part, F1 per unit, the
mean over units, then over folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..sentences.corpus import Corpus
from ..sentences.reading import active_units_of, state_of
from . import published


@dataclass(frozen=True)
class PartPredictions:
    """Predictions for one test part; axes: N images, A units."""

    units: tuple[str, ...]
    labels: NDArray[np.int8]  # (N, A) -1 unknown
    probabilities: NDArray[np.float32]  # (N, A)
    states: NDArray[np.bool_]  # (N, A)
    subjects: NDArray[np.int64]  # (N,)
    tested: str = ""  # description of the tested subjects
    dataset: str = ""  # BP4D, DISFA or other
    captions: Captions | None = None
    by_beam: Captions | None = None  # the same images, with a wider beam
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Captions:
    """Sentences for n images."""

    states: NDArray[np.bool_]  # (n, A) that the sentences describe
    local: list[list[str]]  # n times A sentences
    whole: list[str]  # n sentences
    word_counts: dict[str, float] = field(default_factory=dict)  # sums by name, see `run.network_words`
    corpus: Corpus | None = None  # of these sentences; the package's by default


def score(outcome: PartPredictions, *, draws: int = 1000) -> dict[str, Any]:
    """Everything that is reported about one test part, as plain numbers."""
    table = metrics.counts(outcome.labels, outcome.states)
    f1, auc = metrics.f1(table), metrics.auc(outcome.labels, outcome.probabilities)
    low, high = metrics.subject_interval(outcome.labels, outcome.states, outcome.subjects, draws=draws)
    floor = metrics.all_ones(outcome.labels)
    paper = published.unit_f1(outcome.dataset)
    same_units = set(paper) == set(outcome.units)  # a mean over other units cannot be compared
    accuracy = metrics.accuracy(table)
    units = {
        unit: {
            "f1": metrics.number(f1[i]),
            "accuracy": metrics.number(accuracy[i]),
            "auc": metrics.number(auc[i]),
            "all_ones_f1": metrics.number(floor[i]),
            "positives": int(table[i, 0] + table[i, 2]),
            "known": int(table[i].sum()),
            "paper_f1": paper[unit] / 100 if unit in paper else None,
        }
        for i, unit in enumerate(outcome.units)
    }
    return {
        "tested": outcome.tested,
        "dataset": outcome.dataset,
        "pictures": len(outcome.labels),
        "subjects": len(np.unique(outcome.subjects)),
        "f1": metrics.number(metrics.mean(f1)),
        "f1_interval_95": [metrics.number(low), metrics.number(high)],
        "accuracy": metrics.number(metrics.mean(accuracy)),
        "auc": metrics.number(metrics.mean(auc)),
        "all_ones_f1": metrics.number(metrics.mean(floor)),
        "calibration_error": metrics.number(metrics.calibration_error(outcome.labels, outcome.probabilities)),
        "paper": published.means(outcome.dataset) if same_units else {},
        "units": units,
        "captions": None if outcome.captions is None else score_captions(outcome.captions, outcome.units),
        "captions_by_beam": None if outcome.by_beam is None else score_captions(outcome.by_beam, outcome.units),
        **outcome.extra,
    }


def score_captions(captions: Captions, units: Sequence[str]) -> dict[str, Any]:
    """Faithfulness: whether a unit's sentence matches its state, and a face's names exactly the active units."""
    corpus = captions.corpus
    faithful = np.array(
        [
            [state_of(unit, text, corpus) is bool(state) for unit, state, text in zip(units, row, texts)]
            for row, texts in zip(captions.states, captions.local)
        ]
    )
    exact = [
        active_units_of(text, corpus) == frozenset(unit for unit, state in zip(units, row) if state)
        for row, text in zip(captions.states, captions.whole)
    ]
    sums = captions.word_counts
    result: dict[str, Any] = {
        "pictures": len(captions.whole),
        "local_faithful": None,
        "global_faithful": None,
    }
    if any(text for row in captions.local for text in row):  # a network may produce only one kind of sentence
        result["local_faithful"] = float(faithful.mean())
        result["local_faithful_units"] = dict(zip(units, np.round(faithful.mean(0), 4).tolist()))
    if any(captions.whole):
        result["global_faithful"] = float(np.mean(exact))
    for kind in ("local", "global"):
        if sums.get(f"{kind}_words"):
            result[f"{kind}_token_accuracy"] = sums[f"{kind}_right"] / sums[f"{kind}_words"]
            result[f"{kind}_top5_accuracy"] = sums[f"{kind}_top5"] / sums[f"{kind}_words"]
    return result


def over_folds(
    scores: Sequence[dict[str, Any]], outcomes: Sequence[PartPredictions] = (), *, draws: int = 1000
) -> dict[str, Any]:
    """Means over folds, as the papers report them; the interval draws subjects within each fold."""
    units = list(scores[0]["units"])
    drawn = [
        metrics.subject_draws(one.labels, one.states, one.subjects, draws=draws, seed=number)
        for number, one in enumerate(outcomes)
    ]
    low, high = metrics.interval(drawn)
    datasets = {one["dataset"] for one in scores}
    captions = [one["captions"] for one in scores if one["captions"]]
    best = [one["best_on_test"] for one in scores if one.get("best_on_test")]
    best_mean = None
    if len(best) == len(scores):
        best_units = {unit: _mean([one["units"][unit] for one in best]) for unit in units}
        best_mean = _means(best, ("last_epoch", "best_epoch", "units")) | {"units": best_units}
    return {
        "folds": len(scores),
        "dataset": datasets.pop() if len(datasets) == 1 else "",
        **{name: _mean([one[name] for one in scores]) for name in ("f1", "accuracy", "auc", "all_ones_f1")},
        "f1_interval_95": [metrics.number(low), metrics.number(high)],
        "paper": scores[0]["paper"],
        "captions": _means(captions, ("pictures", "local_faithful_units")) if captions else None,
        "best_on_test": best_mean,
        "units": {
            unit: {
                name: _mean([one["units"][unit][name] for one in scores])
                for name in ("f1", "accuracy", "auc", "all_ones_f1", "paper_f1")
            }
            for unit in units
        },
    }


def _means(tables: Sequence[dict[str, Any]], but: Sequence[str] = ()) -> dict[str, Any]:
    return {name: _mean([table.get(name) for table in tables]) for name in tables[0] if name not in but}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
