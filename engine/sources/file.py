"""Recorded video, from a file or an address."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from ..packets import Ended, Frame, Origin
from .base import Context, Unreadable
from .decoding import Damaged, Decoder, reason
from .recorded import recorded, unreadable


class FileSource:
    live = False
    stills = False

    def __init__(self, context: Context, path: Path | None = None) -> None:
        self.context, self.path = context, path
        self.frame_count: int | None = None
        if path is None:
            context.hint = "Is the address right, and is a video there?"
            return
        try:  # before anything starts: finds what cannot be read, and the length for progress displays
            with self._open() as decoder:
                self.frame_count = decoder.frames
                self._note_duration(decoder)
        except Unreadable:
            if context.alone:
                raise

    @property
    def origin(self) -> Origin:
        counters = self.context.counters
        whole = self.context.settings.duration is None and not self.context.settings.start
        files = (self.path or Path(self.context.address),)
        return Origin(counters.stream, self.path, counters.duration_s, self.frame_count if whole else None, files)

    def frames(self) -> Generator[Frame | Ended, None, None]:
        with self._open() as decoder:
            yield from recorded(decoder, self.context)

    def _open(self) -> Decoder:
        settings = self.context.settings
        address = self.context.address if self.path is None else str(self.path)
        if self.path is not None and ":" in address:  # not an address: FFmpeg would take `http:x.mp4` for one
            address = f"file:{address}"
        try:
            return Decoder(
                address,
                open_timeout_s=settings.open_timeout,
                read_timeout_s=settings.read_timeout,
                hwaccel=settings.hwaccel,
                threads=settings.decode_threads,
            )
        except Damaged as error:
            raise unreadable(self.context, reason(error)) from error

    def _note_duration(self, decoder: Decoder) -> None:
        settings, whole = self.context.settings, decoder.duration_s
        lengths = [] if whole is None else [max(0.0, whole - settings.start)]
        lengths += [] if settings.duration is None else [settings.duration]
        self.context.counters.duration_s = min(lengths, default=None)
