"""Five points of the face in a picture, found as the engine finds them, for aligning a data set's raw pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from . import align
from .base import Detector
from .landmarks import LandmarkNet


class PointFinder:
    """The detector's best face, its landmarks, and their five points; None where no face is found."""

    def __init__(self, detector: Detector, landmarks: LandmarkNet) -> None:
        self._detector, self._landmarks = detector, landmarks

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        found = self._find(picture)
        if found is not None:
            return found
        # Pictures that another project prepared are cut so tightly that a detector misses the face: it looks again
        # with a border around it.
        border = max(picture.shape[:2]) // 3
        wide = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_CONSTANT, value=(127, 127, 127))
        found = self._find(np.asarray(wide, np.uint8))
        return None if found is None else found - border

    def _find(self, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        found = self._detector.find([picture])[0]
        if not len(found):
            return None
        five = align.five_points(self._landmarks.locate(picture, found.boxes[:1]).points)
        return np.asarray(five[0], np.float32)
