"""What every source offers, and what it is given."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from ..counters import Counters
from ..packets import Ended, Frame, Origin, Stamp
from ..settings import SourceSettings


@dataclass
class Context:
    """What every source is given."""

    address: str
    settings: SourceSettings
    counters: Counters
    stopping: Event
    hint: str = "Is it a complete video file of a known format?"  # what the user is told when it cannot be read

    @property
    def stream(self) -> str:
        return self.counters.stream


class Source(Protocol):
    """frames() runs on the source's own thread and owns what it opens."""

    context: Context
    live: bool  # newest frame: a full channel forgets its oldest
    stills: bool  # each picture stands alone, nothing is followed from one to the next

    @property
    def origin(self) -> Origin: ...

    def frames(self) -> Generator[Frame | Ended, None, None]: ...


@dataclass
class Selection:
    """Which frames are looked at: --start, --duration, --every, --max-fps. Index and time are a stream's own."""

    settings: SourceSettings
    begin: float = 0.0  # the first wanted second
    _next_pts: float = field(default=float("-inf"))

    def wants(self, index: int, pts: float) -> bool:
        if index % self.settings.every:
            return False
        if self.settings.max_fps is None:
            return True
        period = 1 / self.settings.max_fps
        if (
            self._next_pts - 2 * period < pts < self._next_pts - 1e-6
        ):  # a clock that jumped back does not stop the video
            return False
        # keep to the grid, so that 30 -> 20 frames a second gives 20 and not 15
        self._next_pts = max(self._next_pts + period, pts + period / 2)
        return True

    def over(self, pts: float) -> bool:
        return self.settings.duration is not None and pts >= self.begin + self.settings.duration - 1e-6


class Pace:
    """Holds each frame until its time has come, counted from the first."""

    def __init__(self, context: Context) -> None:
        self._stopping = context.stopping
        self._zero: float | None = None  # monotonic seconds at pts 0
        self._last = 0.0

    def wait_for(self, pts: float) -> None:
        now = time.monotonic()
        if self._zero is None or not 0 <= pts - self._last < 10:  # the first, or the clock in the file jumped
            self._zero = now - pts
        self._last = pts
        if (early := self._zero + pts - now) > 0:
            self._stopping.wait(early)


def stamp(stream: str, index: int, pts: float, decode_ms: float) -> Stamp:
    return Stamp(stream, index, round(pts, 6), time.time_ns(), time.monotonic_ns(), decode_ms)
