"""All sinks of a run behind one lock, and the text messages for sentences that changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from ..packets import StreamFailed
from ..wire import End, Report, Status, Text
from .base import KNOWN_TRACKS, Pixels, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

WAIT_STEP_S = 0.02
ORDERLY = (KeyboardInterrupt, GeneratorExit, StreamFailed)  # ends after which files are complete


class Changes:
    """Finds the sentences that changed in a report, and numbers the messages of text/<stream>."""

    def __init__(self) -> None:
        self._last: dict[str, dict[int, tuple[str, dict[str, str]]]] = {}
        self._next: dict[str, int] = {}

    def __call__(self, report: Report) -> list[Text]:
        changed: list[Text] = []
        for face in report.faces:
            if face.text is None:
                continue
            last = self._last.setdefault(report.stream, {})
            now = (face.text, face.why)
            if last.get(face.track) == now:
                continue
            last.pop(face.track, None)  # the newest go last, so that the oldest are forgotten first
            last[face.track] = now
            if len(last) > KNOWN_TRACKS:
                del last[next(iter(last))]
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
        self._lost = False

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
            failed = kind is not None and (self._lost or not issubclass(kind, ORDERLY))
            for sink in reversed(entered):
                sink.incomplete = failed
                try:
                    sink.__exit__(kind, error, trace)
                except Exception as failure:  # the others must still be closed; the first error is raised
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
            self._lost = self._lost or end.reason == "lost"
            end = msgspec.structs.replace(end, left=len(self._running))
            for sink in self.sinks:
                sink.end(end)

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until every sink is ready, or `stopped()`."""
        while not stopped():
            with self._lock:
                if all(sink.ready() for sink in self.sinks):
                    return
            time.sleep(WAIT_STEP_S)  # not a wait on the socket: status messages have to pass meanwhile
