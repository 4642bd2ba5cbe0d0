"""Figures that the paper reports, to print beside our own. Percent; numbers only."""

from __future__ import annotations

from .table import UNITS

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
