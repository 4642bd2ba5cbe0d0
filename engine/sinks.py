"""Where reports go: what every sink offers, and all sinks of a run as one. Leaves each format to its own module.

Lateness and failure, in words: sinks are written in turn on the caller's thread, so a slow file slows a file source (no
frame may be lost) and makes a live source drop (counted). Subscribers never slow anything. The first sink that fails
stops the run with its error; the others are closed properly, and every finished row stays readable.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from vlfau.models.errors import UserError

from .wire import End, Report, Status, Text

if TYPE_CHECKING:
    from typing_extensions import Self

    from .output_settings import OutputSettings

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB, upright, as the report's boxes count

WAIT_STEP_S = 0.02
KNOWN_TRACKS = 256  # tracks of a stream whose last sentence is remembered


@dataclass(frozen=True, slots=True)
class Origin:
    """A stream as the sinks need to know it."""

    stream: str
    file: Path | None = None  # a file that can be opened again for its sound; None for live sources
    duration_s: float | None = None
    frames: int | None = None


class Sink:
    """One way out. Entered, used and left on one thread, or under one lock."""

    needs_pixels: ClassVar[bool] = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> bool:
        """False holds the start, for example for subscribers that are awaited."""
        return True

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        """Every frame. `pixels` is there if `needs_pixels`; it must not be drawn into."""

    def text(self, text: Text) -> None:
        """A sentence changed."""

    def status(self, status: Status) -> None:
        """Every second."""

    def end(self, end: End) -> None:
        """A stream is over; others may go on."""

    def close(self) -> None:
        """Everything is over. Called once, also after a failure."""


class Changes:
    """Finds the sentences that changed in a report. Counts the sequence of text/<stream>."""

    def __init__(self) -> None:
        self._said: dict[str, dict[int, tuple[str, dict[str, str]]]] = {}
        self._next: dict[str, int] = {}

    def __call__(self, report: Report) -> list[Text]:
        changed: list[Text] = []
        for face in report.faces:
            if face.text is None:
                continue
            said = self._said.setdefault(report.stream, {})
            now = (face.text, face.why)
            if said.get(face.track) == now:
                continue
            said.pop(face.track, None)  # the newest go to the end, so that the oldest are forgotten first
            said[face.track] = now
            if len(said) > KNOWN_TRACKS:
                del said[next(iter(said))]
            seq = self._next.get(report.stream, 0)
            self._next[report.stream] = seq + 1
            changed.append(
                Text(
                    seq,
                    report.stream,
                    frame=report.frame,
                    pts=report.pts,
                    captured_ns=report.captured_ns,
                    track=face.track,
                    text=face.text,
                    why=face.why,
                )
            )
        return changed


class Sinks:
    """All sinks of a run. `write`, `status` and `end` may come from different threads; a lock puts them in order."""

    def __init__(self, sinks: Sequence[Sink], streams: Sequence[str] = ()) -> None:
        self.sinks = list(sinks)
        self.needs_pixels = any(sink.needs_pixels for sink in self.sinks)
        self._running = set(streams)
        self._changes = Changes()
        self._lock = threading.Lock()
        self._entered: list[Sink] = []

    def __enter__(self) -> Self:
        try:
            for sink in self.sinks:
                self._entered.append(sink.__enter__())
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            entered, self._entered = self._entered, []
            first = error
            for sink in reversed(entered):
                try:
                    sink.__exit__(kind, error, trace)
                except Exception as failure:  # all the others must still be closed; the first error is the one told
                    first = first or failure
            if first is not None and first is not error:
                raise first

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        with self._lock:
            texts = self._changes(report)
            for sink in self.sinks:
                sink.write(report, pixels if sink.needs_pixels else None)
                for text in texts:
                    sink.text(text)

    def status(self, status: Status) -> None:
        with self._lock:
            for sink in self.sinks:
                sink.status(status)

    def end(self, end: End) -> None:
        with self._lock:
            self._running.discard(end.stream)
            end = msgspec.structs.replace(end, left=len(self._running))
            for sink in self.sinks:
                sink.end(end)

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Hold until the asked number of subscribers has joined, or `stopped()`."""
        while not stopped():
            with self._lock:
                if all(sink.ready() for sink in self.sinks):
                    return
            time.sleep(WAIT_STEP_S)  # not a wait on the socket: the status has to get through meanwhile


def open_sinks(settings: OutputSettings, units: Sequence[str], origins: Sequence[Origin]) -> Sinks:
    """The sinks that the settings ask for, not yet entered. `units` are the bundle's, in its order."""
    sinks: list[Sink] = []
    files, screen = settings.files, settings.screen
    streams = [origin.stream for origin in origins]
    if settings.publish.bind.lower() not in ("", "none"):
        from .publish import Publisher

        sinks.append(Publisher(settings.publish))
    for path in (files.csv, files.jsonl, files.parquet, files.render, files.subtitles):
        _check_path(path, files.overwrite)
    if files.jsonl:
        from .tables import JsonLines

        sinks.append(JsonLines(files.jsonl))
    if files.csv:
        from .tables import CsvTable

        sinks.append(CsvTable(files.csv, units))
    if files.parquet:
        from .parquet import ParquetTable

        sinks.append(ParquetTable(files.parquet, units))
    if files.subtitles:
        from .subtitles import Subtitles

        sinks.append(Subtitles(files.subtitles, streams))
    if files.render:
        from .render import Render

        sinks.append(Render(files.render, origins))
    if screen.metrics:
        from .prometheus import Metrics

        sinks.append(Metrics(screen.metrics))
    if screen.show:
        from .preview import Preview

        sinks.append(Preview())
    if screen.demo and not screen.quiet:
        from .demo import DemoText

        sinks.append(DemoText())
    if not screen.quiet:
        from .progress import open_progress

        sinks.append(open_progress(origins))
    return Sinks(sinks, streams)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turns the system's word on a file into a sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise file_error(path, error) from error


def file_error(path: Path, error: OSError) -> UserError:
    """What is to be said about a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"The disk is full: {path} cannot grow. What was written stays; free some space and run again."
        )
    return UserError(
        f"Cannot write {path}: {os.strerror(error.errno) if error.errno else error}. Choose another place."
    )


def per_stream(path: Path, stream: str, streams: Sequence[str]) -> Path:
    """One file per stream where a format cannot hold several: out.mp4 becomes out.<stream>.mp4."""
    return path if len(streams) <= 1 else path.with_name(f"{path.stem}.{stream}{path.suffix}")


def _check_path(path: Path | None, overwrite: bool) -> None:
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"The folder {path.parent} for {path.name} does not exist. Create it first.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the name of a file.")
    if not overwrite and path.exists():
        raise UserError(f"{path} exists. Remove it, choose another name, or leave out --no-overwrite.")
