"""Training of the landmark network and the finder: their batches, and small but complete runs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlfau.models.faces.align import POINTS
from vlfau.models.faces.landmarks import SIDE, open_landmarks
from vlfau.models.files import embedded


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


def test_crops_carry_their_points_with_them(tmp_path: Path) -> None:
    """Drawn faces have their points on the border of a bright oval, so in crops the inside is brighter."""
    from vlfau.models.face_training.crops import RenderedCrops, cut

    renders = RenderedCrops([make_shards(tmp_path)], held_out=False)
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
    from vlfau.models.face_training.crops import HELD_OUT, RenderedCrops

    folder = make_shards(tmp_path)
    both = [RenderedCrops([folder], held_out=flag) for flag in (False, True)]
    counts = [renders.refresh() for renders in both]
    assert sum(counts) == 120
    assert counts[1] == 2 * len([i for i in range(60) if i % HELD_OUT == 0])
    trained = {renders.tobytes() for renders in both[0].images}
    assert not trained & {renders.tobytes() for renders in both[1].images}


@pytest.mark.slow
def test_training_resumes_and_exports_the_trained_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from vlfau.models.face_training import landmarks
    from vlfau.models.face_training.crops import RenderedCrops
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
    held_out = RenderedCrops([data], held_out=True)
    held_out.refresh()
    torch.manual_seed(1)
    untrained = landmarks.validate(LandmarkNetwork(), held_out, 200)["error_percent_all"]
    card = json.loads((shipped / "landmarks.json").read_text(encoding="utf-8"))
    assert (
        card["validation_on_unseen_synthetic_identities"]["error_percent_all"] < 0.97 * untrained
    )  # sixty steps are enough for this


def test_training_without_pictures_names_the_missing_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlfau.models.face_training import landmarks

    assert landmarks.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "Give --data folders" in capsys.readouterr().err


def test_targets_of_scenes_decode_to_their_boxes(tmp_path: Path) -> None:
    """Targets of the finder, decoded like its output, give the boxes of the pasted faces."""
    from vlfau.models.face_training.crops import RenderedCrops
    from vlfau.models.face_training.photographs import Backgrounds
    from vlfau.models.face_training.scenes import SCENE, draw_scenes, scene_boxes
    from vlfau.models.faces.embedded import decode

    renders = RenderedCrops([make_shards(tmp_path)], held_out=False)
    renders.refresh()
    backgrounds = Backgrounds(SCENE, 4)
    boxes: list[np.ndarray] = []
    for seed in range(12):
        # the same seed draws the same scene only with an unchanged stock of backgrounds
        backgrounds.stock = len(backgrounds._pictures) or 4
        scenes = draw_scenes(renders, Backgrounds(SCENE, 1), np.random.default_rng(seed), 1)
        _, true = scene_boxes(renders, Backgrounds(SCENE, 1), np.random.default_rng(seed))
        heat = scenes.heat.clip(1e-4, 0.9999)
        maps = np.concatenate([np.log(heat / (1 - heat)), scenes.size, scenes.offset[0]])
        decoded, _ = decode(maps.astype(np.float32), 0.99)
        assert len(decoded) == len(true)
        for box in true:
            assert np.abs(decoded - box).max(1).min() < 0.05
        boxes.extend(true)
    assert len(boxes) > 6


@pytest.mark.slow
def test_the_finder_is_trained_exported_and_mined_for_false_positives(tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    from vlfau.models.face_training import finder, mining
    from vlfau.models.face_training.crops import RenderedCrops
    from vlfau.models.face_training.loop import averaged
    from vlfau.models.face_training.networks import FinderNetwork
    from vlfau.models.faces.embedded import FaceBoxes

    data, out = make_shards(tmp_path / "data"), tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--batch", "4", "--steps", "12", "--validation", "8"]
    assert finder.main([*arguments, "--export", str(out)]) == 0
    network = FinderNetwork().eval()
    network.load_state_dict(averaged(out))
    boxes, random = FaceBoxes(out / "finder.onnx"), np.random.default_rng(0)
    for shape in ((1, 192, 320, 3), (3, 96, 64, 3)):
        pictures = random.integers(0, 256, shape, np.uint8)
        with torch.no_grad():
            expected = network(torch.from_numpy(pictures)).numpy()
        maps = boxes.maps(pictures)
        assert maps.shape == expected.shape == (shape[0], 4, shape[1] // 8, shape[2] // 8)
        np.testing.assert_allclose(maps, expected, atol=0.05)  # weights are stored in half precision
    hard = tmp_path / "hard"
    options = ["--data", str(data), "--out", str(hard), "--scenes", "40", "--presence", "0"]
    assert mining.main([*options, "--finder", str(embedded() / "finder.onnx")]) == 0
    crops = load_file(hard / "mistaken-00000.safetensors")["crops"]
    assert crops.shape[1:] == (SIDE, SIDE, 3)
    renders = RenderedCrops([data, hard], held_out=False)
    renders.refresh()
    assert len(renders.mistaken) == len(crops) > 0


def test_mining_needs_a_folder_to_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlfau.models.face_training import mining

    assert mining.main(["--data", str(tmp_path)]) == 2
    assert "Give a folder with --out" in capsys.readouterr().err
