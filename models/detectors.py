"""Picture -> faces: which detector to use, and the one shape in which all of them answer. Follows nobody over time.

`embedded` needs no download and finds faces with what the package carries (`embedded_detector.py`), `insightface` runs
a user's SCRFD model (`scrfd.py`), `yunet` a user's YuNet file through OpenCV. Points beyond these five are found by
`landmarks.py`, tracks are the engine's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import UserError, unknown

CHOICES = ("auto", "embedded", "insightface", "yunet")
INSIGHTFACE_PACK = "buffalo_l"  # what insightface itself fetches when nothing is named


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The F faces of one picture, best first. Each detector has its own idea of a box, all hold eyes and mouth."""

    boxes: NDArray[np.float32]  # (F, 4) x0 y0 x1 y1 in picture pixels, may reach over the border
    scores: NDArray[np.float32]  # (F,) 0..1, comparable only within one detector
    landmarks: NDArray[np.float32]  # (F, 5, 2) eye centres, nose tip, mouth corners; left = smaller x

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Detections:
        return Detections(self.boxes[rows], self.scores[rows], self.landmarks[rows])


def no_detections() -> Detections:
    return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))


class Detector(Protocol):
    """One thread uses it."""

    name: str  # "embedded", "insightface", "yunet"
    reason: str  # which model it runs and why it was chosen, for people

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Pictures (H, W, 3) uint8 RGB of any sizes; as one batch where the runtime allows it."""


def open_detector(
    choice: str = "auto",
    model: Path | str | None = None,
    *,
    size: int | None = None,
    threshold: float | None = None,
    device: str | None = None,
) -> Detector:
    """`model` is a file or folder for insightface, a file for yunet; `size` the longer side of what is looked at."""
    if choice not in CHOICES:
        raise unknown("detector", choice, CHOICES)
    path = Path(model).expanduser() if model is not None else None
    if choice == "auto":
        if path is not None:
            raise UserError(
                f"A detector model ({path}) was given without saying whose it is. Add --detector insightface or yunet."
            )
        found, why = _insightface_on_disk()
        if found is None:
            return _embedded(size, threshold, f"embedded detector, because {why}")
        return _scrfd(found, size, threshold, device, f"insightface, because its model {found} is on this machine")
    if choice == "embedded":
        if path is not None:
            raise UserError(
                f"The embedded detector takes no model file, got {path}. Choose insightface or yunet for it."
            )
        return _embedded(size, threshold, "embedded detector, as asked")
    if choice == "insightface":
        found = _scrfd_file(path) if path is not None else _insightface_file()
        return _scrfd(found, size, threshold, device, f"insightface, as asked, model {found}")
    if path is None:
        raise UserError(
            "Detector 'yunet' needs its model file. Get face_detection_yunet_*.onnx from OpenCV's model zoo "
            "and name it with --detector-model."
        )
    return YuNet(path, size or 320, 0.6 if threshold is None else threshold)


def _embedded(size: int | None, threshold: float | None, reason: str) -> Detector:
    from .embedded_detector import EmbeddedDetector

    return EmbeddedDetector(size, threshold, reason)


def _scrfd(path: Path, size: int | None, threshold: float | None, device: str | None, reason: str) -> Detector:
    from .scrfd import Scrfd

    return Scrfd(path, size or 640, 0.5 if threshold is None else threshold, device, reason)


def _insightface_models() -> list[Path]:
    home = Path("~/.insightface").expanduser()
    return sorted((home / "models").glob("*/det_*.onnx"))


def _insightface_on_disk() -> tuple[Path | None, str]:
    """The SCRFD file that insightface has fetched before, or why there is none to use."""
    if importlib.util.find_spec("insightface") is None:
        return None, "insightface is not installed"
    models = _insightface_models()
    if not models:
        return None, "insightface has no model on this machine"
    return _preferred(models), ""


def _preferred(models: list[Path]) -> Path:
    """insightface's own default pack first, then the first by name."""
    return next((path for path in models if path.parent.name == INSIGHTFACE_PACK), models[0])


def _insightface_file() -> Path:
    """A model fetched before, or insightface's own download."""
    models = _insightface_models()
    if models:
        return _preferred(models)
    if importlib.util.find_spec("insightface") is None:
        raise UserError(
            "Detector 'insightface' has no model. Name one with --detector-model (an SCRFD .onnx file or a folder with "
            "det_*.onnx), or install insightface (pip install 'vlfau-stream[insightface]'), which fetches its own; "
            "its models are for non-commercial research only."
        )
    try:
        from insightface.utils import ensure_available

        folder = Path(ensure_available("models", INSIGHTFACE_PACK))
    except Exception as error:
        raise UserError(
            f"insightface could not fetch its models ({type(error).__name__}: {error}). Without a network, copy an "
            "SCRFD .onnx file here and name it with --detector-model, or choose --detector embedded."
        ) from error
    return _scrfd_file(folder)


def _scrfd_file(path: Path) -> Path:
    if path.is_dir():
        models = sorted(path.glob("det_*.onnx")) or sorted(path.glob("scrfd*.onnx"))
        if not models:
            raise UserError(f"Folder {path} holds no det_*.onnx and no scrfd*.onnx. Name the detection model's file.")
        return models[0]
    return existing_model(path)


def existing_model(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"Detector model {path} does not exist. Give the path of an .onnx file.")
    return path


def shrink(picture: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """The picture with its longer side at most `side`, and the factor back to picture pixels."""
    factor = max(picture.shape[:2]) / side
    if factor <= 1:
        return picture, 1.0
    width, height = (max(1, round(n / factor)) for n in (picture.shape[1], picture.shape[0]))
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8), factor


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """Non-maximum suppression: rows to keep, best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        order = rest[iou(boxes[best], boxes[rest]) <= overlap]
    return np.array(kept, np.intp)


def iou(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of one box (4,) with boxes (n, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    return np.asarray(common / np.maximum(_area(box) + _area(boxes) - common, 1e-9))


def _area(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


class YuNet:
    """A user's YuNet file through OpenCV's FaceDetectorYN; one picture at a time, because that class takes no batch."""

    name = "yunet"

    def __init__(self, path: Path, size: int, threshold: float) -> None:
        self.size, self.reason = size, f"yunet, as asked, model {path}"
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(existing_model(path)), "", (size, size), threshold, 0.3, 5000
            )
            self._raw(np.zeros((64, 64, 3), np.uint8))  # a wrong network only shows when it runs
        except cv2.error as error:
            raise UserError(
                f"{path} does not run as a YuNet model in OpenCV {cv2.__version__} ({' '.join(error.err.split())}). "
                "Give a face_detection_yunet_*.onnx of OpenCV's model zoo, or choose --detector embedded."
            ) from None

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [self._find(picture) for picture in pictures]

    def _raw(self, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        self._detector.setInputSize((picture.shape[1], picture.shape[0]))
        rows = self._detector.detect(picture)[1]
        return None if rows is None else np.asarray(rows, np.float32)

    def _find(self, picture: NDArray[np.uint8]) -> Detections:
        small, factor = shrink(picture, self.size)
        rows = self._raw(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))  # type: ignore[arg-type]
        if rows is None:
            return no_detections()
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) * factor
        # OpenCV names the points by the person's right and left: its first eye is the one with the smaller x, as here
        return Detections(
            boxes.astype(np.float32), rows[:, 14].clip(0, 1), rows[:, 4:14].reshape(-1, 5, 2) * np.float32(factor)
        )
