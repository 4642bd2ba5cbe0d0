"""Landmarks: the geometry between pictures and crops, the shipped network, and a whole training run in small."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from shared_files import shared

from vlfau.models.bundle import embedded
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

MESH_EYES = (33, 263, 4, 61, 291)  # of the face mesh: outer eye corners, nose tip, mouth corners
OUR_EYES = (36, 45, 30, 48, 54)


def real_frame(clip: str = "clip04", row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame and the mesh points (478, 2) that the reference tracker found in it, in pixels."""
    import av

    reference = np.load(shared("real", "reference.npz"))
    wanted = int(reference[f"{clip}.frame"][row])
    with av.open(str(shared("real", "clips", f"{clip}.mp4"))) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == wanted:
                picture = frame.to_ndarray(format="rgb24")
                return picture, reference[f"{clip}.landmarks"][row][:, :2] * picture.shape[1::-1]
    raise AssertionError("the clip is shorter than its reference")


def make_shards(folder: Path, faces: int = 120) -> Path:
    """Drawn faces in the layout of vlfau-synthesize: two eyes, a mouth, an oval; the points are learnable."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    images = np.zeros((faces, 160, 160, 3), np.uint8)
    points = np.zeros((faces, POINTS, 2), np.float32)
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    for i in range(faces):
        images[i] = random.integers(0, 90, 3)
        centre, size = random.uniform(65, 95, 2), random.uniform(35, 50)
        x, y = (int(v) for v in centre)
        cv2.ellipse(images[i], (x, y), (int(0.8 * size), int(size)), 0, 0, 360, (200, 170, 150), -1)
        for side in (-1, 1):
            cv2.circle(
                images[i], (x + side * int(0.35 * size), y - int(0.25 * size)), int(0.12 * size), (20, 20, 40), -1
            )
        cv2.ellipse(images[i], (x, y + int(0.5 * size)), (int(0.3 * size), 3), 0, 0, 360, (150, 30, 40), -1)
        points[i] = np.array([x, y]) + size * np.stack([0.8 * np.sin(angle), np.cos(angle)], 1)
    face = np.ones(faces, np.uint8)
    face[::10] = 0
    images[::10] = random.integers(0, 256, (len(images[::10]), 160, 160, 3), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"images": images, "points": points, "identity": np.arange(faces, dtype=np.int32) // 2, "face": face}
    save_file(tensors, folder / "shard-00000.safetensors")
    return folder


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
def test_crops_of_every_size_lie_where_the_matrix_says(side: int) -> None:
    """On a picture that is a ramp, a crop's value is its place: the fast way for large boxes must not shift it."""
    x, y = np.meshgrid(np.arange(1280), np.arange(720))
    ramp = np.stack([x * 255 / 1280, y * 255 / 720, np.full_like(x, 99)], 2).astype(np.uint8)
    for corner in ((10, 20), (300, 77), (-0.3 * side, 100), (1280 - 0.8 * side, 720 - 0.7 * side)):
        box = np.array([*corner, corner[0] + side, corner[1] + side])
        matrix = crop_matrix(box)
        crop = cut(ramp, matrix)
        v, u = np.mgrid[:SIDE, :SIDE]
        there = (np.stack([u, v], 2) - matrix[:, 2]) / matrix[0, 0]
        rim = 2 + 2 / matrix[0, 0]  # where the border's black mixes in
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
    # a loose box and a shifted box find the same points: that is what makes it a tracker
    loose = net.locate(picture, (box + 0.12 * (high[0] - low[0]) * np.array([-1, -1, 1, 1]) + 0.05 * eyes)[None])
    assert np.linalg.norm(loose.points[0][36:] - located.points[0][36:], axis=1).mean() < 0.06 * eyes
    again = net.locate(picture, box_of(located.points))
    assert np.linalg.norm(again.points[0][36:] - located.points[0][36:], axis=1).mean() < 0.04 * eyes


def test_presence_tells_faces_from_everything_else() -> None:
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


def test_the_shipped_files_fit_their_cards() -> None:
    import hashlib

    for name in ("landmarks", "finder"):
        card = json.loads((embedded() / f"{name}.json").read_text(encoding="utf-8"))
        assert hashlib.sha256((embedded() / f"{name}.onnx").read_bytes()).hexdigest() == card["sha256"]
        assert card["parameters"] < 1_000_000
        assert "no picture of a real face" in card["data"]


def test_a_missing_or_broken_model_says_what_to_do(tmp_path: Path) -> None:
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


def test_crops_carry_their_points_with_them(tmp_path: Path) -> None:
    """The drawn faces' points lie on the border of a bright oval: in every crop, inside is brighter than outside."""
    from vlfau.models.face_training.crops import Renders, cut

    renders = Renders([make_shards(tmp_path)], held_out=False)
    assert renders.refresh() == len(renders) > 0
    random = np.random.default_rng(0)
    contrasts = []
    for i in renders.faces[:40]:
        crop, points = cut(renders.images[i], renders.points[i], random, np.array([0.05, -0.1]), 1.1, 25.0)
        grey, middle = crop.mean(2), points.mean(0)
        inside = (0.85 * (points - middle) + middle) * SIDE - 0.5
        outside = (1.15 * (points - middle) + middle) * SIDE - 0.5
        at = [grey[tuple(p.round().astype(int).clip(0, SIDE - 1).T[::-1])].mean() for p in (inside, outside)]
        contrasts.append(at[0] - at[1])
    assert np.mean(np.array(contrasts) > 20) > 0.9


