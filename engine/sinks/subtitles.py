"""The sentences as captions that any player shows: WebVTT or SubRip, by the name of the file.

A caption lasts until its sentence changes. It is written when it ends, so a kill loses only the captions that are on
the screen at that moment. The times of a new run start again, so it keeps what a kill left under a dated name. Several
faces share a caption, one line each.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from vlfau.models.errors import UserError

from ..wire import Report
from .base import Pixels, Sink
from .files import GrowingFile, Say, per_stream, silent

if TYPE_CHECKING:
    from typing_extensions import Self

FORMATS = (".vtt", ".srt")
LAST_S = 0.04  # duration of the last frame in a stream of a single frame


class Subtitles(Sink):
    """One file per stream."""

    def __init__(self, path: Path, streams: Sequence[str], say: Say = silent) -> None:
        if path.suffix.lower() not in FORMATS:
            raise UserError(f"Unknown format of captions: {path.name}. Use a name that ends in .vtt or .srt.")
        self._path = path
        self._say = say
        self._streams = list(streams)
        self._captions: dict[str, OpenCaptions] = {}

    def __enter__(self) -> Self:
        try:
            for stream in self._streams:
                self._open(stream)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for captions in self._captions.values():
                captions.incomplete = self.incomplete
                if kind is None and not captions.path.exists():
                    captions.begin()
        finally:
            self.close()

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        captions = self._captions.get(report.stream) or self._open(report.stream)
        captions.show(report)

    def close(self) -> None:
        for captions in self._captions.values():
            try:
                captions.finish()
            finally:
                captions.close()

    def _open(self, stream: str) -> OpenCaptions:
        path = per_stream(self._path, stream, self._streams)
        self._captions[stream] = captions = OpenCaptions(path, self._say).__enter__()
        return captions


class OpenCaptions(GrowingFile):
    """The captions of one stream: cues that follow each other without overlap."""

    continues: ClassVar[bool] = False

    def __init__(self, path: Path, say: Say = silent) -> None:
        self._srt = path.suffix.lower() == ".srt"
        super().__init__(path, b"" if self._srt else b"WEBVTT\n\n", say)
        self._number = 0
        self._since = self._until = 0.0
        self._frame_s = LAST_S
        self._lines: tuple[str, ...] = ()

    def show(self, report: Report) -> None:
        self.begin()
        lines = _lines(report)
        step = report.pts - self._until
        if 0 < step < 1:
            self._frame_s = step
        if lines != self._lines or not 0 <= step < 1:  # a jump of the clock or a gap ends the cue before it
            self._write_cue(report.pts if 0 <= step < 1 else self._until + self._frame_s)
            self._since, self._lines = report.pts, lines
        self._until = report.pts

    def finish(self) -> None:
        self._write_cue(self._until + self._frame_s)
        self._lines = ()

    def _write_cue(self, end: float) -> None:
        if not self._lines or end <= self._since:
            return
        self._number += 1
        number = f"{self._number}\n" if self._srt else ""
        text = "\n".join(self._lines if self._srt else map(_escaped, self._lines))
        self.add(f"{number}{self._clock(self._since)} --> {self._clock(end)}\n{text}\n\n".encode())

    def _clock(self, seconds: float) -> str:
        whole_ms = max(round(seconds * 1000), 0)
        minutes, rest_ms = divmod(whole_ms, 60_000)
        comma = "," if self._srt else "."
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest_ms // 1000:02d}{comma}{rest_ms % 1000:03d}"


def _lines(report: Report) -> tuple[str, ...]:
    texts = [(face.track, face.text) for face in report.faces if face.text]
    return tuple(text if len(texts) == 1 else f"{track}: {text}" for track, text in texts)


def _escaped(text: str) -> str:
    return html.escape(text.replace("-->", "->"), quote=False)
