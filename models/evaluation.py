"""The protocol: what a network said about a test part, turned into the numbers that the field compares.

Threshold as the network's owner set it (0.5 for a run folder), counts over the whole test part, F1 per unit, mean over
units, then over folds. Knows arrays and sentences; who made them is `reader.py`'s business, printing is
`evaluation_report.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import metrics, published
from .corpus import Corpus
from .texts import active_units_of, state_of


@dataclass(frozen=True)
class Outcome:
    """What was said about one test part; axes: N pictures, A units, n pictures with sentences."""

    units: tuple[str, ...]
    labels: NDArray[np.int8]  # (N, A) -1 unknown
    probabilities: NDArray[np.float32]  # (N, A)
    states: NDArray[np.bool_]  # (N, A)
    subjects: NDArray[np.int64]  # (N,)
    tested: str = ""  # whom, in words
    dataset: str = ""  # BP4D, DISFA or other
    captions: Captions | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Captions:
    told: NDArray[np.bool_]  # (n, A) the states decided for the pictures that were described
    local: list[list[str]]  # n times A sentences
    whole: list[str]  # n sentences
    word_counts: dict[str, float] = field(default_factory=dict)  # sums by name, see `reader.TorchReader.word_counts`


def score(outcome: Outcome, *, draws: int = 1000) -> dict[str, Any]:
    """Everything that is reported about one test part, as plain numbers."""
    table = metrics.counts(outcome.labels, outcome.states)
    f1, auc = metrics.f1(table), metrics.auc(outcome.labels, outcome.probabilities)
    low, high = metrics.subject_interval(outcome.labels, outcome.states, outcome.subjects, draws=draws)
    floor = metrics.all_ones(outcome.labels)
    paper = published.F1.get(outcome.dataset, {})
    accuracy = metrics.accuracy(table)
    units = {
        unit: {
            "f1": _number(f1[i]),
            "accuracy": _number(accuracy[i]),
            "auc": _number(auc[i]),
            "all_ones_f1": _number(floor[i]),
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
        "f1": _number(metrics.mean(f1)),
        "f1_interval_95": [_number(low), _number(high)],
        "accuracy": _number(metrics.mean(accuracy)),
        "auc": _number(metrics.mean(auc)),
        "all_ones_f1": _number(metrics.mean(floor)),
        "calibration_error": _number(metrics.calibration_error(outcome.labels, outcome.probabilities)),
        "units": units,
        "captions": None if outcome.captions is None else score_captions(outcome.captions, outcome.units),
        **outcome.extra,
    }


def score_captions(captions: Captions, units: Sequence[str], corpus: Corpus | None = None) -> dict[str, Any]:
    """Faithfulness: does a unit's sentence say the state given; does the face's name exactly the active set."""
    said = np.array(
        [
            [state_of(unit, text, corpus) is bool(state) for unit, state, text in zip(units, row, texts)]
            for row, texts in zip(captions.told, captions.local)
        ]
    )
    exact = [
        active_units_of(text, corpus) == frozenset(unit for unit, state in zip(units, row) if state)
        for row, text in zip(captions.told, captions.whole)
    ]
    sums = captions.word_counts
    result: dict[str, Any] = {
        "pictures": len(captions.whole),
        "local_faithful": None,
        "global_faithful": None,
    }
    if any(text for row in captions.local for text in row):  # a network may have one kind of sentence only
        result["local_faithful"] = float(said.mean())
        result["local_faithful_units"] = dict(zip(units, np.round(said.mean(0), 4).tolist()))
    if any(captions.whole):
        result["global_faithful"] = float(np.mean(exact))
    for kind in ("local", "global"):
        if sums.get(f"{kind}_words"):
            result[f"{kind}_token_accuracy"] = sums[f"{kind}_right"] / sums[f"{kind}_words"]
            result[f"{kind}_top5_accuracy"] = sums[f"{kind}_top5"] / sums[f"{kind}_words"]
    return result


def over_folds(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the folds' numbers, as the papers report them."""
    units = list(scores[0]["units"])
    return {
        "folds": len(scores),
        **{name: _mean([one[name] for one in scores]) for name in ("f1", "accuracy", "auc", "all_ones_f1")},
        "units": {
            unit: {
                name: _mean([one["units"][unit][name] for one in scores])
                for name in ("f1", "accuracy", "auc", "all_ones_f1", "paper_f1")
            }
            for unit in units
        },
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
