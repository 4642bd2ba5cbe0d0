"""Recorded video, from a file or an address: every frame, in order, to the end or to the damage."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from vlfau.models.errors import UserError

from ..packets import Ended, Frame, Origin
from .base import Context, Pace, Selection, stamp
from .decoding import Damaged, Decoder, reason


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


def unreadable(context: Context, why: str) -> UserError:
    return UserError(f"Source '{context.stream}' cannot be read as video: {why.rstrip('.')}. {context.hint}")


def recorded(decoder: Decoder, context: Context) -> Generator[Frame | Ended, None, None]:
    """Every wanted frame of an open container, then how it ended."""
    settings, counters = context.settings, context.counters
    selection = Selection(settings, begin=settings.start)
    pace = Pace(context) if settings.realtime else None
    index, error = 0, ""
    try:
        decoder.seek(settings.start)
        for picture in decoder:
            if context.stopping.is_set():
                return
            if picture.pts < settings.start - 1e-6:
                continue
            if selection.over(picture.pts):
                break
            if selection.wants(index, picture.pts):
                if pace is not None:
                    pace.wait_for(picture)
                counters.state = "playing"
                counters.height, counters.width = picture.pixels.shape[:2]
                counters.frames_in += 1
                yield Frame(stamp(context.stream, index, picture.pts, picture.decode_ms), picture.pixels)
            index += 1
    except (Damaged, OSError, ValueError) as failure:
        error = reason(failure)
    if decoder.damaged:
        counters.note = f"{decoder.damaged} damaged packets were skipped"
    if not index and (error or decoder.damaged or not settings.start):
        raise unreadable(context, error or "it holds no readable picture")
    told = f"Source '{context.stream}' is damaged after frame {index - 1}: {error}." if error else ""
    yield Ended(context.stream, "error" if error else "finished", told)
