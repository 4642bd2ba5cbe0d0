"""How well a face can be judged: size, sharpness, pose and share inside the frame as one number."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Each part rises from 0 at the first number to 1 at the second.
EYES_APART = (6.0, 24.0)  # pixels between the eye centres in the frame
SHARPNESS = (0.02, 0.10)  # of the crop, see `sharpness`
YAW = (75.0, 40.0)  # degrees
PITCH = (60.0, 30.0)
INSIDE = (0.6, 0.95)  # share of the 68 points that lie inside the frame; the network guesses the others


def quality(
    landmarks: NDArray[np.float32],
    poses: NDArray[np.float32],
    crops: NDArray[np.uint8],
    inside: NDArray[np.floating] | float = 1.0,
) -> NDArray[np.float32]:
    """Landmarks (F, 5, 2) in frame pixels, poses (F, 3), crops (F, S, S, 3), inside (F,) the share of points inside
    the frame -> (F,) 0..1, the worst of the parts."""
    apart = np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1)
    turned = np.nan_to_num(np.abs(poses), nan=90.0)
    # the eyes of a turned head look closer together; the pose already accounts for that
    apart = apart / np.maximum(np.cos(np.radians(np.minimum(turned[:, 0], 75))), 0.25)
    sharp = np.array([sharpness(crop) for crop in crops], np.float32).reshape(len(crops))
    seen = np.broadcast_to(_ramp(np.asarray(inside, np.float32), INSIDE), apart.shape)
    parts = (
        seen,
        _ramp(apart, EYES_APART),
        _ramp(sharp, SHARPNESS),
        _ramp(turned[:, 0], YAW),
        _ramp(turned[:, 1], PITCH),
    )
    return np.asarray(np.minimum.reduce(parts), np.float32)


def sharpness(crop: NDArray[np.uint8]) -> float:
    """How much of the inner face's contrast is detail finer than about three pixels, 0..1."""
    margin = len(crop) // 6
    grey = cv2.cvtColor(crop[margin:-margin, margin:-margin], cv2.COLOR_RGB2GRAY)
    contrast = float(cv2.meanStdDev(grey)[1][0, 0])
    if contrast < 4:  # of 255: a uniform patch
        return 0.0
    fine = cv2.subtract(grey, cv2.GaussianBlur(grey, (7, 7), 1.5), dtype=cv2.CV_16S)
    return float(cv2.meanStdDev(fine)[1][0, 0]) / contrast


def _ramp(values: NDArray[np.floating], ends: tuple[float, float]) -> NDArray[np.floating]:
    return np.asarray(np.clip((values - ends[0]) / (ends[1] - ends[0]), 0, 1))


def share_inside(points: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """(F, 68, 2) -> (F,) the share of points that lie inside the frame."""
    within = (points >= 0) & (points <= np.array([width, height], np.float32))
    return np.asarray(within.all(2).mean(1), np.float64)
