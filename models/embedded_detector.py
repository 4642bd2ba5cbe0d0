"""The detector that needs no download: OpenCV's cascade proposes boxes, the landmark network keeps the faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import five_points
from .detectors import Detections, no_detections, shrink
from .landmarks import box_of, open_landmarks


class EmbeddedDetector:
    name = "embedded"

    def __init__(self, size: int | None, threshold: float | None, reason: str) -> None:
        self.size, self.reason = size or 320, reason
        self._landmarks = open_landmarks()
        self.threshold = self._landmarks.threshold if threshold is None else threshold
        # the data folder lies inside the OpenCV wheel; OpenCV 5 has neither it nor the class, hence our <5
        cascade = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        self._cascade = cv2.CascadeClassifier(str(cascade))

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: NDArray[np.uint8]) -> Detections:
        small, factor = shrink(picture, self.size)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        proposals = np.array(self._cascade.detectMultiScale(grey, 1.1, 4), np.float32).reshape(-1, 4) * np.float32(
            factor
        )
        if not len(proposals):
            return no_detections()
        boxes = np.concatenate([proposals[:, :2], proposals[:, :2] + proposals[:, 2:]], 1)
        located = self._landmarks.locate(picture, boxes)
        rows = np.argsort(-located.presence, kind="stable")
        rows = rows[located.presence[rows] >= self.threshold]
        points = located.points[rows]
        return Detections(box_of(points), located.presence[rows], five_points(points))
