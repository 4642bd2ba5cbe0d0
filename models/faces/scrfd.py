"""SCRFD, insightface's detector, from a user's .onnx file, several pictures in one call.

insightface's class takes one picture at a time on ONNX Runtime. Here the same network runs on OpenVINO (on a GPU: ONNX
Runtime), and its outputs are decoded for the whole batch. A test compares the two.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..openvino_core import openvino_core
from .base import Detections, existing_model, no_detections, shrink
from .boxes import suppress

INSIGHTFACE_PACK = "buffalo_l"  # what insightface downloads by default

STRIDES, ANCHORS = (8, 16, 32), 2  # of every published SCRFD with five points
MAX_BATCH = 8
OVERLAP = 0.4  # insightface's own suppression threshold

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


class Scrfd:
    name = "insightface"
    landmarks = None

    def __init__(self, path: Path, size: int, threshold: float, device: str | None, reason: str) -> None:
        self.threshold = threshold
        gpu = device is not None and device.lower().split(":")[0] in ("cuda", "gpu")
        self._run, self.side, self.max_batch, self.runtime = (_open_onnxruntime if gpu else _open_openvino)(
            existing_model(path), size - size % 32 or 32
        )
        self.reason = f"{reason}, {self.side} px, {self.runtime}"

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        faces: list[Detections] = []
        for i in range(0, len(pictures), self.max_batch):
            faces += self._find(pictures[i : i + self.max_batch])
        return faces

    def _find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        batch = np.zeros((len(pictures), self.side, self.side, 3), np.float32)
        factors = []
        for row, picture in zip(batch, pictures):  # at the top left, as insightface does, black below or to the right
            # never enlarged, unlike insightface: a face that fills a small picture would become too large for SCRFD
            small, factor = shrink(picture, self.side)
            row[: small.shape[0], : small.shape[1]] = small
            factors.append(factor)
        batch -= 127.5
        batch /= 128
        outputs = self._run(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        return [self._decode(outputs, i, len(pictures), factor) for i, factor in enumerate(factors)]

    def _decode(self, outputs: list[NDArray[np.float32]], picture: int, pictures: int, factor: float) -> Detections:
        boxes, scores, landmarks = [], [], []
        for level, stride in enumerate(STRIDES):
            # (places, k) of this picture; files flatten picture, row, column and anchor into one axis or keep the first
            score, reach, five = (
                outputs[level + part * len(STRIDES)].reshape(pictures, -1, width)[picture]
                for part, width in enumerate((1, 4, 10))
            )
            rows = np.flatnonzero(score[:, 0] >= self.threshold)
            cells = self.side // stride
            place = rows // ANCHORS
            centres = np.stack([place % cells, place // cells], 1).astype(np.float32) * stride
            reach, five = reach[rows] * stride, five[rows].reshape(-1, 5, 2) * stride
            boxes.append(np.concatenate([centres - reach[:, :2], centres + reach[:, 2:]], 1))
            landmarks.append(centres[:, None] + five)
            scores.append(score[rows, 0])
        all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
        if not len(all_scores):
            return no_detections()
        best = suppress(all_boxes, all_scores, OVERLAP)
        return Detections(
            all_boxes[best] * np.float32(factor), all_scores[best], np.concatenate(landmarks)[best] * np.float32(factor)
        )


def _check(path: Path, inputs: int, outputs: int) -> None:
    if inputs != 1 or outputs != 9:
        raise UserError(
            f"{path} is not an SCRFD with five points: it has {inputs} inputs and {outputs} outputs, expected 1 and 9. "
            "Give insightface's det_*.onnx or scrfd_*_kps.onnx."
        )


def _open_openvino(path: Path, size: int) -> tuple[Run, int, int, str]:
    core = openvino_core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise UserError(f"{path} cannot be read as an ONNX model: {str(error).splitlines()[-1]}") from None
    _check(path, len(model.inputs), len(model.outputs))
    side, max_batch = _reshape(model, size)
    # always F32: in BF16, the default of processors that have it, sides of boxes are off by half a pixel and more
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()

    def run(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        request.infer([batch], share_inputs=True)
        return [np.array(tensor.data) for tensor in request.output_tensors]

    return run, side, max_batch, "openvino on CPU"


def _reshape(model: Any, size: int) -> tuple[int, int]:
    """(side, largest batch): files with open axes take any, others only what is fixed in them."""
    import openvino

    shape = model.input(0).partial_shape
    fixed = shape[2].is_static
    side = int(shape[2].get_length()) if fixed else size
    try:
        model.reshape([openvino.Dimension(1, MAX_BATCH), 3, side, side])
    except RuntimeError:
        model.reshape([1, 3, side, side])
        return side, 1
    return side, MAX_BATCH


def _open_onnxruntime(path: Path, size: int) -> tuple[Run, int, int, str]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("SCRFD on a GPU needs onnxruntime-gpu. Install it, or omit --device to use the CPU.") from None
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UserError("This onnxruntime has no CUDA. Install onnxruntime-gpu, or omit --device to use the CPU.")
    session = onnxruntime.InferenceSession(str(path), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    _check(path, len(session.get_inputs()), len(session.get_outputs()))
    first = session.get_inputs()[0]
    side = first.shape[2] if isinstance(first.shape[2], int) else size
    max_batch = 1 if isinstance(first.shape[0], int) else MAX_BATCH

    def run(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.asarray(output) for output in session.run(None, {first.name: batch})]

    return run, side, max_batch, "onnxruntime on CUDA"


def _insightface_models() -> list[Path]:
    home = Path("~/.insightface").expanduser()
    return sorted((home / "models").glob("*/det_*.onnx"))


def model_on_disk() -> tuple[Path | None, str]:
    """The SCRFD file that insightface has downloaded before, or the reason why there is none."""
    if importlib.util.find_spec("insightface") is None:
        return None, "insightface is not installed"
    models = _insightface_models()
    if not models:
        return None, "insightface has no model on this machine"
    return _preferred(models), ""


def _preferred(models: list[Path]) -> Path:
    """insightface's default pack, or else the first by name."""
    return next((path for path in models if path.parent.name == INSIGHTFACE_PACK), models[0])


def model_file(path: Path | None) -> Path:
    """The SCRFD file at `path` (a file or a folder); without a path one that insightface has, or downloads now."""
    if path is not None:
        return _file_in(path)
    models = _insightface_models()
    if models:
        return _preferred(models)
    if importlib.util.find_spec("insightface") is None:
        raise UserError(
            "Detector 'insightface' has no model. Name one with --detector-model (an SCRFD .onnx file or a folder with "
            "det_*.onnx), or install insightface (pip install 'vlfau-stream[insightface]'), which downloads its own; "
            "its models are for non-commercial research only."
        )
    try:
        from insightface.utils import ensure_available

        folder = Path(ensure_available("models", INSIGHTFACE_PACK))
    except Exception as error:
        raise UserError(
            f"insightface could not download its models ({type(error).__name__}: {error}). Without a network, copy an "
            "SCRFD .onnx file here and name it with --detector-model, or choose --detector embedded."
        ) from error
    return _file_in(folder)


def _file_in(path: Path) -> Path:
    if path.is_dir():
        models = sorted(path.glob("det_*.onnx")) or sorted(path.glob("scrfd*.onnx"))
        if not models:
            raise UserError(f"Folder {path} holds no det_*.onnx or scrfd*.onnx. Give the file of the detection model.")
        return models[0]
    return existing_model(path)
