"""Figures that the paper reports, to print beside our own. Percent; numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.datasets import UNITS

_F1 = {
    "BP4D": (56.3, 49.9, 62.6, 79.5, 80.1, 82.6, 88.6, 66.8, 51.3, 63.5, 51.3, 57.1),
    "DISFA": (60.9, 56.4, 74.0, 46.3, 60.8, 72.4, 94.3, 66.5),
}
F1 = {dataset: dict(zip(UNITS[dataset], values)) for dataset, values in _F1.items()}
MEAN_F1 = {"BP4D": 65.8, "DISFA": 66.5}
ACCURACY = {"BP4D": 79.8, "DISFA": 94.3}
TOP5 = {"BP4D": {"local": 86.6, "global": 64.7}}  # word top-5 accuracy of the captions
FLOOR = {"BP4D": 48.0, "DISFA": 18.6}  # the predictor that always says yes, over all three folds
ABLATION = {  # mean F1 on BP4D
    "stem only": 64.3,
    "MSC and DAIR": 64.7,
    "local captions": 65.3,
    "global caption": 65.2,
    "all": 65.8,
}


def means(dataset: str) -> dict[str, Any]:
    """What the paper reports of all units together, as shares; empty for other data."""
    if dataset not in MEAN_F1:
        return {}
    found: dict[str, Any] = {"f1": MEAN_F1[dataset] / 100, "accuracy": ACCURACY[dataset] / 100}
    found["all_ones_f1"] = FLOOR[dataset] / 100  # not of the paper: of the whole data set, to check a test part against
    return found | {f"{kind}_top5_accuracy": value / 100 for kind, value in TOP5.get(dataset, {}).items()}


def ablation_row(config: Mapping[str, Any]) -> str | None:
    """The row of the paper's ablation that a configuration is; None for none of the five, or another network."""
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
