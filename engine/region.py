"""Where things lie in a picture: the region looked at, what is inside, which boxes hold the same. Knows no network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlfau.models.detectors import iou

APART = 0.3  # a detector's box that overlaps a followed face more than this holds that face


def share_inside(points: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """(F, 68, 2) -> (F,) the share of points that lie in the picture."""
    within = (points >= 0) & (points <= np.array([width, height], np.float32))
    return np.asarray(within.all(2).mean(1), np.float64)


def apart_from(boxes: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of the boxes that hold none of the known faces."""
    if not len(boxes) or not len(known):
        return boxes
    alone = np.array([iou(box, known).max() < APART for box in boxes])
    return np.asarray(boxes[alone])


def region(roi: tuple[float, ...], height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels, inside the picture and never empty."""
    if not roi:
        return 0, 0, width, height
    x0, y0, x1, y1 = (v * n for v, n in zip(roi, (width, height) * 2)) if max(roi) <= 1 else roi
    left, top = int(np.clip(x0, 0, width - 1)), int(np.clip(y0, 0, height - 1))
    return left, top, int(np.clip(x1, left + 1, width)), int(np.clip(y1, top + 1, height))
