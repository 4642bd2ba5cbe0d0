"""Scores as Markdown that a person reads, with the floor and the paper's figures beside ours. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import published


def markdown(title: str, scores: Sequence[dict[str, Any]], mean: dict[str, Any] | None = None) -> str:
    """One section per test part, and one for the mean over folds."""
    lines = [f"# {title}", ""]
    for one in scores:
        lines += _section(one)
    if mean is not None:
        lines += [f"## Mean over {mean['folds']} folds", "", *_table(mean), ""]
    return "\n".join(lines)


def _section(one: dict[str, Any]) -> list[str]:
    low, high = one["f1_interval_95"]
    lines = [f"## {one['tested'] or 'test'}", "", f"{one['pictures']} pictures of {one['subjects']} subjects.", ""]
    lines += [*_table(one), ""]
    if low is not None:
        lines += [f"Mean F1 {_percent(one['f1'])}, 95 % interval over subjects {_percent(low)} to {_percent(high)}."]
    else:
        lines += ["No interval: a bootstrap over subjects needs two or more."]
    lines += [f"Expected calibration error {_percent(one['calibration_error'])}."]
    best = one.get("best_on_test")
    if best:
        lines += [
            f"Last epoch ({best['last_epoch']}): F1 {_percent(best['last_f1'])}. Best on test (epoch "
            f"{best['best_epoch']}, chosen by the test part, so not comparable): F1 {_percent(best['best_f1'])}."
        ]
    left_out = [unit for unit, row in one["units"].items() if row["f1"] is None]
    if left_out:
        lines += [f"Without a positive label in this part, so in no mean: {', '.join(left_out)}."]
    if one["captions"]:
        lines += ["", *_captions(one["captions"], one["dataset"])]
    return [*lines, ""]


def _table(one: dict[str, Any]) -> list[str]:
    lines = ["| AU | F1 | paper | always yes | accuracy | AUC |", "|---|---|---|---|---|---|"]
    keys = ("f1", "paper_f1", "all_ones_f1", "accuracy", "auc")
    lines += [f"| {unit} | {' | '.join(_percent(row[key]) for key in keys)} |" for unit, row in one["units"].items()]
    dataset = one.get("dataset", "")
    whole = set(one["units"]) == set(published.F1.get(dataset, ()))
    paper = published.MEAN_F1[dataset] / 100 if whole else None
    mean = (one["f1"], paper, one["all_ones_f1"], one["accuracy"], one["auc"])
    return [*lines, f"| **mean** | {' | '.join(map(_percent, mean))} |"]


def _captions(captions: dict[str, Any], dataset: str) -> list[str]:
    paper = published.TOP5.get(dataset, {})
    lines = [f"Sentences of {captions['pictures']} pictures:", "", "| | a unit's | the face's |", "|---|---|---|"]
    rows = {
        "says the state it was given / names exactly the active units": "faithful",
        "words right (teacher-forced)": "token_accuracy",
        "words among the first five": "top5_accuracy",
    }
    for title, key in rows.items():
        lines += [f"| {title} | {_percent(captions.get(f'local_{key}'))} | {_percent(captions.get(f'global_{key}'))} |"]
    if paper:
        lines += [f"| the same, paper | {paper['local']} | {paper['global']} |"]
    return lines


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
