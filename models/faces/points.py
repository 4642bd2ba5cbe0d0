"""Five points of each face in a picture by detector and landmark network, for aligning pictures that carry none."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import five_points
from .base import Detector
from .landmarks import LandmarkNet, Located


class PointFinder:
    def __init__(self, detector: Detector, landmarks: LandmarkNet) -> None:
        self._detector, self._landmarks = detector, landmarks

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """(5, 2) of the detector's best face, None where it finds no face."""
        five = self._find(picture)
        if five is not None:
            return five
        # Pictures prepared by other projects are cropped so tightly that a detector misses the face: try again with a
        # border.
        border = max(picture.shape[:2]) // 3
        wide = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_CONSTANT, value=(127, 127, 127))
        five = self._find(np.asarray(wide, np.uint8))
        return None if five is None else five - border

    def all(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(F, 5, 2) of all faces that the landmark network confirms."""
        located = self._locate(picture)
        return five_points(located.points[located.presence >= self._landmarks.threshold])

    def _find(self, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        located = self._locate(picture, most=1)
        return five_points(located.points)[0] if len(located) else None

    def _locate(self, picture: NDArray[np.uint8], most: int | None = None) -> Located:
        return self._landmarks.locate(picture, self._detector.find([picture])[0].boxes[:most])
