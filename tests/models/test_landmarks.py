"""Landmarks: the geometry between pictures and crops, and the shipped network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shared_files import shared

from vlfau.models.errors import UserError
from vlfau.models.faces.align import POINTS
from vlfau.models.faces.landmarks import (
    BOX_GROWTH,
    CROP_GROWTH,
    SIDE,
    box_of,
    crop_matrix,
    cut,
    open_landmarks,
)
from vlfau.models.files import embedded

MESH_EYES = (33, 263, 4, 61, 291)  # of the face mesh: outer eye corners, nose tip, mouth corners
OUR_EYES = (36, 45, 30, 48, 54)


def real_frame(clip: str = "clip04", row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame and the mesh points (478, 2) that the reference tracker found in it, in pixels."""
    import av

    reference = np.load(shared("real", "reference.npz"))
    number = int(reference[f"{clip}.frame"][row])
    with av.open(str(shared("real", "clips", f"{clip}.mp4"))) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == number:
                picture = frame.to_ndarray(format="rgb24")
                return picture, reference[f"{clip}.landmarks"][row][:, :2] * picture.shape[1::-1]
    raise AssertionError("the clip is shorter than its reference")


def test_the_box_of_points_is_square_and_follows_them() -> None:
    random = np.random.default_rng(1)
    points = random.normal(0, 30, (3, POINTS, 2)) * [1.0, 0.7] + 200
    boxes = box_of(points)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    np.testing.assert_allclose(width, height, rtol=1e-4)
    np.testing.assert_allclose(width, BOX_GROWTH * np.ptp(points, axis=1).max(1), rtol=1e-4)
    np.testing.assert_allclose(box_of(2 * points + [5, 7]), 2 * boxes + [5, 7, 5, 7], rtol=1e-4)
    assert box_of(points[0]).shape == (4,)


def test_the_crop_is_centred_on_the_box() -> None:
    matrix = crop_matrix(np.array([100, 50, 180, 130]))
    np.testing.assert_allclose(matrix @ [140, 90, 1], [(SIDE - 1) / 2] * 2)
    left, right = matrix @ [100, 90, 1], matrix @ [180, 90, 1]
    assert right[0] - left[0] == pytest.approx(SIDE / CROP_GROWTH)
    oblong = crop_matrix(np.array([100, 40, 180, 140]))  # a detector whose boxes are taller than wide
    assert oblong[0, 0] == pytest.approx(SIDE / CROP_GROWTH / 90)


@pytest.mark.parametrize("side", [60, 150, 260, 500, 1100])
def test_crops_of_every_size_follow_the_matrix(side: int) -> None:
    """In a ramp picture, values are positions: the fast path for large boxes must not shift the crop."""
    x, y = np.meshgrid(np.arange(1280), np.arange(720))
    ramp = np.stack([x * 255 / 1280, y * 255 / 720, np.full_like(x, 99)], 2).astype(np.uint8)
    for corner in ((10, 20), (300, 77), (-0.3 * side, 100), (1280 - 0.8 * side, 720 - 0.7 * side)):
        box = np.array([*corner, corner[0] + side, corner[1] + side])
        matrix = crop_matrix(box)
        crop = cut(ramp, matrix)
        v, u = np.mgrid[:SIDE, :SIDE]
        there = (np.stack([u, v], 2) - matrix[:, 2]) / matrix[0, 0]
        rim = 2 + 2 / matrix[0, 0]  # where the black border mixes in
        inside = ((there > rim) & (there < np.array([1280, 720]) - rim)).all(2)
        expected = there[inside] * [255 / 1280, 255 / 720]
        assert inside.any()
        assert np.abs(crop[inside][:, :2] - expected).max() < 1.6
        assert (crop[inside][:, 2] == 99).all()
        outside = ((there < -3 / matrix[0, 0]) | (there > np.array([1280, 720]) + 3 / matrix[0, 0])).any(2)
        assert (crop[outside] == 0).all()


def test_no_boxes_no_points() -> None:
    located = open_landmarks().locate(np.zeros((50, 50, 3), np.uint8), np.empty((0, 4)))
    assert located.points.shape == (0, POINTS, 2)
    assert len(located) == 0


