"""Detectors: all return the same structure; real models where available; errors name the remedy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from shared_files import shared

from vlfau.models.errors import UserError
from vlfau.models.faces import open_detector
from vlfau.models.faces.base import Detections, shrink
from vlfau.models.faces.boxes import iou, suppress
from vlfau.models.faces.embedded import STRIDE, UNIT, decode
from vlfau.models.faces.scrfd import STRIDES, Scrfd

SIDE = 64  # of the artificial SCRFD files


def clip_pictures(count: int = 3, clip: str = "clip01") -> list[np.ndarray]:
    import av

    with av.open(str(shared("real", "clips", f"{clip}.mp4"))) as container:
        frames = container.decode(video=0)
        return [next(frames).to_ndarray(format="rgb24") for _ in range(count)]


def artificial_scrfd(path: Path, flat: bool = False, faces: tuple[tuple[int, int], ...] = ((1, 20),)) -> Path:
    """An ONNX file with SCRFD's nine outputs that finds a face at fixed anchors (level, row).

    All outputs change sign for a black picture, so that pictures of a batch differ.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, outputs = [], [], []
    nodes.append(helper.make_node("ReduceMax", ["images"], ["maximum"], axes=[1, 2, 3], keepdims=1))
    nodes.append(helper.make_node("Sign", ["maximum"], ["brightest"]))  # white pictures 1, black ones -1
    for part, width in enumerate((1, 4, 10)):
        for level, stride in enumerate(STRIDES):
            rows = 2 * (SIDE // stride) ** 2
            values = np.zeros((1, rows, width), np.float32)
            for its_level, row in faces:
                if its_level == level:
                    values[0, row] = ([0.9], [1, 1, 1, 1], np.linspace(-0.5, 0.5, 10))[part]
            name = f"out{part}{level}"
            constants.append(numpy_helper.from_array(values, name + "_c"))
            constants.append(numpy_helper.from_array(np.array([-1, 1, 1], np.int64), name + "_s"))
            nodes.append(helper.make_node("Reshape", ["brightest", name + "_s"], [name + "_b"]))
            nodes.append(helper.make_node("Mul", [name + "_c", name + "_b"], [name + "_m" if flat else name]))
            if flat:  # insightface's own files flatten pictures and places into one axis
                constants.append(numpy_helper.from_array(np.array([-1, width], np.int64), name + "_f"))
                nodes.append(helper.make_node("Reshape", [name + "_m", name + "_f"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])
    graph = helper.make_graph(nodes, "scrfd", [images], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("flat", [False, True])
def test_scrfd_decodes_anchors_of_both_layouts(tmp_path: Path, flat: bool) -> None:
    detector = Scrfd(artificial_scrfd(tmp_path / "det_x.onnx", flat), SIDE, 0.5, None, "test")
    white, black = np.full((SIDE, SIDE, 3), 255, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)
    faces = detector.find([white, black, np.repeat(np.repeat(white, 2, 0), 2, 1)])
    # level 1 (stride 16), row 20 = place 10 of 4 x 4 cells = column 2, row 2; the box reaches one stride to each side
    assert [len(each) for each in faces] == [1, 0, 1]
    np.testing.assert_allclose(faces[0].boxes, [[16, 16, 48, 48]], atol=1e-4)
    np.testing.assert_allclose(faces[2].boxes, 2 * faces[0].boxes, atol=1e-3)  # twice the picture, twice the box
    five = 32 + 16 * np.linspace(-0.5, 0.5, 10).reshape(5, 2)
    np.testing.assert_allclose(faces[0].landmarks[0], five, atol=1e-4)
    assert float(faces[0].scores[0]) == pytest.approx(0.9)


def test_scrfd_real_file_agrees_with_insightface() -> None:
    if importlib.util.find_spec("insightface") is None:
        pytest.skip("insightface is not installed")
    path = shared("detectors", "scrfd_500m_kps.onnx")
    from insightface.model_zoo.scrfd import SCRFD

    theirs = SCRFD(str(path))
    theirs.prepare(-1, det_thresh=0.5, input_size=(640, 640))
    pictures = clip_pictures(2, "clip09")  # 640 pixels wide: neither of the two scales it
    for picture, mine in zip(pictures, open_detector("insightface", path).find(pictures)):
        boxes, five = theirs.detect(picture[:, :, ::-1], input_size=(640, 640))
        assert len(mine) == len(boxes) == 1
        np.testing.assert_allclose(mine.boxes, boxes[:, :4], atol=0.1)
        np.testing.assert_allclose(mine.landmarks, five, atol=0.1)
        np.testing.assert_allclose(mine.scores, boxes[:, 4], atol=1e-2)


def test_scrfd_batch_equals_one_by_one() -> None:
    detector = open_detector("insightface", shared("detectors", "scrfd_500m_kps.onnx"))
    pictures = [*clip_pictures(2), np.zeros((200, 300, 3), np.uint8), *clip_pictures(1, "clip04")]
    together = detector.find(pictures)
    assert [len(faces) for faces in together] == [1, 1, 0, 1]
    for picture, faces in zip(pictures, together):
        np.testing.assert_allclose(detector.find([picture])[0].boxes, faces.boxes, atol=0.05)
    assert np.abs(together[0].boxes - together[3].boxes).max() > 5  # rows are not mixed up


def test_yunet_and_embedded_find_the_face_that_scrfd_finds() -> None:
    picture = clip_pictures(1)[0]
    scrfd = open_detector("insightface", shared("detectors", "scrfd_500m_kps.onnx")).find([picture])[0]
    yunet = open_detector("yunet", shared("detectors", "yunet_n_640_640.onnx")).find([picture])[0]
    embedded = open_detector("embedded").find([picture])[0]
    eyes = float(np.linalg.norm(scrfd.landmarks[0, 0] - scrfd.landmarks[0, 1]))
    for faces in (yunet, embedded):
        assert len(faces) == 1
        assert iou(scrfd.boxes[0], faces.boxes)[0] > 0.4
        assert np.linalg.norm(faces.landmarks[0] - scrfd.landmarks[0], axis=1).max() < 0.25 * eyes


def test_embedded_finds_no_face_in_noise_and_in_pictures_of_any_size() -> None:
    random = np.random.default_rng(0)
    pictures = [
        random.integers(0, 256, (240, 320, 3), np.uint8),
        np.zeros((97, 1, 3), np.uint8),
        np.full((31, 500, 3), 128, np.uint8),
        cv2.GaussianBlur(random.integers(0, 256, (720, 1280, 3), np.uint8), (0, 0), 9),
    ]
    faces = open_detector("embedded").find(pictures)
    assert [len(each) for each in faces] == [0, 0, 0, 0]
    assert faces[0].boxes.shape == (0, 4)
    assert faces[0].landmarks.shape == (0, 5, 2)


def test_embedded_follows_the_face_through_the_picture() -> None:
    detector = open_detector("embedded")
    picture = clip_pictures(1, "clip04")[0]
    height, width = picture.shape[:2]
    canvas = np.full((2 * height, 2 * width, 3), 90, np.uint8)
    canvas[height:, width:] = picture
    alone, placed = detector.find([picture])[0], detector.find([canvas])[0]
    assert len(alone) == len(placed) == 1
    eyes = float(np.linalg.norm(alone.landmarks[0, 0] - alone.landmarks[0, 1]))
    assert np.abs(placed.landmarks[0] - [width, height] - alone.landmarks[0]).max() < 0.12 * eyes
    assert len(detector.find([np.ascontiguousarray(picture[::-1])])[0]) == 0  # an upside-down face does not count


def test_a_peak_of_the_finder_becomes_its_box() -> None:
    maps = np.full((4, 12, 20), 0, np.float32)
    maps[0] = -9
    maps[0, 5, 7], maps[0, 5, 8], maps[0, 2, 15] = 3.0, 2.0, 1.0  # the second is a neighbour of the first
    maps[1, 5, 7], maps[1, 2, 15] = 1.0, 0.0
    maps[2:, 5, 7] = 0.25, -0.5
    boxes, scores = decode(maps, 0.3)
    middle = np.array([(7.75) * STRIDE, 5.0 * STRIDE])
    np.testing.assert_allclose(boxes[0], [*(middle - UNIT), *(middle + UNIT)])
    assert len(boxes) == 2
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-3.0, -1.0])), rtol=1e-6)
    assert len(decode(maps, 0.9)[0]) == 1
    assert len(decode(maps, 0.99)[0]) == 0


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [40, 0, 50, 10], [0, 0, 4, 4]], np.float32)
    scores = np.array([0.5, 0.9, 0.3, 0.8], np.float32)
    assert suppress(boxes, scores, 0.4).tolist() == [1, 3, 2]
    assert suppress(boxes, scores, 1.0).tolist() == [1, 3, 0, 2]
    assert iou(boxes[0], boxes[:1])[0] == pytest.approx(1.0)
    assert iou(boxes[0], boxes[2:3])[0] == 0


