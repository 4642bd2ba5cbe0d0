"""Box -> 68 points and whether this is a face at all. Training is `landmark_training.py`, finding boxes `detectors.py`.

INTERIM: until the network is trained, the points are a mean shape laid into the box and presence is a contrast check.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX_GROWTH = 1.15  # side of a face's box over the larger extent of its 68 points


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    points: NDArray[np.float32]  # (F, 68, 2) iBUG order, picture pixels
    presence: NDArray[np.float32]  # (F,) probability that this is a face

    def __len__(self) -> int:
        return len(self.presence)


def box_of(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 68, 2) -> (..., 4): the square box that `locate` takes in the next frame."""
    low, high = points.min(-2), points.max(-2)
    centre, half = (low + high) / 2, (high - low).max(-1, keepdims=True) * (BOX_GROWTH / 2)
    return np.concatenate([centre - half, centre + half], -1).astype(np.float32)


def open_landmarks() -> LandmarkNet:
    return LandmarkNet()


class LandmarkNet:
    threshold = 0.5  # presence at and above which it is a face

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
        """picture (H, W, 3) uint8 RGB, boxes (F, 4) of any detector or from `box_of`."""
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        side = (boxes[:, 2:] - boxes[:, :2]).max(1) / BOX_GROWTH
        points = centre[:, None] + _mean_shape()[None] * side[:, None, None]
        presence = np.array([_contrast(picture, box) for box in boxes], np.float32)
        return Located(points.astype(np.float32), presence)

    def close(self) -> None: ...


def _contrast(picture: NDArray[np.uint8], box: NDArray[np.float32]) -> float:
    x0, y0, x1, y1 = np.clip(np.round(box), 0, None).astype(int)
    inside = picture[y0:y1, x0:x1]
    return 0.9 if inside.size and float(inside.std()) > 8 else 0.1


def _mean_shape() -> NDArray[np.float32]:
    """A drawn face around (0, 0), larger extent 1."""

    def ring(
        x: float, y: float, a: float, b: float, degrees: NDArray[np.floating] | list[float]
    ) -> list[tuple[float, float]]:
        angle = np.deg2rad(degrees)
        return list(zip(x + a * np.cos(angle), y - b * np.sin(angle)))

    points = ring(0, -0.2, 0.48, 0.7, np.linspace(180, 360, 17))
    points += [(x, -0.45 - 0.05 * np.sin(np.pi * i / 4)) for i, x in enumerate(np.linspace(-0.38, -0.08, 5))]
    points += [(x, -0.45 - 0.05 * np.sin(np.pi * i / 4)) for i, x in enumerate(np.linspace(0.08, 0.38, 5))]
    points += [(0.0, y) for y in np.linspace(-0.3, 0.02, 4)] + [(x, 0.08) for x in np.linspace(-0.09, 0.09, 5)]
    points += ring(-0.22, -0.28, 0.08, 0.03, [180, 120, 60, 0, -60, -120])
    points += ring(0.22, -0.28, 0.08, 0.03, [180, 120, 60, 0, -60, -120])
    points += ring(0, 0.24, 0.17, 0.07, [180, 150, 120, 90, 60, 30, 0, -30, -60, -90, -120, -150])
    points += ring(0, 0.24, 0.13, 0.02, [180, 120, 90, 60, 0, -60, -90, -120])
    return np.array(points, np.float32)
