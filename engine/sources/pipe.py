"""Video from standard input or a named pipe, read as it arrives. A stop is noticed while nothing arrives."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from vlfau.models.errors import UserError

from ..packets import Ended, Frame, Origin
from .base import Context
from .decoding import Damaged, Decoder, reason
from .recorded import recorded, unreadable

LOOK_S = 0.25  # interval at which a silent input checks whether it should stop


class PipeSource:
    stills = False

    def __init__(self, context: Context, path: Path | None = None) -> None:
        """Without a path it is standard input."""
        self.context, self.path = context, path
        self.live = bool(context.settings.live)
        if path is None and sys.stdin is None:
            raise UserError("Source '-' is standard input, which is closed. Pipe a video into it, or name a file.")
        files = "; others need the file: < video.mp4." if path is None else "."
        context.hint = f"MKV, MPEG-TS and MP4 with the index first can be piped{files}"

    @property
    def origin(self) -> Origin:
        return Origin(self.context.stream, duration_s=self.context.settings.duration, files=self._files())

    def frames(self) -> Generator[Frame | Ended, None, None]:
        settings = self.context.settings
        try:
            with self._descriptor() as descriptor:
                readable = Seekable if seekable(descriptor) else Readable
                decoder = Decoder(
                    readable(descriptor, self.context.stopping, settings.open_timeout, settings.read_timeout),
                    live=self.live,
                    hwaccel=settings.hwaccel,
                    threads=settings.decode_threads,
                )
                with decoder:
                    yield from recorded(decoder, self.context)
        except (Damaged, OSError) as error:
            if not self.context.stopping.is_set():
                raise unreadable(self.context, reason(error)) from error

    def _files(self) -> tuple[Path, ...]:
        if self.path is not None:
            return (self.path,)
        try:
            return (Path("/dev/stdin"),) if seekable(sys.stdin.fileno()) else ()
        except OSError:
            return ()

    @contextmanager
    def _descriptor(self) -> Iterator[int]:
        if self.path is None:
            yield sys.stdin.fileno()
            return
        # without blocking: opening a named pipe would otherwise wait for its writer, deaf to a stop
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class Readable:
    """The file object that PyAV reads from."""

    def __init__(self, descriptor: int, stopping: Event, open_timeout_s: float, read_timeout_s: float) -> None:
        self._descriptor, self._stopping = descriptor, stopping
        self._timeout_s, self._read_timeout_s = max(open_timeout_s, read_timeout_s), read_timeout_s

    def read(self, size: int) -> bytes:
        until = time.monotonic() + self._timeout_s
        while not self._stopping.is_set():
            if select.select([self._descriptor], [], [], LOOK_S)[0]:
                self._timeout_s = self._read_timeout_s
                return os.read(self._descriptor, size)
            if time.monotonic() > until:
                raise TimeoutError(f"nothing arrived for {self._timeout_s:g} s")
        return b""


class Seekable(Readable):
    """Standard input that is a file (`< video.mp4`)."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)


def seekable(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
