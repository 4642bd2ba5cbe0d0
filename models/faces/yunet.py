"""YuNet, from a user's .onnx file, through OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .base import Detections, existing_model, no_detections, shrink


class YuNet:
    """One picture at a time, because OpenCV's FaceDetectorYN takes no batch."""

    name = "yunet"
    landmarks = None

    def __init__(self, path: Path, size: int, threshold: float) -> None:
        self.size, self.reason = size, f"yunet, as requested, model {path}"
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(existing_model(path)), "", (size, size), threshold, 0.3, 5000
            )
            self._raw(np.zeros((64, 64, 3), np.uint8))  # a wrong network fails only when it runs
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
        # OpenCV names points by the person's right and left, so its first eye has the smaller x, as here
        return Detections(
            boxes.astype(np.float32), rows[:, 14].clip(0, 1), rows[:, 4:14].reshape(-1, 5, 2) * np.float32(factor)
        )
