"""Five points of the face in a picture, found as the engine finds them, for aligning a data set's raw pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import align
from .detectors import open_detector
from .landmarks import open_landmarks


class PointFinder:
    """The detector's best face, its landmarks, and their five points; None where no face is found."""

    def __init__(self, detector: str = "auto") -> None:
        self._detector, self._landmarks = open_detector(detector), open_landmarks()

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        found = self._detector.find([picture])[0]
        if not len(found):
            return None
        five = align.five_points(self._landmarks.locate(picture, found.boxes[:1]).points)
        return np.asarray(five[0], np.float32)
