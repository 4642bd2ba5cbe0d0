"""Cameras and network streams: the newest frame counts, and a lost connection is opened again."""

from __future__ import annotations

import glob
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..packets import Ended, Frame, Origin
from .addresses import is_list
from .base import Context, Selection, Unreadable, stamp
from .decoding import Damaged, Decoder, reason

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
PIECE_S = 20.0  # read timeout of HLS: nothing arrives between two segments, usually for six to ten seconds

# FFmpeg reads the beginning of a stream to learn its format: 5 s by default, and every picture would be late by that
# much. One second contains a key frame of most cameras; FFmpeg reads on where it does not.
COMMON = {"fflags": "nobuffer", "analyzeduration": "1000000"}
OPTIONS = {
    "rtsp": {"rtsp_transport": "tcp"},
    "udp": {"fifo_size": "100000", "overrun_nonfatal": "1"},
}


@dataclass
class Backoff:
    """0.5, 1, 2, 4 ... 30 seconds; None when the allowed number of consecutive attempts is used up.

    A connection that brought pictures, however short, is no failure: after it the delays start again from the first.
    """

    limit: int | None = None
    failures: int = 0

    def next_delay(self, connected: bool) -> float | None:
        """`connected`: the last attempt brought pictures."""
        if connected:
            self.failures = 0
        if self.limit is not None and self.failures >= self.limit:
            return None
        delay = min(FIRST_DELAY_S * 2.0 ** min(self.failures, 10), LONGEST_DELAY_S)
        self.failures += 1
        return delay


class RisingTime:
    """One timeline through all connections: each starts anywhere, so the time that passed between them is added."""

    def __init__(self) -> None:
        self.last = 0.0  # seconds
        self.last_ns = 0  # the same moment on the monotonic clock; 0 before the first picture
        self._shift: float | None = None

    def reconnected(self) -> None:
        self._shift = None

    def at(self, pts: float, now_ns: int) -> float:
        if self._shift is None or (self.last_ns and pts + self._shift <= self.last):  # or the sender's clock jumped
            passed = self.last + (now_ns - self.last_ns) / 1e9
            self._shift = passed - pts if self.last_ns else 0.0
        self.last, self.last_ns = pts + self._shift, now_ns
        return self.last


class LiveSource:
    live = True
    stills = False

    def __init__(self, context: Context, *, camera: bool = False) -> None:
        self.context, self.camera = context, camera
        self._index = 0
        self._time = RisingTime()
        self._selection = Selection(context.settings)
        self._over = False  # --duration has been reached
        if camera and sys.platform.startswith("linux") and not Path(self._camera()[0]).exists():
            raise self._no_camera("there is no such device")  # before any network is loaded

    @property
    def origin(self) -> Origin:
        return Origin(self.context.stream, duration_s=self.context.settings.duration)

    def frames(self) -> Generator[Frame | Ended, None, None]:
        counters, stopping = self.context.counters, self.context.stopping
        backoff = Backoff(self.context.settings.reconnect)
        while not stopping.is_set():
            began_ns = time.monotonic_ns()
            self._time.reconnected()
            try:
                with self._open() as decoder:
                    yield from self._connection(decoder)
                    if stopping.is_set():
                        return
                    if self._over or (decoder.complete and not self.camera):
                        yield Ended(self.context.stream, "finished")
                        return
                why = "the sender ended the stream"
            except Damaged as error:
                why = reason(error)
                if self.camera and not self._index:
                    raise self._no_camera(why) from error
            delay = backoff.next_delay(connected=self._time.last_ns > began_ns)
            if delay is None:
                yield Ended(self.context.stream, "lost", f"Source '{self.context.stream}' was lost: {why}.")
                return
            counters.state = "reconnecting" if self._index else "opening"
            counters.note = f"{why}; trying again in {delay:g} s"
            counters.reconnects += 1
            stopping.wait(delay)

    def _connection(self, decoder: Decoder) -> Generator[Frame, None, None]:
        counters = self.context.counters
        for picture in decoder:
            if self.context.stopping.is_set():
                return
            pts = self._time.at(picture.pts, time.monotonic_ns())
            if not self._index:
                self._selection.begin = pts
            counters.state, counters.note = "playing", ""
            if self._selection.over(pts):
                self._over = True
                return
            index, self._index = self._index, self._index + 1
            if self._selection.wants(index, pts):
                counters.height, counters.width = picture.pixels.shape[:2]
                counters.frames_in += 1
                yield Frame(stamp(self.context.stream, index, pts, picture.decode_ms), picture.pixels)

    def _open(self) -> Decoder:
        settings, address = self.context.settings, self.context.address
        options: dict[str, str] = {}
        format = None
        if self.camera:
            address, format, options = self._camera()
        else:
            options = COMMON | OPTIONS.get(address.partition("://")[0].lower(), {})
            if is_list(address):  # FFmpeg would drop the first segment, which it reads to learn the format
                del options["fflags"]
        return Decoder(
            address,
            live=True,
            format=format,
            options=options,
            open_timeout_s=settings.open_timeout,
            read_timeout_s=max(settings.read_timeout, PIECE_S) if is_list(address) else settings.read_timeout,
            hwaccel=settings.hwaccel,
            threads=settings.decode_threads,
        )

    def _no_camera(self, why: str) -> Unreadable:
        names = ", ".join(sorted(glob.glob("/dev/video*")))
        others = (
            f" This machine has: {names}." if names else " This machine has none." * sys.platform.startswith("linux")
        )
        return Unreadable(
            f"Camera '{self.context.address}' cannot be opened: {why}.{others} "
            "Is it plugged in, and is no other program using it?"
        )

    def _camera(self) -> tuple[str, str, dict[str, str]]:
        """Address, FFmpeg's input device and its options on this system."""
        settings, address = self.context.settings, self.context.address
        options = {"framerate": f"{settings.camera_fps:g}"} if settings.camera_fps else {}
        if settings.camera_size:
            options["video_size"] = settings.camera_size
        if sys.platform == "darwin":
            return address, "avfoundation", {"framerate": "30"} | options
        if sys.platform == "win32":
            return f"video={address}", "dshow", options
        return (f"/dev/video{address}" if address.isdecimal() else address), "v4l2", options