def test_identities_that_validate_are_never_trained_on(tmp_path: Path) -> None:
    from vlfau.models.face_training.crops import HELD_OUT, Renders

    folder = make_shards(tmp_path)
    both = [Renders([folder], held_out=flag) for flag in (False, True)]
    counts = [renders.refresh() for renders in both]
    assert sum(counts) == 120
    assert counts[1] == 2 * len([i for i in range(60) if i % HELD_OUT == 0])
    trained = {renders.tobytes() for renders in both[0].images}
    assert not trained & {renders.tobytes() for renders in both[1].images}


@pytest.mark.slow
def test_training_resumes_and_exports_what_it_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from vlfau.models.face_training import landmarks
    from vlfau.models.face_training.crops import Renders
    from vlfau.models.face_training.loop import averaged
    from vlfau.models.face_training.networks import LandmarkNetwork
    from vlfau.models.training.checkpoint import Checkpoints

    data, out, shipped = make_shards(tmp_path / "data"), tmp_path / "out", tmp_path / "shipped"
    common = ["--data", str(data), "--out", str(out), "--batch", "16", "--limit", "200", "--validation", "200"]
    assert landmarks.main([*common, "--steps", "10"]) == 0
    assert landmarks.main([*common, "--steps", "60", "--export", str(shipped)]) == 0
    assert Checkpoints(out / "checkpoints").load()[1]["step"] == 60
    assert "out: 10 steps" in capsys.readouterr().out
    network = LandmarkNetwork().eval()
    network.load_state_dict(averaged(out))
    crops = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    with torch.no_grad():
        points, presence = network(torch.from_numpy(crops))
    shipped_points, shipped_presence = open_landmarks(shipped / "landmarks.onnx").run(crops)
    np.testing.assert_allclose(shipped_points, points.numpy(), atol=3e-3)  # weights are stored in half precision
    np.testing.assert_allclose(shipped_presence, presence.numpy(), atol=3e-2)
    assert np.abs(shipped_points[0] - shipped_points[1]).max() > 1e-4
    held_out = Renders([data], held_out=True)
    held_out.refresh()
    torch.manual_seed(1)
    untrained = landmarks.validate(LandmarkNetwork(), held_out, 200)["error_percent_all"]
    card = json.loads((shipped / "landmarks.json").read_text(encoding="utf-8"))
    assert (
        card["validation_on_unseen_synthetic_identities"]["error_percent_all"] < 0.97 * untrained
    )  # sixty steps teach a little


def test_training_without_pictures_says_what_to_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlfau.models.face_training import landmarks

    assert landmarks.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "Give --data folders" in capsys.readouterr().err


def test_scenes_say_where_their_faces_are(tmp_path: Path) -> None:
    """What the finder is taught, decoded as the finder's answer is decoded, gives the boxes that were set."""
    from vlfau.models.face_training.crops import Renders
    from vlfau.models.face_training.photographs import Backgrounds
    from vlfau.models.face_training.scenes import SCENE, draw_scenes, scene_boxes
    from vlfau.models.faces.embedded import decode

    renders = Renders([make_shards(tmp_path)], held_out=False)
    renders.refresh()
    backgrounds = Backgrounds(SCENE, 4)
    boxes: list[np.ndarray] = []
    for seed in range(12):
        # the same seed draws the same scene as long as the stock of backgrounds stands still
        backgrounds.stock = len(backgrounds._pictures) or 4
        scenes = draw_scenes(renders, Backgrounds(SCENE, 1), np.random.default_rng(seed), 1)
        _, true = scene_boxes(renders, Backgrounds(SCENE, 1), np.random.default_rng(seed))
        heat = scenes.heat.clip(1e-4, 0.9999)
        maps = np.concatenate([np.log(heat / (1 - heat)), scenes.size, scenes.offset[0]])
        found, _ = decode(maps.astype(np.float32), 0.99)
        assert len(found) == len(true)
        for box in true:
            assert np.abs(found - box).max(1).min() < 0.05
        boxes.extend(true)
    assert len(boxes) > 6


@pytest.mark.slow
def test_the_finder_trains_exports_and_can_be_misled(tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    from vlfau.models.face_training import finder, mining
    from vlfau.models.face_training.crops import Renders
    from vlfau.models.face_training.loop import averaged
    from vlfau.models.face_training.networks import FinderNetwork
    from vlfau.models.faces.embedded import Finder

    data, out = make_shards(tmp_path / "data"), tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--batch", "4", "--steps", "12", "--validation", "8"]
    assert finder.main([*arguments, "--export", str(out)]) == 0
    network = FinderNetwork().eval()
    network.load_state_dict(averaged(out))
    boxes, random = Finder(out / "finder.onnx"), np.random.default_rng(0)
    for shape in ((1, 192, 320, 3), (3, 96, 64, 3)):
        pictures = random.integers(0, 256, shape, np.uint8)
        with torch.no_grad():
            expected = network(torch.from_numpy(pictures)).numpy()
        found = boxes.maps(pictures)
        assert found.shape == expected.shape == (shape[0], 4, shape[1] // 8, shape[2] // 8)
        np.testing.assert_allclose(found, expected, atol=0.05)  # weights are stored in half precision
    hard = tmp_path / "hard"
    options = ["--data", str(data), "--out", str(hard), "--scenes", "40", "--presence", "0"]
    assert mining.main([*options, "--finder", str(embedded() / "finder.onnx")]) == 0
    crops = load_file(hard / "mistaken-00000.safetensors")["crops"]
    assert crops.shape[1:] == (SIDE, SIDE, 3)
    renders = Renders([data, hard], held_out=False)
    renders.refresh()
    assert len(renders.mistaken) == len(crops) > 0


def test_mining_needs_a_place_to_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlfau.models.face_training import mining

    assert mining.main(["--data", str(tmp_path)]) == 2
    assert "Give a folder with --out" in capsys.readouterr().err
