"""Frames of a recording, from a file or a pipe: every one in order, up to its end or its damage."""

from __future__ import annotations

from collections.abc import Generator

from ..packets import Ended, Frame
from .base import Context, Pace, Selection, Unreadable, stamp
from .decoding import Damaged, Decoder, reason


def unreadable(context: Context, why: str) -> Unreadable:
    return Unreadable(f"Source '{context.stream}' cannot be read as video: {why.rstrip('.')}. {context.hint}")


def recorded(decoder: Decoder, context: Context) -> Generator[Frame | Ended, None, None]:
    """Every selected frame of an open container, then how it ended."""
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
                    pace.wait_for(picture.pts)
                counters.state = "playing"
                counters.height, counters.width = picture.pixels.shape[:2]
                counters.frames_in += 1
                yield Frame(stamp(context.stream, index, picture.pts, picture.decode_ms), picture.pixels)
            index += 1
    except Damaged as failure:
        error = reason(failure)
    if decoder.damaged:
        counters.note = f"{decoder.damaged} damaged packets were skipped"
    if not index and (error or decoder.damaged or not settings.start):
        raise unreadable(context, error or "it holds no readable frame")
    message = f"Source '{context.stream}' is damaged after frame {index - 1}: {error}." if error else ""
    yield Ended(context.stream, "error" if error else "finished", message)
