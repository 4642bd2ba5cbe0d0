"""Overlap of boxes and non-maximum suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """Non-maximum suppression: the rows that remain, best first."""
    order = np.argsort(-scores, kind="stable")
    remaining: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        remaining.append(best)
        order = rest[iou(boxes[best], boxes[rest]) <= overlap]
    return np.array(remaining, np.intp)


def iou(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of one box (4,) with boxes (n, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    return np.asarray(common / np.maximum(_area(box) + _area(boxes) - common, 1e-9))


def _area(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
