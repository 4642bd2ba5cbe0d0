"""The interface of sources, and what all of them share: their context, the choice of frames, real-time pace."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from vlfau.models.errors import UserError

from ..counters import Counters
from ..packets import Ended, Frame, Origin, Stamp
from ..settings import SourceSettings


@dataclass
class Context:
    """What a source is opened with."""

    address: str
    settings: SourceSettings
    counters: Counters
    stopping: Event
    hint: str = "Is it a complete video file of a known format?"  # ends the error message when it cannot be read
    alone: bool = True  # the only source of the run: the run ends if it cannot be read

    @property
    def stream(self) -> str:
        return self.counters.stream


class Unreadable(UserError):
    """A source that cannot be read. Others can go on."""


class Source(Protocol):
    """`frames` runs on the source's own thread and owns what it opens."""

    context: Context
    live: bool  # only the newest frame counts: a full channel drops its oldest
    stills: bool  # each image stands alone; no face is followed from one to the next

    @property
    def origin(self) -> Origin: ...

    def frames(self) -> Generator[Frame | Ended, None, None]: ...


@dataclass
class Selection:
    """Which frames are analysed: --start, --duration, --every, --max-fps. Index and time count per stream."""

    settings: SourceSettings
    begin: float = 0.0  # video time at which the selection starts
    _next_pts: float = field(default=float("-inf"))

    def wants(self, index: int, pts: float) -> bool:
        if index % self.settings.every:
            return False
        if self.settings.max_fps is None:
            return True
        period = 1 / self.settings.max_fps
        if (
            self._next_pts - 2 * period < pts < self._next_pts - 1e-6
        ):  # further back, the clock jumped: go on from there
            return False
        # stays on the grid, so that 30 -> 20 frames a second gives 20 and not 15
        self._next_pts = max(self._next_pts + period, pts + period / 2)
        return True

    def over(self, pts: float) -> bool:
        return self.settings.duration is not None and pts >= self.begin + self.settings.duration - 1e-6


class Pace:
    """Holds each frame until its time, counted from the first."""

    def __init__(self, context: Context) -> None:
        self._stopping = context.stopping
        self._zero: float | None = None  # monotonic seconds at pts 0
        self._last = 0.0

    def wait_for(self, pts: float) -> None:
        now = time.monotonic()
        if self._zero is None or not 0 <= pts - self._last < 10:  # the first frame, or the clock in the file jumped
            self._zero = now - pts
        self._last = pts
        if (early := self._zero + pts - now) > 0:
            self._stopping.wait(early)


def stamp(stream: str, index: int, pts: float, decode_ms: float) -> Stamp:
    return Stamp(stream, index, round(pts, 6), time.time_ns(), time.monotonic_ns(), decode_ms)
