"""The detector that needs no download: a small network proposes boxes, the landmark network keeps the faces."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .align import five_points
from .detectors import Detections, no_detections, shrink, suppress
from .finder import Finder
from .landmarks import EMBEDDED, box_of, open_landmarks

SIDE = 320  # pixels, the longer side of the picture that the finder sees: faces from about 1/16 of it
PROPOSALS = 48  # boxes a picture that are worth a look; a class of thirty fits
OVERLAP = 0.4  # two proposals whose points agree are one face


class EmbeddedDetector:
    name = "embedded"

    def __init__(self, size: int | None, threshold: float | None, reason: str) -> None:
        self.size, self.reason = size or SIDE, reason
        self.landmarks = open_landmarks()  # free for others on the same thread
        self.threshold = self.landmarks.threshold if threshold is None else threshold
        path = EMBEDDED / "finder.onnx"
        self._finder = Finder(path)
        self._proposal = float(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["threshold"])

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Pictures of one size share a call of the finder."""
        small = [shrink(picture, self.size) for picture in pictures]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (picture, _) in enumerate(small):
            groups[picture.shape].append(i)
        found: list[Detections] = [no_detections()] * len(pictures)
        for rows in groups.values():
            for i, (boxes, _) in zip(rows, self._finder.propose([small[i][0] for i in rows], self._proposal)):
                found[i] = self._keep(pictures[i], boxes[:PROPOSALS] * np.float32(small[i][1]))
        return found

    def _keep(self, picture: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Detections:
        """Two looks: at the proposed box and at the box of the points found there. A mistake rarely passes both."""
        first = self.landmarks.locate(picture, boxes)
        likely = first.presence >= self.threshold
        second = self.landmarks.locate(picture, box_of(first.points[likely]))
        rows = np.flatnonzero(second.presence >= self.threshold)
        if not len(rows):
            return no_detections()
        points, presence = second.points[rows], second.presence[rows]
        squares = box_of(points)
        kept = suppress(squares, presence, OVERLAP)
        return Detections(squares[kept], presence[kept], five_points(points[kept]))
