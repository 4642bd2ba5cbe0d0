"""Recorded video, from a file or an address: every frame, in order, to the end or to the damage."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from ..packets import Ended, Frame, Origin
from .base import Context
from .decoding import Damaged, Decoder, reason
from .recorded import recorded, unreadable


class FileSource:
    live = False
    stills = False

    def __init__(self, context: Context, path: Path | None = None) -> None:
        self.context, self.path = context, path
        self.frames_known: int | None = None
        if path is not None:  # told before anything starts: a wrong name, and the length for whoever shows progress
            with self._open() as decoder:
                self.frames_known = decoder.frames
                self._know_duration(decoder)

    @property
    def origin(self) -> Origin:
        counters = self.context.counters
        whole = self.context.settings.duration is None and not self.context.settings.start
        return Origin(counters.stream, self.path, counters.duration_s, self.frames_known if whole else None)

    def frames(self) -> Generator[Frame | Ended, None, None]:
        with self._open() as decoder:
            yield from recorded(decoder, self.context)

    def _open(self) -> Decoder:
        settings = self.context.settings
        address = str(self.path) if self.path is not None else self.context.address
        try:
            return Decoder(
                address,
                open_timeout_s=settings.open_timeout,
                read_timeout_s=settings.read_timeout,
                hwaccel=settings.hwaccel,
                threads=settings.decode_threads,
            )
        except (Damaged, OSError, ValueError) as error:
            raise unreadable(self.context, reason(error)) from error

    def _know_duration(self, decoder: Decoder) -> None:
        settings, known = self.context.settings, decoder.duration_s
        left = None if known is None else max(0.0, known - settings.start)
        asked = settings.duration
        self.context.counters.duration_s = left if asked is None or (left is not None and left < asked) else asked
