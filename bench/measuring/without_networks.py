"""`vlfau-stream` with networks that repeat their first answer, so that what is left is the engine's own work.

    PYTHONPATH=bench python -m measuring.without_networks VIDEO [flags of vlfau-stream]

`overhead.py` starts it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfau.engine.app import Engine
from vlfau.engine.commands.stream import parser
from vlfau.engine.settings import read_engine
from vlfau.engine.tracking.find import FaceFinder
from vlfau.models.bundle import Bundle
from vlfau.models.faces.base import Detections
from vlfau.models.faces.embedded import EmbeddedDetector
from vlfau.models.faces.landmarks import BOX_GROWTH, CROP_GROWTH, LandmarkNet
from vlfau.models.files import embedded
from vlfau.models.runtimes.base import Executor, Runtime

CERTAIN = 5.0  # log-odds of a face


class SameFaces(EmbeddedDetector):
    """Repeats the faces of the first image that has any."""

    _faces: Detections | None = None

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        if self._faces is None:
            faces = super().find(pictures)
            if not len(faces[0]):
                return faces
            self._faces = faces[0]
        return [self._faces] * len(pictures)


class SamePoints(LandmarkNet):
    """Repeats the points of the first crop, centred in every crop: the face stays where it is."""

    _points: NDArray[np.float32] | None = None

    def run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._points is None:
            points = super().run(crops[:1])[0][0]
            low, high = points.min(0), points.max(0)
            self._points = 0.5 + (points - (low + high) / 2) / (high - low).max() / (BOX_GROWTH * CROP_GROWTH)
        return np.repeat(self._points[None], len(crops), 0), np.full(len(crops), CERTAIN, np.float32)


class Instant(Executor):
    """An executor without a network: every unit at even odds, no sentences."""

    name, device, precision, max_batch = "none", "none", "fp32", 16

    def __init__(self, units: int) -> None:
        self.units = units

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        return {"log_odds": np.zeros((len(crops), self.units), np.float32)}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        raise NotImplementedError

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        return memory

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return parts[0]

    def close(self) -> None: ...


def open_runtime(bundle: Bundle) -> Runtime:
    return Runtime(bundle, Instant(len(bundle.manifest.units)))


def open_finder(bundle: Bundle, engine: Engine) -> FaceFinder:
    detector = SameFaces(None, None, "the first answer, repeated")
    landmarks = SamePoints(embedded() / "landmarks.onnx")
    return FaceFinder(engine.settings.faces, detector, landmarks, bundle.manifest.side)


def main() -> int:
    flags = parser().parse_args()
    settings = read_engine(tuple(flags.sources), flags.config, flags)
    with Engine(settings, open_runtime=open_runtime, open_finder=open_finder) as reports:
        for _ in reports:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
