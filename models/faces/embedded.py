"""The detector that needs no download: a small network proposes boxes, and the landmark network confirms faces."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import embedded
from ..metrics import sigmoid
from ..openvino_core import openvino_core
from .align import five_points
from .base import Detections, no_detections, shrink
from .boxes import suppress
from .landmarks import box_of, open_landmarks

STRIDE = 8  # picture pixels per cell
UNIT = 32.0  # pixels; the network predicts sides as log2(side / UNIT)

SIDE = 320  # pixels, the longer side of its input: faces from about 1/16 of it
PROPOSALS = 48  # boxes per picture that the landmark network checks; enough for a class of thirty
OVERLAP = 0.4  # above it two proposals are the same face


class EmbeddedDetector:
    name = "embedded"

    def __init__(self, size: int | None, threshold: float | None, reason: str) -> None:
        self.size, self.reason = size or SIDE, reason
        self.landmarks = open_landmarks()  # also for callers on the same thread
        self.threshold = self.landmarks.threshold if threshold is None else threshold
        path = embedded() / "finder.onnx"
        self._proposer = FaceBoxes(path)
        self._proposal = float(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["threshold"])

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Pictures of one size are proposed boxes for in one call."""
        small = [shrink(picture, self.size) for picture in pictures]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (picture, _) in enumerate(small):
            groups[picture.shape].append(i)
        faces: list[Detections] = [no_detections()] * len(pictures)
        for rows in groups.values():
            for i, (boxes, _) in zip(rows, self._proposer.propose([small[i][0] for i in rows], self._proposal)):
                faces[i] = self._confirm(pictures[i], boxes[:PROPOSALS] * np.float32(small[i][1]))
        return faces

    def _confirm(self, picture: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Detections:
        """Checks the proposed box, then the box of the points located in it. A false face rarely passes both."""
        first = self.landmarks.locate(picture, boxes)
        likely = first.presence >= self.threshold
        second = self.landmarks.locate(picture, box_of(first.points[likely]))
        rows = np.flatnonzero(second.presence >= self.threshold)
        if not len(rows):
            return no_detections()
        points, presence = second.points[rows], second.presence[rows]
        squares = box_of(points)
        best = suppress(squares, presence, OVERLAP)
        return Detections(squares[best], presence[best], five_points(points[best]))


class FaceBoxes:
    """The network that proposes boxes. Not thread-safe.

    On processors with BF16 OpenVINO computes it in BF16: 1.6 ms a picture instead of 2.7. Over 255 frames of real clips
    that moved final boxes by 0.15 pixels (median) and changed no face.
    """

    def __init__(self, path: Path) -> None:
        core = openvino_core()
        try:
            self._model = core.read_model(path)
        except RuntimeError as error:
            raise UserError(f"Face finder {path} cannot be loaded: {str(error).splitlines()[-1]}") from None
        self._core: Any = core
        self._requests: dict[tuple[int, ...], Any] = {}

    def maps(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) with H and W in multiples of 32 -> (N, 4, H/8, W/8), axes of `FinderNetwork.forward`."""
        request = self._requests.get(pictures.shape)
        if request is None:  # compiled once per size: open sizes take a third more time
            model = self._model.clone()
            model.reshape(list(pictures.shape))
            options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
            request = self._core.compile_model(model, "CPU", options).create_infer_request()
            self._requests[pictures.shape] = request
        request.infer([pictures], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    def propose(
        self, pictures: Sequence[NDArray[np.uint8]], threshold: float
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Small pictures of one size -> boxes (F, 4) in their pixels and scores (F,), best first, one box per peak."""
        height, width = pictures[0].shape[:2]
        batch = np.zeros((len(pictures), -(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
        for row, picture in zip(batch, pictures):
            row[:height, :width] = picture
        return [decode(maps, threshold) for maps in self.maps(batch)]


def decode(maps: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(4, C, D) of one picture -> boxes (F, 4) and scores (F,) of the cells that score higher than their neighbours."""
    heat = maps[0]
    limit = np.log(threshold / (1 - threshold))
    peaks = (heat >= cv2.dilate(heat, np.ones((3, 3), np.uint8))) & (heat > limit)
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-heat[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    side = UNIT * np.exp2(maps[1, rows, columns].clip(-3, 5))
    x = (columns + 0.5 + maps[2, rows, columns]) * STRIDE
    y = (rows + 0.5 + maps[3, rows, columns]) * STRIDE
    boxes = np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], 1).astype(np.float32)
    return boxes, sigmoid(heat[rows, columns])
