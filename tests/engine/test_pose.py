"""Head pose recovers the angles of a turned face, with the documented signs; and quality."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vlfau.engine.tracking.pose import MEAN_FACE, angles, head_pose
from vlfau.engine.tracking.quality import quality, sharpness

WIDTH, HEIGHT = 1280, 720


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Built from the documentation, not from the code: each turn moves the named part in the named direction."""
    y, p, r = np.radians([yaw, pitch, roll])
    # x right, y down, z away; the nose is at -z
    turn_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    turn_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(turn_y @ turn_x @ turn_z, np.float64)


def projected(turn: NDArray[np.float64], distance: float = 900.0, focal: float = 1280.0) -> NDArray[np.float32]:
    """(1, 68, 2): the mean face, turned, `distance` mm from a lens of this focal length in pixels."""
    points = np.zeros((1, 68, 2))
    space = MEAN_FACE[:, 1:] @ turn.T + (30, -20, distance)
    points[0, MEAN_FACE[:, 0].astype(int)] = space[:, :2] / space[:, 2:] * focal + (WIDTH / 2, HEIGHT / 2)
    return points.astype(np.float32)


@pytest.mark.parametrize("yaw", [-40, 0, 25])
@pytest.mark.parametrize("pitch", [-20, 0, 30])
@pytest.mark.parametrize("roll", [-35, 0, 15])
def test_the_angles_come_back(yaw: float, pitch: float, roll: float) -> None:
    turn = rotation(yaw, pitch, roll)
    assert angles(turn) == pytest.approx((yaw, pitch, roll), abs=1e-6)
    assert head_pose(projected(turn), WIDTH, HEIGHT)[0] == pytest.approx([yaw, pitch, roll], abs=0.5)


def test_signs() -> None:
    """As documented: yaw > 0 the nose to the picture's right, pitch > 0 up, roll > 0 clockwise."""
    straight = projected(rotation(0, 0, 0))[0]
    right, up, clockwise = (projected(rotation(*a))[0] for a in ((20, 0, 0), (0, 20, 0), (0, 0, 20)))

    def nose(face: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(face[30] - face[[36, 45]].mean(0), np.float32)

    assert nose(right)[0] > nose(straight)[0] + 5
    assert nose(up)[1] < nose(straight)[1] - 5
    assert clockwise[45, 1] > clockwise[36, 1] + 5, "the eye at the picture's right is lower"
    assert abs(nose(straight)[0]) < 4


def test_a_wrong_focal_length_costs_a_few_degrees() -> None:
    for focal in (900.0, 2000.0):
        pose = head_pose(projected(rotation(25, 10, 5), distance=900 * focal / 1280, focal=focal), WIDTH, HEIGHT)[0]
        assert pose == pytest.approx([25, 10, 5], abs=4)


def test_points_that_are_not_a_face_give_nan_or_a_finite_pose() -> None:
    assert np.isnan(head_pose(np.full((1, 68, 2), np.nan, np.float32), WIDTH, HEIGHT)).all()
    same = head_pose(np.full((2, 68, 2), 50, np.float32), WIDTH, HEIGHT)
    assert same.shape == (2, 3)
    assert head_pose(np.empty((0, 68, 2), np.float32), WIDTH, HEIGHT).shape == (0, 3)


def face(blur: float = 0.0, side: int = 112) -> NDArray[np.uint8]:
    """A drawn face with eyes, brows and a mouth on shaded skin, blurred by `blur` pixels."""
    picture = np.full((side, side, 3), (190, 150, 130), np.uint8)
    cv2.circle(picture, (side // 2, side // 2), side // 2, (210, 170, 150), -1)
    for x in (0.35, 0.65):
        cv2.ellipse(picture, (int(x * side), int(0.36 * side)), (12, 6), 0, 0, 360, (240, 240, 240), -1)
        cv2.circle(picture, (int(x * side), int(0.36 * side)), 5, (60, 40, 30), -1)
        cv2.line(picture, (int(x * side) - 14, 28), (int(x * side) + 14, 26), (70, 50, 40), 4)
    cv2.ellipse(picture, (side // 2, int(0.72 * side)), (18, 7), 0, 0, 360, (160, 60, 60), -1)
    noise = np.random.default_rng(0).normal(scale=3, size=picture.shape)
    drawn = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), blur) if blur else drawn, np.uint8)


def landmarks(apart: float) -> NDArray[np.float32]:
    return np.array([[[0, 0], [apart, 0], [apart / 2, apart * 0.6], [0, apart], [apart, apart]]], np.float32)


def test_quality_falls_with_size_blur_and_pose() -> None:
    straight, crop = np.zeros((1, 3), np.float32), face()[None]
    good = quality(landmarks(60), straight, crop)[0]
    assert good > 0.8
    assert quality(landmarks(10), straight, crop)[0] < 0.5 * good
    assert quality(landmarks(5), straight, crop)[0] == 0
    blurs = [quality(landmarks(60), straight, face(blur)[None])[0] for blur in (0.0, 1.5, 3.0, 6.0)]
    assert blurs == sorted(blurs, reverse=True)
    assert blurs[-1] < 0.5 * blurs[0]
    turns = [quality(landmarks(60), np.array([[yaw, 0, 0]], np.float32), crop)[0] for yaw in (0, 35, 55, 80)]
    assert turns[0] == turns[1] > turns[2] > turns[3] == 0
    assert quality(landmarks(60), np.full((1, 3), np.nan, np.float32), crop)[0] == 0, "no pose, no face"
    cut_off = [quality(landmarks(60), straight, crop, np.array([share]))[0] for share in (1.0, 0.8, 0.5)]
    assert cut_off[0] == good > cut_off[1] > cut_off[2] == 0, "a face across the border of the frame"
    assert quality(np.empty((0, 5, 2), np.float32), np.empty((0, 3), np.float32), crop[:0]).shape == (0,)


def test_a_uniform_patch_is_not_sharp() -> None:
    assert sharpness(np.full((112, 112, 3), 90, np.uint8)) == 0
    assert sharpness(face()) > 2 * sharpness(face(3.0))
