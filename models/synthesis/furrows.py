"""Where the furrows of a face lie, which units make them appear, and how deep they are: the table of `relief.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Line = Sequence[tuple[float, float]]  # eye distances on the front view of the face


@dataclass(frozen=True)
class FurrowGroup:
    """Furrows that appear together. Lines are given for the right of the picture and mirrored to the left."""

    units: tuple[tuple[str, float], ...]  # that make them appear, with weights that add up
    lines: tuple[Line, ...]
    depth: float  # eye distances at intensity 1 in a middle-aged face
    width: float  # eye distances
    wander: float = 0.02  # how far a line's points differ between drawings
    rest: float = 0.5  # share of it that an old face keeps at rest
    bumps: float = 0.0  # depth of an irregular pattern instead of lines, like orange peel


def _arch(y: float, inner: float, outer: float, bow: float) -> Line:
    """A nearly horizontal line from x = inner to outer, `bow` higher in its middle."""
    return [(x, y + bow * (1 - ((x - inner) / (outer - inner) * 2 - 1) ** 2)) for x in np.linspace(inner, outer, 7)]


GROUPS: dict[str, FurrowGroup] = {
    "forehead_middle": FurrowGroup(
        (("AU01", 1.0),), tuple(_arch(y, 0.0, 0.42, 0.03) for y in (0.50, 0.62, 0.74, 0.86)), 0.016, 0.022, 0.03
    ),
    "forehead_side": FurrowGroup(
        (("AU02", 1.0),), tuple(_arch(y, 0.34, 0.82, 0.06) for y in (0.48, 0.59, 0.71, 0.83)), 0.015, 0.022, 0.03
    ),
    "between_brows": FurrowGroup(
        (("AU04", 1.0),),
        (((0.10, 0.34), (0.085, 0.20), (0.07, 0.07)), ((0.16, 0.31), (0.15, 0.22))),
        0.022,
        0.020,
        0.014,
    ),
    "brow_pinch": FurrowGroup((("AU04", 0.8),), (((0.0, 0.10), (0.06, 0.105), (0.12, 0.13)),), 0.014, 0.022, 0.012),
    "nose_root": FurrowGroup(
        (("AU09", 1.0),),
        (
            ((0.0, 0.09), (0.06, 0.08), (0.12, 0.05)),
            ((0.05, 0.02), (0.12, -0.05), (0.19, -0.10)),
            ((0.05, -0.07), (0.12, -0.14), (0.18, -0.18)),
            ((0.06, -0.16), (0.12, -0.22), (0.17, -0.25)),
        ),
        0.017,
        0.018,
        0.012,
        rest=0.1,
    ),
    "nose_wing": FurrowGroup(
        (("AU09", 0.9), ("AU10", 0.8)), (((0.22, -0.52), (0.29, -0.62), (0.34, -0.74)),), 0.024, 0.028, 0.015
    ),
    "under_eye": FurrowGroup(
        (("AU06", 0.8), ("AU09", 0.5), ("AU07", 0.25)),
        (((0.28, -0.10), (0.40, -0.20), (0.56, -0.22), (0.70, -0.16)), ((0.34, -0.16), (0.46, -0.27), (0.60, -0.28))),
        0.013,
        0.022,
        0.018,
    ),
    "lower_lid": FurrowGroup(
        (("AU07", 1.0),), (((0.34, -0.09), (0.5, -0.135), (0.66, -0.09)),), 0.012, 0.018, 0.01, rest=0.3
    ),
    "crow_feet": FurrowGroup(
        (("AU06", 1.0), ("AU07", 0.15)),
        (
            ((0.77, 0.02), (0.87, 0.09), (0.95, 0.15)),
            ((0.78, -0.01), (0.90, 0.0), (1.0, 0.02)),
            ((0.77, -0.05), (0.88, -0.10), (0.97, -0.15)),
            ((0.74, -0.10), (0.83, -0.19), (0.91, -0.27)),
        ),
        0.014,
        0.016,
        0.014,
    ),
    "nasolabial": FurrowGroup(
        (("AU12", 0.9), ("AU10", 0.7), ("AU06", 0.25), ("AU09", 0.3)),
        (((0.26, -0.60), (0.34, -0.73), (0.43, -0.87), (0.49, -0.99), (0.51, -1.06)),),
        0.022,
        0.028,
        0.02,
        rest=0.8,
    ),
    "cheek_line": FurrowGroup(
        (("AU12", 0.8), ("AU14", 0.3)), (((0.60, -0.85), (0.66, -1.0), (0.66, -1.14)),), 0.007, 0.04, 0.03
    ),
    "dimple": FurrowGroup(
        (("AU14", 1.0), ("AU12", 0.15)),
        (((0.505, -1.06), (0.52, -1.12), (0.505, -1.19)), ((0.56, -1.05), (0.575, -1.13), (0.555, -1.2))),
        0.024,
        0.024,
        0.012,
        rest=0.15,
    ),
    "marionette": FurrowGroup(
        (("AU15", 1.0), ("AU14", 0.15)), (((0.45, -1.15), (0.50, -1.25), (0.52, -1.40)),), 0.020, 0.026, 0.015, rest=0.7
    ),
    "under_lip": FurrowGroup(
        (("AU17", 0.9), ("AU24", 0.6), ("AU15", 0.3), ("AU23", 0.3)),
        (((0.0, -1.42), (0.12, -1.425), (0.24, -1.46)),),
        0.020,
        0.030,
        0.012,
    ),
    "chin": FurrowGroup((("AU17", 1.0), ("AU15", 0.1), ("AU24", 0.15)), (), 0.0, 0.02, bumps=0.015, rest=0.05),
    "stretch": FurrowGroup(
        (("AU20", 1.0),),
        (((0.52, -0.98), (0.57, -1.12), (0.55, -1.27)), ((0.62, -1.0), (0.66, -1.15))),
        0.017,
        0.025,
        0.015,
    ),
    "lip_lines": FurrowGroup(
        (("AU23", 1.0), ("AU24", 0.3)),
        (
            *(((x, -0.93 - 0.1 * x), (x * 0.95, -1.04)) for x in (0.06, 0.14, 0.22, 0.30)),
            *(((x, -1.30), (x, -1.20)) for x in (0.05, 0.13, 0.22)),
        ),
        0.011,
        0.013,
        0.01,
        rest=0.4,
    ),
    "pressed_corner": FurrowGroup(
        (("AU24", 1.0), ("AU23", 0.4)), (((0.44, -1.05), (0.475, -1.12), (0.45, -1.18)),), 0.018, 0.024, 0.01
    ),
}
