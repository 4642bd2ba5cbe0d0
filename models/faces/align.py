"""The similarity warp from a face in a picture to the network's crop, the same for training and streaming.

The five points come from a detector or from `landmarks.py`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Where the five points lie in a crop of side 1: eye centres, nose tip, mouth corners (left = smaller x in the picture).
# With the eyes 0.30 apart, a raised brow and a dropped jaw both stay inside the crop.
TEMPLATE = np.array([[0.35, 0.36], [0.65, 0.36], [0.50, 0.54], [0.385, 0.70], [0.615, 0.70]], np.float32)

# The action units to recognise (12, 15, 20) move the mouth corners, and yaw moves the nose tip: both count less.
WEIGHTS = np.array([1.0, 1.0, 0.4, 0.15, 0.15], np.float64)

POINTS = 68  # per face, in iBUG order

# The five points from these: an eye's centre is the middle of its corners. Lids are left out: a blink would move the
# crop as much as a slightly raised brow.
LEFT_EYE, RIGHT_EYE, NOSE_TIP, LEFT_MOUTH, RIGHT_MOUTH = [36, 39], [42, 45], 30, 48, 54

# Of both eyes, each upper lid point with the one below it.
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]

# MIRROR[i] is the point that point i becomes when the picture is flipped.
MIRROR = np.array(
    [
        *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46,
        39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    ]
)  # fmt: skip


def five_points(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 68, 2) -> (..., 5, 2)."""
    return np.stack(
        [
            points[..., LEFT_EYE, :].mean(-2),
            points[..., RIGHT_EYE, :].mean(-2),
            points[..., NOSE_TIP, :],
            points[..., LEFT_MOUTH, :],
            points[..., RIGHT_MOUTH, :],
        ],
        axis=-2,
    ).astype(np.float32)


def similarity(
    points: NDArray[np.floating],
    side: int,
    template: NDArray[np.floating] = TEMPLATE,
    weights: NDArray[np.floating] = WEIGHTS,
) -> NDArray[np.float64]:
    """The (2, 3) similarity that takes five points (5, 2) to the template of a crop `side` pixels wide.

    Weighted least squares in closed form (Umeyama 1991). In two dimensions without reflection, rotation and scaling are
    one complex multiplication.
    """
    w = weights / weights.sum()
    source = points[:, 0].astype(np.float64) + 1j * points[:, 1]
    target = (template[:, 0].astype(np.float64) + 1j * template[:, 1]) * side - 0.5  # pixel centres at integers
    source_mean, target_mean = (w * source).sum(), (w * target).sum()
    spread = (w * np.abs(source - source_mean) ** 2).sum()
    turn = (w * (target - target_mean) * np.conj(source - source_mean)).sum() / max(spread, 1e-9)
    shift = target_mean - turn * source_mean
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def crop(picture: NDArray[np.uint8], matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """One warp from the full picture (H, W, 3) to the crop (side, side, 3), black outside the picture.

    A face much larger than the crop is averaged down first, because a bilinear warp would skip pixels.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale > 0.5:
        return np.asarray(cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR), np.uint8)
    factor = int(np.clip(round(1 / max(scale, 1e-3)), 2, 8))
    wide = matrix * factor
    wide[:, 2] += (factor - 1) / 2  # the centre of the first pixel of a block
    large = cv2.warpAffine(picture, wide, (side * factor, side * factor), flags=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def align(picture: NDArray[np.uint8], points: NDArray[np.floating], side: int) -> NDArray[np.uint8]:
    """Crops of all faces of a picture: points (F, 5, 2) -> (F, side, side, 3)."""
    crops = [crop(picture, similarity(five, side), side) for five in points]
    return np.stack(crops) if crops else np.empty((0, side, side, 3), np.uint8)
