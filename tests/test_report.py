"""The report of precisions: differences, intervals and captions are what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_bundle import UNITS, crops, small_bundle

from vlfau.calibration.command import add_encoder, main
from vlfau.calibration.pictures import Labelled
from vlfau.calibration.pictures import crops as read_crops
from vlfau.calibration.quantise import observe, quantise
from vlfau.calibration.report import compare, f1_difference, markdown, write
from vlfau.models import metrics
from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))
    made = small_bundle(tmp_path / "bundle")
    model = onnx.load(str(made.path("encoder.onnx")))
    return add_encoder(made, "int8", quantise(model, observe(model, crops(32), "minmax")), {})


def data_for(bundle: Bundle, pictures: int = 120, wrong: float = 0.15) -> Labelled:
    """Labels that FP32 mostly agrees with: what another precision gets wrong then shows in F1."""
    made = crops(pictures, seed=21)
    with open_runtime(bundle, "onnxruntime", precision="fp32") as runtime:
        parts = [runtime.predict(made[i : i + 16]).states for i in range(0, pictures, 16)]
    rng = np.random.default_rng(0)
    labels = np.concatenate(parts) ^ (rng.random((pictures, len(UNITS))) < wrong)
    return Labelled(made, labels.astype(np.int8), rng.integers(0, 12, pictures), "made-up labels")


def test_rows_say_what_each_precision_costs(bundle: Bundle, tmp_path: Path) -> None:
    data = data_for(bundle)
    rows = compare(bundle, data, [("openvino", "fp32"), ("onnxruntime", "fp32"), ("openvino", "int8")])
    first, same, smaller = rows
    assert first.f1_difference is None
    assert same.f1_difference == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    assert (same.captions, same.texts) == (1.0, 1.0)
    assert smaller.f1_difference is not None
    assert smaller.f1_difference[1] <= smaller.f1_difference[0] <= smaller.f1_difference[2]
    assert smaller.f1_difference[0] == pytest.approx((smaller.f1 or 0) - (first.f1 or 0))
    assert smaller.captions is not None
    assert 0.3 < smaller.captions < 1.0
    assert smaller.megabytes != first.megabytes
    assert all(row.ms > 0 for row in rows)
    text = markdown(bundle, data, rows)
    assert "| openvino int8 |" in text
    assert all(f"| {unit} |" in text for unit in UNITS)
    write(tmp_path / "report", bundle, data, rows)
    table = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["openvino fp32", "onnxruntime fp32", "openvino int8"]
    assert (tmp_path / "report" / "report.png").stat().st_size > 1000


def test_the_interval_holds_a_true_difference_and_zero_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 4)) < 0.3).astype(np.int8)
    subjects = rng.integers(0, 25, 2000)
    good = (labels == 1) ^ (rng.random(labels.shape) < 0.05)
    alike = (labels == 1) ^ (rng.random(labels.shape) < 0.05)
    bad = (labels == 1) ^ (rng.random(labels.shape) < 0.25)
    value, low, high = f1_difference(labels, good, bad, subjects)
    plain = metrics.mean(metrics.f1(metrics.counts(labels, bad))) - metrics.mean(
        metrics.f1(metrics.counts(labels, good))
    )
    assert value == pytest.approx(plain)
    assert low < value < high < 0
    _, low, high = f1_difference(labels, good, alike, subjects)
    assert low < 0 < high
    assert np.isnan(f1_difference(labels, good, bad, np.zeros(2000))[1])


def test_halves_share_no_subject() -> None:
    rng = np.random.default_rng(1)
    whole = Labelled(np.zeros((90, 4, 4, 3), np.uint8), np.zeros((90, 2), np.int8), rng.integers(0, 9, 90), "x")
    first, second = whole.halves()
    assert not set(first.subjects) & set(second.subjects)
    assert len(first.crops) + len(second.crops) == 90
    with pytest.raises(UserError, match="shows one subject"):
        Labelled(whole.crops, whole.labels, np.zeros(90, np.int64), "x").halves()


def test_pictures_come_from_folders_and_lists(tmp_path: Path) -> None:
    import cv2

    made = crops(3)
    for i, picture in enumerate(made):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture[..., ::-1])
    assert np.array_equal(read_crops(tmp_path, 32, 10), made)
    (tmp_path / "list.txt").write_text("2.png\n0.png\n")
    assert np.array_equal(read_crops(tmp_path / "list.txt", 32, 10), made[[2, 0]])
    assert len(read_crops(tmp_path, 32, 2)) == 2
    (tmp_path / "list.txt").write_text("list.txt\n")
    with pytest.raises(UserError, match="not a readable picture"):
        read_crops(tmp_path / "list.txt", 32, 10)
    with pytest.raises(UserError, match="does not exist"):
        read_crops(tmp_path / "none", 32, 10)


def test_faces_are_found_in_pictures_and_videos_of_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With networks that see one face in the middle of bright pictures and none in dark ones."""
    import cv2

    from vlfau.calibration import pictures
    from vlfau.models.detectors import Detections, no_detections
    from vlfau.models.landmarks import Located

    class Detector:
        def find(self, asked: list[np.ndarray]) -> list[Detections]:
            box = np.array([[20, 20, 60, 60]], np.float32)
            one = Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
            return [one if picture.mean() > 60 else no_detections() for picture in asked]

    class Landmarks:
        threshold = 0.5

        def locate(self, picture: np.ndarray, boxes: np.ndarray) -> Located:
            points = np.random.default_rng(0).uniform(25, 55, (len(boxes), 68, 2)).astype(np.float32)
            return Located(points, np.ones(len(boxes), np.float32))

    monkeypatch.setattr(pictures, "open_detector", Detector)
    monkeypatch.setattr(pictures, "open_landmarks", Landmarks)
    path = str(tmp_path / "clip.avi")
    video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (96, 80))
    for i in range(20):
        video.write(np.full((80, 96, 3), 200 if i % 2 else 10, np.uint8))
    video.release()
    assert read_crops(Path(path), 32, 100).shape == (10, 32, 32, 3)  # dark frames show no face
    cv2.imwrite(str(tmp_path / "dark.png"), np.zeros((80, 96, 3), np.uint8))
    with pytest.raises(UserError, match="No face was found"):
        read_crops(tmp_path / "dark.png", 32, 10)


def test_the_command_calibrates_a_bundle_from_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))
    plain = small_bundle(tmp_path / "plain")
    (tmp_path / "crops").mkdir()
    for i, picture in enumerate(crops(24)):
        cv2.imwrite(str(tmp_path / "crops" / f"{i}.png"), picture[..., ::-1])
    arguments = ["int8", str(plain.folder), "--pictures", str(tmp_path / "crops"), "--allow", "0.05"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "4 of 4 products in INT8" in said
    assert json.loads(said.splitlines()[-1])["left"] == []
    made = open_bundle(plain.folder)
    assert "encoder.int8.onnx" in made.manifest.files
    assert set(made.manifest.provenance["int8"]["mean_change"]) == set(UNITS)
    assert main(["int8", str(plain.folder), "--pictures", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
