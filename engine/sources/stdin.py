"""Video from standard input, read as it arrives. A stop is noticed while nothing arrives."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Generator
from pathlib import Path
from threading import Event

from ..packets import Ended, Frame, Origin
from .base import Context
from .decoding import Damaged, Decoder, reason
from .recorded import recorded, unreadable

LOOK_S = 0.25  # interval at which a silent input checks whether it should stop


class StdinSource:
    stills = False

    def __init__(self, context: Context) -> None:
        self.context = context
        self.live = bool(context.settings.live)
        context.hint = "MKV, MPEG-TS and MP4 with the index first can be piped; others need the file: < video.mp4."

    @property
    def origin(self) -> Origin:
        files = (Path("/dev/stdin"),) if seekable() else ()
        return Origin(self.context.stream, duration_s=self.context.settings.duration, files=files)

    def frames(self) -> Generator[Frame | Ended, None, None]:
        settings = self.context.settings
        try:
            decoder = Decoder(
                (Seekable if seekable() else Readable)(
                    sys.stdin.fileno(), self.context.stopping, settings.read_timeout
                ),
                live=self.live,
                hwaccel=settings.hwaccel,
                threads=settings.decode_threads,
            )
        except (Damaged, OSError, ValueError) as error:
            if self.context.stopping.is_set():
                return
            raise unreadable(self.context, reason(error)) from error
        with decoder:
            yield from recorded(decoder, self.context)


class Readable:
    """The file object that PyAV reads from."""

    def __init__(self, descriptor: int, stopping: Event, timeout_s: float) -> None:
        self._descriptor, self._stopping, self._timeout_s = descriptor, stopping, timeout_s

    def read(self, size: int) -> bytes:
        until = time.monotonic() + self._timeout_s
        while not self._stopping.is_set():
            if select.select([self._descriptor], [], [], LOOK_S)[0]:
                return os.read(self._descriptor, size)
            if time.monotonic() > until:
                raise TimeoutError(f"nothing arrived on standard input for {self._timeout_s:g} s")
        return b""


class Seekable(Readable):
    """Standard input that is a file (`< video.mp4`)."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)


def seekable() -> bool:
    try:
        return stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except OSError:
        return False
