"""Draws expressions: intensities of the units on both sides, and movements that belong to none of the units.

`units.py` derives the labels, `person.py` the geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .units import INDEX, UNITS, reconcile

Floats = NDArray[np.float32]

# The ways in which expressions are drawn, and the share of each.
WAYS = {"neutral": 0.18, "single": 0.20, "correlated": 0.13, "frequent": 0.07, "sparse": 0.10, "speech": 0.10,
        "brows": 0.16, "eyes": 0.06}  # fmt: skip

# How often a unit is the one of "single"; brows, nose and lips that pilot networks confused are drawn more often.
SINGLE_WEIGHT = dict.fromkeys(UNITS, 1.0) | {
    "AU05": 0.5, "AU43": 0.6, "AU01": 1.3, "AU02": 1.3, "AU04": 1.4, "AU09": 1.3, "AU10": 1.3, "AU14": 1.3,
    "AU15": 1.3, "AU17": 1.2, "AU20": 1.2, "AU23": 1.4, "AU24": 1.4,
}  # fmt: skip

# Base rates of the "correlated" way: above those of the data sets for rare units, so that none is too rare to learn.
RATE = {
    "AU01": 0.25, "AU02": 0.2, "AU04": 0.25, "AU05": 0.08, "AU06": 0.35, "AU07": 0.35, "AU09": 0.15, "AU10": 0.3,
    "AU12": 0.4, "AU14": 0.25, "AU15": 0.2, "AU17": 0.28, "AU20": 0.15, "AU23": 0.18, "AU24": 0.18, "AU25": 0.35,
    "AU26": 0.2, "AU43": 0.06,
}  # fmt: skip

# Units that people show on one side only. A tuple, because the order of a set differs between processes.
ONE_SIDED = ("AU02", "AU06", "AU07", "AU09", "AU10", "AU12", "AU14", "AU15", "AU20", "AU43")

MOUTH_EXTRAS = ("pucker", "funnel", "suck", "bite", "puff", "jaw_forward", "jaw_left", "jaw_right", "mouth_left",
                "mouth_right", "tongue", "shrug_upper", "nostrils")  # fmt: skip
SOUNDS = ("PP", "FF", "TH", "DD", "kk", "CH", "nn", "RR", "aa", "O", "U")


@dataclass(frozen=True)
class Expression:
    way: str
    intensity: Floats  # (A, 2) in 0..1.1, sides left and right in the picture
    extras: Mapping[str, float] = field(default_factory=dict)
    sealed: bool = False  # the lips stay closed if only a raised upper lip would part them

    @property
    def moves_jaw(self) -> bool:
        """Whether a movement other than the units may open the mouth."""
        return any(name.startswith("say_") or name in ("tongue", "funnel") for name in self.extras)


def draw_expression(rng: np.random.Generator, statistics: Mapping[str, Any]) -> Expression:
    way = str(rng.choice(list(WAYS), p=np.array(list(WAYS.values())) / sum(WAYS.values())))
    level = np.zeros(len(UNITS))
    if way == "single":
        weights = np.array([SINGLE_WEIGHT[name] for name in UNITS])
        level[rng.choice(len(UNITS), p=weights / weights.sum())] = rng.uniform(0.2, 1.1)
    elif way == "correlated":
        level = _correlated(rng, statistics)
    elif way == "frequent":
        level = _frequent(rng, statistics)
    elif way == "sparse":
        count = int(rng.integers(2, 5))
        level[rng.choice(len(UNITS), count, replace=False)] = rng.beta(1.6, 1.2, count) * 1.05
    elif way == "speech":
        for name, chance in (
            ("AU12", 0.3),
            ("AU06", 0.15),
            ("AU01", 0.2),
            ("AU02", 0.2),
            ("AU04", 0.2),
            ("AU07", 0.15),
        ):
            if rng.random() < chance:
                level[INDEX[name]] = rng.beta(1.4, 1.4)
        if rng.random() < 0.7:
            level[INDEX["AU25"]] = rng.beta(1.2, 1.5)
        if rng.random() < 0.5:
            level[INDEX["AU26"]] = rng.beta(1.2, 1.8)
    elif way == "brows":
        _move_brows(rng, level)
    elif way == "eyes":
        level[INDEX["AU43"]] = rng.uniform(0.0, 1.1)
        if rng.random() < 0.3:
            level[INDEX["AU07"]] = rng.uniform(0.1, 1.0)
    if way in ("correlated", "frequent") and rng.random() < 0.8:
        _move_eyes_alone(rng, level)
    # People blink during any expression; a network that rarely sees it takes a lowered lid for a raised brow.
    if way != "neutral" and rng.random() < 0.18:
        level[INDEX["AU43"]] = rng.uniform(0.1, 1.1)
    # Below the threshold, because a face is never quite still.
    still = rng.random(len(UNITS)) < (0.12 if way == "neutral" else 0.2)
    level += still * rng.uniform(0, 0.10 if way == "neutral" else 0.18, len(UNITS))
    intensity = reconcile(_both_sides(rng, level))
    return Expression(way, intensity, _extras(rng, way, intensity), sealed=bool(rng.random() < 0.6))


def _move_brows(rng: np.random.Generator, level: NDArray[np.float64]) -> None:
    """Brows from barely to fully moved, in usual combinations, with a mouth that is independent of them."""
    if rng.random() < 0.6:
        level[[INDEX["AU01"], INDEX["AU02"]]] = rng.uniform(0.05, 1.0) * rng.uniform(0.5, 1.2, 2)
    else:
        level[INDEX["AU04"]] = rng.uniform(0.05, 1.05)
        level[INDEX["AU01"]] = (rng.random() < 0.3) * rng.uniform(0.1, 0.9)
    for name, chance in (("AU12", 0.15), ("AU25", 0.2), ("AU26", 0.12), ("AU06", 0.08), ("AU07", 0.15)):
        level[INDEX[name]] = (rng.random() < chance) * rng.uniform(0.1, 1.0)


def _move_eyes_alone(rng: np.random.Generator, level: NDArray[np.float64]) -> None:
    """Brows and lids as often as with a resting mouth, or else a network takes a smile for tight lids, and any moving
    mouth for a raised brow.
    """
    for name in ("AU01", "AU02", "AU04", "AU07"):
        level[INDEX[name]] = (rng.random() < 0.2) * rng.uniform(0.1, 1.05)


def _both_sides(rng: np.random.Generator, level: NDArray[np.float64]) -> Floats:
    """(A,) -> (A, 2): sides differ slightly as a rule, sometimes strongly, and occasionally one is still."""
    sides = np.repeat(level[:, None], 2, 1)
    spread = rng.choice([0.04, 0.15, 0.35], p=[0.55, 0.33, 0.12])
    lean = rng.normal(0, spread, len(level)) + rng.normal(0, spread / 2)
    sides[:, 0] *= np.clip(1 + lean, 0.3, 1.4)
    sides[:, 1] *= np.clip(1 - lean, 0.3, 1.4)
    for name in ONE_SIDED:
        if rng.random() < 0.05:
            sides[INDEX[name], int(rng.integers(2))] *= rng.uniform(0, 0.3)
    return np.clip(sides, 0, 1.15).astype(np.float32)


def _extras(rng: np.random.Generator, way: str, intensity: Floats) -> dict[str, float]:
    extras: dict[str, float] = {}
    closed = float(intensity[INDEX["AU43"]].max())
    across, along = rng.normal(0, 0.6 if way == "eyes" else 0.35, 2)
    extras["look_right" if across > 0 else "look_left"] = float(min(abs(across), 1.0))
    # Lids follow the gaze, so closed lids leave it little room.
    extras["look_up" if along > 0 else "look_down"] = float(min(abs(along), 1 - 0.9 * min(closed, 1.0)))
    busy_mouth = max(intensity[INDEX[name]].max() for name in ("AU23", "AU24", "AU17", "AU15", "AU20"))
    if way == "speech":
        for sound in rng.choice(SOUNDS, int(rng.integers(1, 3)), replace=False):
            extras[f"say_{sound}"] = float(rng.uniform(0.3, 0.9))
    chance = 0.12 if way == "neutral" else (0.0 if busy_mouth > 0.3 else 0.18)
    if rng.random() < chance:
        for name in rng.choice(MOUTH_EXTRAS, 1 if rng.random() < 0.8 else 2, replace=False):
            extras[str(name)] = float(rng.uniform(0.2, 0.9))
    return extras


def _correlated(rng: np.random.Generator, statistics: Mapping[str, Any]) -> NDArray[np.float64]:
    """A Gaussian copula with the phi coefficients of the data sets, so that units co-occur as in people."""
    root = _copula(_Frozen(statistics))
    z = root @ rng.standard_normal(len(UNITS))
    rate = np.array([RATE[name] for name in UNITS])
    rank = np.array([NormalDist().cdf(value) for value in z])
    on = rank > 1 - rate
    strength = 0.2 + 0.8 * np.clip((rank - (1 - rate)) / rate, 0, 1) ** 0.8
    return np.asarray(np.where(on, strength * rng.uniform(0.5, 1.2, len(UNITS)), 0.0))


def _frequent(rng: np.random.Generator, statistics: Mapping[str, Any]) -> NDArray[np.float64]:
    """One of the most frequent combinations in BP4D or DISFA."""
    combinations = statistics["BP4D" if rng.random() < 0.5 else "DISFA"]["top_combinations"]
    combinations = [c for c in combinations if c["aus"]]
    share = np.sqrt(np.array([c["freq"] for c in combinations]))  # the root, so that rarer ones are drawn, too
    chosen = combinations[int(rng.choice(len(combinations), p=share / share.sum()))]
    level = np.zeros(len(UNITS))
    for name in chosen["aus"]:
        unit = f"AU{int(name[2:]):02d}"
        if unit in INDEX:
            level[INDEX[unit]] = 0.25 + 0.8 * rng.beta(1.5, 1.5)
    return level


class _Frozen:
    """Makes a table an argument of a cached function: equal if it is the same object."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.table = table

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and other.table is self.table


@lru_cache(maxsize=2)
def _copula(frozen: _Frozen) -> NDArray[np.float64]:
    """The Cholesky root of the correlation of units; phi is increased because thresholding weakens correlations."""
    matrix = np.eye(len(UNITS))
    for name in ("DISFA", "BP4D"):
        table = frozen.table[name]
        rows = [INDEX[f"AU{int(unit[2:]):02d}"] for unit in table["aus"]]
        phi = np.clip(1.3 * np.array(table["phi"]), -0.9, 0.9)
        for i, values in zip(rows, phi):
            for j, value in zip(rows, values):
                if i != j:
                    matrix[i, j] = value
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    matrix = (vectors * np.clip(values, 0.05, None)) @ vectors.T
    scale = np.sqrt(np.diag(matrix))
    return np.asarray(np.linalg.cholesky(matrix / scale / scale[:, None]))
