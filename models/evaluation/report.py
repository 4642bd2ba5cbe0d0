"""Scores as a Markdown report, with the floor and the paper's figures next to ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def markdown(title: str, scores: Sequence[dict[str, Any]], mean: dict[str, Any] | None = None) -> str:
    """One section per test part, and one for the mean over folds."""
    lines = [f"# {title}", ""]
    for one in scores:
        lines += _section(one)
    if mean is not None:
        lines += [f"## Mean over {mean['folds']} folds", "", *_table(mean), "", *_figures(mean), ""]
    return "\n".join(lines)


def _section(one: dict[str, Any]) -> list[str]:
    lines = [f"## {one['tested'] or 'test'}", "", f"{one['pictures']} images of {one['subjects']} subjects.", ""]
    if one.get("chosen_on_test"):
        lines += ["These weights are from the epoch that was best on this very test part: not comparable.", ""]
    lines += [*_table(one), "", *_figures(one)]
    left_out = [unit for unit, row in one["units"].items() if row["f1"] is None]
    if left_out:
        lines += [f"Units without a positive label in this part, so in no mean: {', '.join(left_out)}."]
    return [*lines, ""]


def _table(one: dict[str, Any]) -> list[str]:
    """The last epoch, and next to it the one that was best on the test part, if a run has both."""
    best = one.get("best_on_test") or {}
    units = best.get("units")
    titles = ["AU", "F1", "best on test", "paper", "always yes", "accuracy", "AUC"]
    rows = [
        [unit, row["f1"], units and units[unit], *(row[key] for key in ("paper_f1", "all_ones_f1", "accuracy", "auc"))]
        for unit, row in one["units"].items()
    ]
    paper = one["paper"].get("f1")
    rows += [["**mean**", one["f1"], best.get("best_f1"), paper, one["all_ones_f1"], one["accuracy"], one["auc"]]]
    if one["paper"]:
        rows += [["**paper**", paper, None, paper, one["paper"]["all_ones_f1"], one["paper"]["accuracy"], None]]
    columns = [i for i in range(len(titles)) if i != 2 or best]
    lines = [f"| {' | '.join(titles[i] for i in columns)} |", "|---" * len(columns) + "|"]
    return lines + [f"| {' | '.join(_cell(row[i]) for i in columns)} |" for row in rows]


def _figures(one: dict[str, Any]) -> list[str]:
    """Figures that do not belong to single units."""
    low, high = one["f1_interval_95"]
    lines = []
    if low is not None:
        lines += [f"Mean F1 {_percent(one['f1'])}, 95 % interval over subjects {_percent(low)} to {_percent(high)}."]
    else:
        lines += ["No interval: a bootstrap over subjects needs two or more."]
    if "calibration_error" in one:
        lines += [f"Expected calibration error {_percent(one['calibration_error'])}."]
    best = one.get("best_on_test")
    if best:
        epochs = f" (epoch {best['best_epoch']} of {best['last_epoch']})" if "best_epoch" in best else ""
        lines += [
            f"The last epoch: F1 {_percent(best['last_f1'])}. Best on test{epochs}, chosen by the test part, so not "
            f"comparable: F1 {_percent(best['best_f1'])}, accuracy {_percent(best['best_accuracy'])}, AUC "
            f"{_percent(best['best_auc'])}."
        ]
    if one.get("paper_row"):
        row = one["paper_row"]
        lines += [f"This configuration is '{row['name']}' in the paper's ablation: mean F1 {_percent(row['f1'])}."]
    if one["captions"]:
        lines += ["", *_captions(one["captions"], one["paper"])]
    if one.get("captions_by_beam"):
        beam, greedy = one["captions_by_beam"], one["captions"]
        kinds = [
            f"{name} {_percent(greedy[key])} % greedily, {_percent(beam[key])} % by the beam"
            for name, key in (("units", "local_faithful"), ("faces", "global_faithful"))
            if beam[key] is not None
        ]
        lines += ["", f"Faithful sentences: {'; '.join(kinds)}."]
    return lines


def _captions(captions: dict[str, Any], paper: dict[str, Any]) -> list[str]:
    images = f" of {captions['pictures']} images" if "pictures" in captions else ""
    lines = [f"Sentences{images}:", "", "| | of units | of faces |", "|---|---|---|"]
    rows = {
        "faithful: matches the state / names exactly the active units": (captions, "faithful"),
        "correct words (teacher forcing)": (captions, "token_accuracy"),
        "words in the top five": (captions, "top5_accuracy"),
    }
    if "local_top5_accuracy" in paper:
        rows["words in the top five, paper"] = paper, "top5_accuracy"
    for title, (table, key) in rows.items():
        lines += [f"| {title} | {_percent(table.get(f'local_{key}'))} | {_percent(table.get(f'global_{key}'))} |"]
    return lines


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else _percent(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
