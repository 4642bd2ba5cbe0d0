"""The report on precisions: differences, intervals and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_bundle import UNITS, crops, encoder, small_bundle

from vlfau.calibration.command import add_encoder, main
from vlfau.calibration.decisions import fit_decisions
from vlfau.calibration.intervals import MEASURES, Predictions, differences, measures
from vlfau.calibration.pictures import Labelled
from vlfau.calibration.pictures import crops as read_crops
from vlfau.calibration.quantise import observe, quantise
from vlfau.calibration.report import compare, fitted_here, markdown, usual_variants, write
from vlfau.models import metrics
from vlfau.models.bundle import Bundle, open_bundle, write_manifest
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))
    plain = small_bundle(tmp_path / "bundle")
    model = onnx.load(str(plain.path("encoder.onnx")))
    return add_encoder(plain, "int8", quantise(model, observe(model, crops(32), "minmax")), {})


def data_for(bundle: Bundle, count: int = 120, wrong: float = 0.15) -> Labelled:
    """Labels that FP32 mostly agrees with, so that errors of another precision show in F1."""
    faces = crops(count, seed=21)
    with open_runtime(bundle, "onnxruntime", precision="fp32") as runtime:
        parts = [runtime.predict(faces[i : i + 16]).states for i in range(0, count, 16)]
    rng = np.random.default_rng(0)
    labels = np.concatenate(parts) ^ (rng.random((count, len(UNITS))) < wrong)
    return Labelled(faces, labels.astype(np.int8), rng.integers(0, 12, count), "made-up labels")


def test_rows_hold_the_cost_of_each_precision(bundle: Bundle, tmp_path: Path) -> None:
    data = data_for(bundle)
    variants = [("openvino", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("openvino", "int8")]
    rows = compare(bundle, data, variants)
    first, same, half, smaller = rows
    assert [row.name for row in rows] == [" ".join(one) for one in variants]
    assert first.differences is None
    assert same.differences is not None
    for name in ("f1", "auc"):
        zero = [one[0] for one in same.differences[name] if one is not None]
        assert np.allclose(zero, 0.0, atol=1e-9)
    assert (same.captions, same.texts) == (1.0, 1.0)
    for row in (half, smaller):
        assert row.differences is not None
        for name in ("f1", "auc", "ece"):
            assert len(row.differences[name]) == len(UNITS) + 1  # each unit and all of them
            value, low, high = row.differences[name][-1] or (0.0, 1.0, -1.0)
            assert low <= value <= high
            assert value == pytest.approx((getattr(row, name) or 0) - (getattr(first, name) or 0))
            for a, difference in enumerate(row.differences[name][:-1]):
                assert difference is not None
                assert difference[0] == pytest.approx((row.units[name][a] or 0) - (first.units[name][a] or 0))
    assert smaller.captions is not None
    assert 0.3 < smaller.captions < 1.0
    assert half.captions is not None
    assert half.captions > smaller.captions
    assert smaller.megabytes < half.megabytes < first.megabytes  # this encoder is mostly weights
    assert all((row.ms or 0) > 0 for row in rows)
    text = markdown(bundle, data, rows, ["BF16 is missing."])
    assert "| openvino int8 |" in text
    assert "BF16 is missing." in text
    assert text.count("| AU12 |") == 3  # a table of F1, of AUC and of ECE
    write(tmp_path / "report", bundle, data, rows)
    table = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in table["rows"]] == [row.name for row in rows]
    assert (tmp_path / "report" / "report.png").stat().st_size > 1000


def test_a_precision_that_fails_its_selftest_is_a_row_that_says_so(bundle: Bundle, tmp_path: Path) -> None:
    onnx.save(encoder(seed=9), bundle.folder / "encoder.int8.onnx")  # another network with a valid checksum
    write_manifest(bundle.folder, bundle.manifest)
    wrong, data = open_bundle(bundle.folder), data_for(bundle, 40)
    variants = [("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    rows = compare(wrong, data, variants)
    assert [row.name for row in rows] == [" ".join(variant) for variant in variants]
    assert [row.f1 is None for row in rows] == [False, True, False, True]
    text = write(tmp_path / "report", wrong, data, rows).read_text(encoding="utf-8")
    assert text.count("| failed |") == 2
    assert "Self-test of openvino int8 on CPU" in text
    table = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert "Self-test of onnxruntime int8" in table["rows"][3]["failed"]
    with pytest.raises(UserError, match="Self-test"):  # there is nothing to compare with
        compare(wrong, data, variants[1:])


def test_the_usual_precisions_are_compared_and_the_missing_ones_explained(bundle: Bundle, tmp_path: Path) -> None:
    variants, notes = usual_variants(bundle)
    assert variants[0] == ("openvino", "fp32")
    assert {("onnxruntime", "fp16"), ("openvino", "int8")} < set(variants)
    assert (("openvino", "bf16") in variants) != any("BF16 is missing" in note for note in notes)
    plain, notes = usual_variants(small_bundle(tmp_path / "plain"))
    assert ("openvino", "int8") not in plain
    assert any("add it with vlfau-calibrate int8" in note for note in notes)


def test_decisions_fitted_on_the_reported_images_are_not_used_on_them(bundle: Bundle) -> None:
    """Labels are random: thresholds fitted on the same images would score better than chance on them."""
    data = data_for(bundle, wrong=0.5)
    with open_runtime(bundle, "onnxruntime", precision="fp32") as runtime:
        log_odds = np.concatenate([runtime.predict(data.crops[i : i + 16]).log_odds for i in range(0, 120, 16)])
    fitted = fit_decisions(log_odds, data.labels, data.subjects).write(bundle, data.source)
    assert fitted_here(fitted, data)
    assert not fitted_here(bundle, data)
    (honest,) = compare(fitted, data, [("onnxruntime", "fp32")])
    other = Labelled(data.crops, data.labels, data.subjects, "another source")
    (flattered,) = compare(fitted, other, [("onnxruntime", "fp32")])
    assert (flattered.f1 or 0) > (honest.f1 or 0)
    assert "fitted without" in markdown(fitted, data, [honest])
    assert "fitted without" not in markdown(fitted, other, [flattered])


def predictions(labels: np.ndarray, wrong: float, rng: np.random.Generator) -> Predictions:
    log_odds = (2.0 * labels - 1) * np.where(rng.random(labels.shape) < wrong, -1, 1) + rng.normal(0, 0.3, labels.shape)
    return Predictions(log_odds, 1 / (1 + np.exp(-log_odds)), log_odds >= 0)


def test_the_interval_excludes_zero_only_for_a_true_difference() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 4)) < 0.3).astype(np.int8)
    subjects = rng.integers(0, 25, 2000)
    good, alike, bad = (predictions(labels, wrong, rng) for wrong in (0.05, 0.05, 0.25))
    results = differences(labels, subjects, good, bad)
    for name in MEASURES:  # all fall, even ECE: 73 % sure and right in 75 % is better calibrated than right in 95 %
        for value, low, high in (one for one in results[name] if one is not None):
            assert low < value < high < 0
    none = differences(labels, subjects, good, alike)
    for name in MEASURES:
        _, low, high = none[name][-1] or (0.0, 0.0, 0.0)
        assert low < 0 < high
    alone = differences(labels, np.zeros(2000), good, bad)["f1"][-1]
    assert alone is not None
    assert np.isnan(alone[1])


def test_weighted_measures_equal_plain_ones_on_repeated_images() -> None:
    """Drawing a subject twice must equal having its images twice, ties and unknown labels included."""
    rng = np.random.default_rng(5)
    labels = rng.integers(-1, 2, (300, 3)).astype(np.int8)
    log_odds = rng.normal(0, 2, labels.shape).round(1)  # with ties
    whole = Predictions(log_odds, 1 / (1 + np.exp(-log_odds)), log_odds >= 0.3)
    counts = rng.integers(0, 4, 300)
    results = measures(labels, whole, np.stack([np.ones(300), counts.astype(float)]))
    for row, times in enumerate((np.ones(300, int), counts)):
        shown = np.repeat(np.arange(300), times)
        y, x, p, states = labels[shown], log_odds[shown], whole.probabilities[shown], whole.states[shown]
        f1, auc = metrics.f1(metrics.counts(y, states)), metrics.auc(y, x)
        ece = [metrics.calibration_error(y[:, [a]], p[:, [a]]) for a in range(3)]
        assert np.allclose(results["f1"][row], [*f1, f1.mean()])
        assert np.allclose(results["auc"][row], [*auc, auc.mean()])
        assert np.allclose(results["ece"][row], [*ece, metrics.calibration_error(y, p)])
    labels[:, 1] = 0  # no positive label: F1 and AUC are undefined
    results = measures(labels, whole, np.ones((1, 300)))
    assert np.isnan(results["f1"][0, 1])
    assert np.isnan(results["auc"][0, 1])
    assert np.isfinite(results["f1"][0, 3])


def test_crops_come_from_folders_and_lists(tmp_path: Path) -> None:
    import cv2

    images = crops(3)
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image[..., ::-1])
    assert np.array_equal(read_crops(tmp_path, 32, 10), images)
    (tmp_path / "list.txt").write_text("2.png\n0.png\n")
    assert np.array_equal(read_crops(tmp_path / "list.txt", 32, 10), images[[2, 0]])
    assert len(read_crops(tmp_path, 32, 2)) == 2
    (tmp_path / "list.txt").write_text("list.txt\n")
    with pytest.raises(UserError, match="not a readable image"):
        read_crops(tmp_path / "list.txt", 32, 10)
    with pytest.raises(UserError, match="does not exist"):
        read_crops(tmp_path / "none", 32, 10)


def test_faces_are_found_in_images_and_videos_of_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With networks that see one face in the middle of bright images and none in dark ones."""
    import cv2

    from vlfau.calibration import pictures
    from vlfau.models.faces.base import Detections, no_detections
    from vlfau.models.faces.landmarks import Located

    class Detector:
        def find(self, pictures: list[np.ndarray]) -> list[Detections]:
            box = np.array([[20, 20, 60, 60]], np.float32)
            one = Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
            return [one if picture.mean() > 60 else no_detections() for picture in pictures]

    class Landmarks:
        threshold = 0.5

        def locate(self, picture: np.ndarray, boxes: np.ndarray) -> Located:
            points = np.random.default_rng(0).uniform(25, 55, (len(boxes), 68, 2)).astype(np.float32)
            return Located(points, np.ones(len(boxes), np.float32))

    monkeypatch.setattr(pictures, "open_detector", Detector)
    monkeypatch.setattr(pictures, "open_landmarks", Landmarks)
    path = str(tmp_path / "clip.avi")
    video = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 80))
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
    printed = capsys.readouterr().out
    assert "4 of 4 products in INT8" in printed
    assert json.loads(printed.splitlines()[-1])["left"] == []
    written = open_bundle(plain.folder)
    assert "encoder.int8.onnx" in written.manifest.files
    assert set(written.manifest.provenance["int8"]["mean_change"]) == set(UNITS)
    assert main(["int8", str(plain.folder), "--pictures", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
