"""Pictures -> square boxes of faces with a score, by the small network that the package carries. Refines nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .openvino_core import openvino_core

STRIDE = 8  # picture pixels a cell
UNIT = 32.0  # pixels; the network speaks of sides as log2(side / UNIT)


class Finder:
    """One thread uses it."""

    def __init__(self, path: Path) -> None:
        core = openvino_core()
        try:
            self._model = core.read_model(path)
        except RuntimeError as error:
            raise UserError(f"Face finder {path} cannot be loaded: {str(error).splitlines()[-1]}") from None
        self._core: Any = core
        self._requests: dict[tuple[int, ...], Any] = {}

    def maps(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) with H and W in multiples of 32 -> (N, 4, H/8, W/8) as `finder_network.py` says."""
        request = self._requests.get(pictures.shape)
        if request is None:  # compiled once for each size: open sizes cost a third more time
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
        """Small pictures of one size -> boxes (F, 4) in their pixels and scores (F,), best first, one box a peak."""
        height, width = pictures[0].shape[:2]
        batch = np.zeros((len(pictures), -(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
        for row, picture in zip(batch, pictures):
            row[:height, :width] = picture
        return [decode(maps, threshold) for maps in self.maps(batch)]


def decode(maps: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(4, C, D) of one picture -> boxes (F, 4), scores (F,): every cell that is the highest among its neighbours."""
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
    return boxes, (1 / (1 + np.exp(-heat[rows, columns]))).astype(np.float32)