def test_shrink_keeps_small_pictures_and_returns_the_factor() -> None:
    picture = np.zeros((90, 160, 3), np.uint8)
    same, factor = shrink(picture, 320)
    assert same is picture
    assert factor == 1
    small, factor = shrink(picture, 80)
    assert small.shape == (45, 80, 3)
    assert factor == 2


def test_detections_can_be_selected() -> None:
    faces = Detections(np.eye(4, dtype=np.float32), np.arange(4, dtype=np.float32), np.zeros((4, 5, 2), np.float32))
    assert faces[np.array([2, 0])].scores.tolist() == [2, 0]
    assert len(faces[faces.scores > 2]) == 1


def test_auto_takes_insightface_only_if_its_model_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    without = open_detector("auto")
    assert without.name == "embedded"
    assert "no model on this machine" in without.reason
    for pack in ("antelopev2", "buffalo_l"):
        folder = tmp_path / ".insightface" / "models" / pack
        folder.mkdir(parents=True)
        artificial_scrfd(folder / "det_10g.onnx")
    chosen = open_detector("auto")
    assert chosen.name == "insightface"
    assert str(tmp_path / ".insightface" / "models" / "buffalo_l") in chosen.reason
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "insightface is not installed" in open_detector("auto").reason


def test_a_folder_of_models_is_searched(tmp_path: Path) -> None:
    artificial_scrfd(tmp_path / "det_500m.onnx")
    (tmp_path / "w600k.onnx").write_bytes(b"the recognition network, not a detector")
    assert "det_500m.onnx" in open_detector("insightface", tmp_path).reason


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: open_detector("yolo"), "Unknown detector 'yolo'"),
        (lambda path: open_detector("insightfac"), "Did you mean 'insightface'"),
        (lambda path: open_detector("auto", path / "x.onnx"), "--detector insightface or yunet"),
        (lambda path: open_detector("embedded", path / "x.onnx"), "takes no model file"),
        (lambda path: open_detector("insightface", path / "x.onnx"), "does not exist"),
        (lambda path: open_detector("insightface", path), "holds no det_"),
        (lambda path: open_detector("insightface", path / "text.onnx"), "cannot be read"),
        (lambda path: open_detector("yunet"), "needs its model file"),
        (lambda path: open_detector("yunet", path / "x.onnx"), "does not exist"),
        (lambda path: open_detector("yunet", path / "text.onnx"), "does not run as a YuNet model"),
    ],
)
def test_errors_name_the_remedy(tmp_path: Path, call: Callable[[Path], object], words: str) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(UserError, match=words):
        call(tmp_path)


def test_wrong_networks_are_refused() -> None:
    with pytest.raises(UserError, match="is not an SCRFD with five points"):
        open_detector("insightface", shared("detectors", "yunet_n_dynamic.onnx"))
    with pytest.raises(UserError, match="does not run as a YuNet"):
        open_detector("yunet", shared("detectors", "scrfd_500m_kps.onnx"))
