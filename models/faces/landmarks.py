"""Box -> 68 points, and whether it holds a face. `face_training/landmarks.py` trains the network.

The network sees a square crop around the box, so it works behind any detector, and as a tracker whose box comes from
the points in the last frame (`box_of`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import embedded
from ..metrics import sigmoid
from ..openvino_core import openvino_core
from .align import POINTS

SIDE = 96  # pixels of the crop that the network sees
BOX_GROWTH = 1.15  # side of a face's box over the larger extent of its points: about the size that detectors draw
CROP_GROWTH = 1.25  # side of the crop over the side of the box: room for errors of the box


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    points: NDArray[np.float32]  # (F, 68, 2) iBUG order, picture pixels
    presence: NDArray[np.float32]  # (F,) probability that the box holds a face, 0..1

    def __len__(self) -> int:
        return len(self.presence)


def box_of(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 68, 2) -> (..., 4): the square box for `locate` in the next frame."""
    low, high = points.min(-2), points.max(-2)
    centre, half = (low + high) / 2, (high - low).max(-1, keepdims=True) * (BOX_GROWTH / 2)
    return np.concatenate([centre - half, centre + half], -1).astype(np.float32)


def crop_matrix(box: NDArray[np.floating]) -> NDArray[np.float64]:
    """The (2, 3) map from picture to crop pixels; a box that is not square is taken by its mean side."""
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    scale = SIDE / max(CROP_GROWTH * (width + height) / 2, 1e-3)
    shift = (SIDE - 1) / 2 - scale * (np.array([box[0] + box[2], box[1] + box[3]], np.float64) / 2)
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def cut(picture: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The crop (SIDE, SIDE, 3) of an upright box, black outside the picture.

    Large faces are first averaged down by a power of two, for which OpenCV is many times faster than for other factors.
    """
    scale = float(matrix[0, 0])
    factor = 2 ** max(0, int(np.log2(1 / scale)))
    if factor == 1:
        return np.asarray(cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR), np.uint8)
    height, width = picture.shape[:2]
    x0, y0 = (int(np.clip(-shift / scale - factor, 0, n - 1)) for shift, n in zip(matrix[:, 2], (width, height)))
    reach = int(SIDE / scale) + 3 * factor
    part = picture[y0 : y0 + reach, x0 : x0 + reach]
    high, wide = part.shape[0] // factor, part.shape[1] // factor
    if not high or not wide:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    small = cv2.resize(part[: high * factor, : wide * factor], (wide, high), interpolation=cv2.INTER_AREA)
    matrix = matrix * factor
    corner = np.array([x0, y0]) + (factor - 1) / 2  # the centre of the first block
    matrix[:, 2] = matrix[:, 2] / factor + scale * corner
    return np.asarray(cv2.warpAffine(small, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR), np.uint8)


def open_landmarks(model: Path | str | None = None) -> LandmarkNet:
    """`model` is an .onnx file with its .json next to it; the default is the network in the package."""
    return LandmarkNet(embedded() / "landmarks.onnx" if model is None else Path(model).expanduser())


class LandmarkNet:
    """Not thread-safe. Runs on one core, because a face takes about a millisecond."""

    def __init__(self, path: Path) -> None:
        self.path = path
        card = path.parent / f"{path.stem}.json"
        try:
            self.card: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
            self.threshold = float(self.card["threshold"])  # lowest presence of a face
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"Landmark model {path} has no readable card {card.name} ({error!r}). Give an "
                ".onnx file as written by 'python -m vlfau.models.face_training.landmarks', with its .json next to it."
            ) from None
        _ = self._request  # fails here if the file is broken

    @cached_property
    def _request(self) -> Any:
        core = openvino_core()
        try:
            model = core.read_model(self.path)
            model.reshape([1, SIDE, SIDE, 3])
            compiled = core.compile_model(
                model,
                "CPU",
                # always F32: in half precision the softmax over a map moves points by tenths of a pixel
                {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"},
            )
        except RuntimeError as error:
            raise UserError(f"Landmark model {self.path} cannot be loaded: {str(error).splitlines()[-1]}") from None
        return compiled.create_infer_request()

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
        """picture (H, W, 3) uint8 RGB, boxes (F, 4) x0 y0 x1 y1 from any detector or `box_of`."""
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if not len(boxes):
            return Located(np.empty((0, POINTS, 2), np.float32), np.empty(0, np.float32))
        matrices = np.stack([crop_matrix(box) for box in boxes])  # (F, 2, 3)
        crops = np.stack([cut(picture, matrix) for matrix in matrices])
        points, log_odds = self.run(crops)
        points = points * SIDE - 0.5  # fractions of the crop -> pixel centres at integers
        back = (points - matrices[:, None, :, 2]) / matrices[:, :1, :1]
        return Located(back.astype(np.float32), sigmoid(log_odds))

    def run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, SIDE, SIDE, 3) uint8 RGB -> points (N, 68, 2) in fractions of the crop, presence (N,) log-odds."""
        points, presence = np.empty((len(crops), POINTS, 2), np.float32), np.empty(len(crops), np.float32)
        for i in range(len(crops)):  # on one core a batch is no faster, and open sizes take a fifth more time
            self._request.infer([crops[i : i + 1]], share_inputs=True)
            points[i], presence[i] = (self._request.get_tensor(name).data[0] for name in ("points", "presence"))
        return points, presence
