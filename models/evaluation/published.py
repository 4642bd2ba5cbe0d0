"""Figures that the paper reports, to print next to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.datasets import DATASETS


def unit_f1(dataset: str) -> Mapping[str, float]:
    """F1 by unit, in percent; empty for other data."""
    return DATASETS[dataset].paper.f1 if dataset in DATASETS else {}


def means(dataset: str) -> dict[str, Any]:
    """Figures over all units together, as shares; empty for other data."""
    if dataset not in DATASETS:
        return {}
    paper = DATASETS[dataset].paper
    figures = {"f1": paper.mean_f1, "accuracy": paper.accuracy, "all_ones_f1": paper.floor}
    figures |= {f"{kind}_top5_accuracy": value for kind, value in paper.top5.items()}
    return {name: value / 100 for name, value in figures.items()}


def ablation(dataset: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name and mean F1 of the row of the paper's ablation that matches a configuration; None if none does."""
    row = ablation_row(config)
    figures = DATASETS[dataset].paper.ablation if dataset in DATASETS else {}
    return {"name": row, "f1": figures[row] / 100} if row is not None and row in figures else None


def ablation_row(config: Mapping[str, Any]) -> str | None:
    if config.get("kind") != "vlfau":
        return None
    parts = tuple(bool(config.get(name, True)) for name in ("msc", "dair", "local_captions", "global_caption"))
    rows: dict[tuple[bool, ...], str] = {
        (False, False, False, False): "stem only",
        (True, True, False, False): "MSC and DAIR",
        (True, True, True, False): "local captions",
        (True, True, False, True): "global caption",
        (True, True, True, True): "all",
    }
    return rows.get(parts)
