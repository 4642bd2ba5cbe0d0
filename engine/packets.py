"""The packets that pass from stage to stage. Axes: F faces in a frame, S crop side.

Two clocks: `captured_ns` is Unix time and may jump with the computer's clock; latency is measured on `monotonic_ns`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .wire import Face


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where and when a frame was taken. It outlives the pixels, and latency is measured from it."""

    stream: str
    index: int  # 0, 1, 2... in decode order; a gap is a frame that was dropped or skipped
    pts: float  # seconds of video time, from the container
    captured_ns: int  # Unix nanoseconds when the decoder handed the frame over
    monotonic_ns: int  # the same moment on the clock that never jumps
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    stamp: Stamp
    pixels: NDArray[np.uint8]  # (height, width, 3) RGB, upright, square pixels; rows may be padded


@dataclass(frozen=True, slots=True)
class Ended:
    """The last packet of a source; it passes all stages after the frames."""

    stream: str
    reason: str  # finished, lost, error
    error: str = ""


class StreamFailed(Exception):
    """Sources failed, but not the whole run: all frames that there were have been published."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of one frame, aligned; a frame without faces travels on with F = 0."""

    stamp: Stamp
    tracks: NDArray[np.int64]  # (F,) stable while a face stays in view
    boxes: NDArray[np.float32]  # (F, 4) x0 y0 x1 y1 in frame pixels
    landmarks: NDArray[np.float32]  # (F, 5, 2) eye centres, nose tip, mouth corners, in frame pixels
    scores: NDArray[np.float32]  # (F,) presence, 0..1
    poses: NDArray[np.float32]  # (F, 3) yaw, pitch, clockwise roll in degrees; nan where not solved
    quality: NDArray[np.float32]  # (F,) 0..1
    valid: NDArray[np.bool_]  # (F,)
    crops: NDArray[np.uint8]  # (F, S, S, 3) RGB
    detect_ms: float = 0.0  # from capture until the faces were found
    align_ms: float = 0.0  # from then until this packet was complete
    ready_ns: int = 0  # monotonic nanoseconds at that moment
    pixels: NDArray[np.uint8] | None = None  # only kept if a sink shows them

    def __post_init__(self) -> None:
        fields = self.boxes, self.landmarks, self.scores, self.poses, self.quality, self.valid, self.crops
        if any(len(field) != len(self.tracks) for field in fields):
            raise ValueError(
                f"Faces of frame {self.stamp.index}: every field needs one row per face, "
                f"got {[len(self.tracks), *map(len, fields)]}."
            )

    def __len__(self) -> int:
        return len(self.tracks)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What will be published about one frame."""

    stamp: Stamp
    faces: list[Face]
    detect_ms: float
    align_ms: float
    predict_ms: float
    explain_ms: float
    pixels: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What sinks need to know about a stream."""

    stream: str
    file: Path | None = None  # a file that can be opened again for its sound; None for live sources
    duration_s: float | None = None
    frames: int | None = None
    files: tuple[Path, ...] = ()  # all local files that are read
