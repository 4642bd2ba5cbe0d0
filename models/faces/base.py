"""The interface of face detectors, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

if TYPE_CHECKING:
    from .landmarks import LandmarkNet


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The F faces of one picture, best first. Detectors draw their boxes differently; all contain eyes and mouth."""

    boxes: NDArray[np.float32]  # (F, 4) x0 y0 x1 y1 in picture pixels, may cross the border
    scores: NDArray[np.float32]  # (F,) 0..1, comparable only within one detector
    landmarks: NDArray[np.float32]  # (F, 5, 2) eye centres, nose tip, mouth corners; left = smaller x

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Detections:
        return Detections(self.boxes[rows], self.scores[rows], self.landmarks[rows])


def no_detections() -> Detections:
    return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))


class Detector(Protocol):
    """Not thread-safe."""

    name: str  # "embedded", "insightface", "yunet"
    reason: str  # which model it runs and why it was chosen, as a sentence

    @property
    def landmarks(self) -> LandmarkNet | None:
        """The landmark network that it runs, free for others on the same thread; None if it runs none."""

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Takes pictures (H, W, 3) uint8 RGB of any sizes; runs them as one batch where possible."""


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
