"""Head pose from 68 points: the rotation of a mean 3-D face that explains them (PnP).

Signs, here and wherever a pose occurs (messages, renderer), in degrees: all zero looks into the camera; yaw > 0: the
nose points to the right of the picture; pitch > 0: it points up; roll > 0: the head leans clockwise as seen in the
picture. Two formats differ: OpenFace's columns, and shards of `vlfau-synthesize`, whose roll is counter-clockwise.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Millimetres on a mean adult head: x to the picture's right, y down, z away from the camera, zero between the eyes.
# Widths and heights follow published anthropometry (outer eye corners 90 apart, inner 32, wings of the nose 34, mouth
# 51, eyes to base of the nose 48), depths lie between two public 3-D heads; iBUG index first. Brows, eyelids, lips and
# chin move and are left out.
MEAN_FACE = np.array(
    [
        [27, 0, -3, 0],
        [30, 0, 36, -22],
        [31, -15, 43, -4],
        [33, 0, 47, -10],
        [35, 15, 43, -4],
        [36, -45, 1, 21],
        [39, -16, 1, 9],
        [42, 16, 1, 9],
        [45, 45, 1, 21],
        [48, -25, 72, 4],
        [54, 25, 72, 4],
    ],
    np.float64,
)
_INDEX, _MODEL = MEAN_FACE[:, 0].astype(int), np.ascontiguousarray(MEAN_FACE[:, 1:])


def head_pose(points: NDArray[np.floating], width: int, height: int) -> NDArray[np.float32]:
    """(F, 68, 2) in a picture of this size -> (F, 3) yaw, pitch, clockwise roll; nan where there is no solution.

    The lens is unknown; one with a field of view of 53 degrees is assumed.
    """
    focal = float(max(width, height))
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    poses = np.full((len(points), 3), np.nan, np.float32)
    for i, face in enumerate(points):
        image = np.ascontiguousarray(face[_INDEX], np.float64)
        if not np.isfinite(image).all():
            continue
        try:
            solved, turn, shift = cv2.solvePnP(_MODEL, image, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        except cv2.error:
            continue
        if solved and float(shift[2, 0]) > 0:
            poses[i] = angles(np.asarray(cv2.Rodrigues(turn)[0], np.float64))
    return poses


def angles(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch, clockwise roll of R = Ry(yaw) Rx(pitch) Rz(roll), model to camera."""
    nose = -rotation[:, 2]  # the model's -z after the rotation
    yaw = np.degrees(np.arctan2(nose[0], -nose[2]))
    pitch = np.degrees(np.arcsin(np.clip(-nose[1], -1, 1)))
    roll_clockwise = np.degrees(np.arctan2(rotation[1, 0], rotation[1, 1]))
    return float(yaw), float(pitch), float(roll_clockwise)