def test_points_lie_on_a_real_face_and_move_with_it() -> None:
    net = open_landmarks()
    picture, mesh = real_frame()
    low, high = mesh.min(0), mesh.max(0)
    box = np.concatenate([low, high])
    located = net.locate(picture, box[None])
    eyes = float(np.linalg.norm(mesh[33] - mesh[263]))
    error = np.linalg.norm(located.points[0][list(OUR_EYES)] - mesh[list(MESH_EYES)], axis=1) / eyes
    assert error.max() < 0.13, error
    assert located.presence[0] >= net.threshold
    moved = np.full((picture.shape[0] + 60, picture.shape[1] + 90, 3), 100, np.uint8)
    moved[60:, 90:] = picture
    shifted = net.locate(moved, box[None] + [90, 60, 90, 60])
    assert np.abs(shifted.points[0] - [90, 60] - located.points[0]).max() < 0.06 * eyes
    # a loose and a shifted box give the same points, which is why it can track
    loose = net.locate(picture, (box + 0.12 * (high[0] - low[0]) * np.array([-1, -1, 1, 1]) + 0.05 * eyes)[None])
    assert np.linalg.norm(loose.points[0][36:] - located.points[0][36:], axis=1).mean() < 0.06 * eyes
    again = net.locate(picture, box_of(located.points))
    assert np.linalg.norm(again.points[0][36:] - located.points[0][36:], axis=1).mean() < 0.04 * eyes


def test_presence_separates_faces_from_other_things() -> None:
    net = open_landmarks()
    picture, mesh = real_frame("clip01")
    box = np.concatenate([mesh.min(0), mesh.max(0)])
    side = box[2] - box[0]
    random = np.random.default_rng(0)
    boxes = np.stack([box, box + [side, 0.2 * side] * 2, box - [0.9 * side, 0.9 * side] * 2])
    presence = net.locate(picture, boxes).presence
    assert presence[0] >= net.threshold
    assert (presence[1:] < net.threshold).all()
    noise = random.integers(0, 256, (200, 200, 3), np.uint8)
    assert net.locate(noise, np.array([[40, 40, 160, 160]])).presence[0] < net.threshold
    upside_down = np.ascontiguousarray(picture[::-1])
    turned = box[[0, 3, 2, 1]] * [1, -1, 1, -1] + [0, picture.shape[0], 0, picture.shape[0]]
    assert net.locate(upside_down, turned[None]).presence[0] < net.threshold


def test_a_batch_of_boxes_equals_one_by_one() -> None:
    net = open_landmarks()
    picture = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    boxes = np.array([[10, 10, 110, 110], [200, 50, 380, 230], [-40, -40, 60, 60], [350, 250, 450, 350]], np.float32)
    together = net.locate(picture, boxes)
    for i, box in enumerate(boxes):
        alone = net.locate(picture, box[None])
        np.testing.assert_allclose(alone.points[0], together.points[i], atol=2e-2)
        np.testing.assert_allclose(alone.presence[0], together.presence[i], atol=1e-4)
    assert np.abs(together.points[0] - together.points[1]).max() > 20


def test_the_shipped_files_match_their_cards() -> None:
    import hashlib

    for name in ("landmarks", "finder"):
        card = json.loads((embedded() / f"{name}.json").read_text(encoding="utf-8"))
        assert hashlib.sha256((embedded() / f"{name}.onnx").read_bytes()).hexdigest() == card["sha256"]
        assert card["parameters"] < 1_000_000
        assert "no picture of a real face" in card["data"]


def test_a_missing_or_broken_model_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no readable card"):
        open_landmarks(tmp_path / "landmarks.onnx")
    (tmp_path / "landmarks.json").write_text('{"threshold": 0.5}')
    (tmp_path / "landmarks.onnx").write_text("not a network")
    with pytest.raises(UserError, match="cannot be loaded"):
        open_landmarks(tmp_path / "landmarks.onnx")


def test_the_mirror_swaps_left_and_right() -> None:
    from vlfau.models.faces.align import MIRROR

    assert (MIRROR[MIRROR] == np.arange(POINTS)).all()
    assert [int(MIRROR[i]) for i in (0, 8, 17, 30, 36, 39, 48, 51, 60, 62)] == [16, 8, 26, 30, 45, 42, 54, 51, 64, 62]
