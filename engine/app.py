"""The wiring: which parts there are, in which order, and how they begin and end. Does none of their work.

source (a thread each) -> find faces (all streams, or a share of them) -> predict (all) -> publish -> whoever iterates
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError

from .packets import Ended, Faces, Frame, Outcome
from .pipeline import Pipeline, read
from .publishing import publish
from .settings import EngineSettings, for_python
from .sinks import open_sinks
from .sinks.group import Sinks
from .sources import open_sources
from .sources.base import Source
from .status import StatusTicker
from .wire import Report

if TYPE_CHECKING:
    from typing_extensions import Self

    from vlfau.models.runtimes.base import Runtime

    from .tracking.find import FaceFinder

CORES_A_FINDER = 4  # one thread finds the faces of all streams, until there are this many cores for a second
NEWEST = 1  # frames that wait of a live source: the newest
QUEUE = 4  # packets between stages: enough to keep all busy and to fill a batch


class StreamFailed(Exception):
    """A source ended badly after it had given frames; everything it gave was published."""


def open_engine(*sources: str, **settings: Any) -> Engine:
    """`with open_engine("video.mp4") as reports: for report in reports: ...`

    Keywords are the names of the command line flags (`detect_every=5`, `explain="never"`, `jsonl=Path("out.jsonl")`).
    Nothing is printed, and nothing is published unless `bind` is given.
    """
    return Engine(for_python(sources, settings))


class Engine:
    """Enter to start, iterate over the reports of all streams, leave to stop. Used once."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        threads: bool = True,
        open_runtime: Callable[[Bundle], Runtime] | None = None,
        open_finder: Callable[[Bundle, Engine], FaceFinder] | None = None,
    ) -> None:
        """`threads` false runs the same stages in one chain; the openers are for whoever brings own networks."""
        self.settings, self._threads = settings, threads
        self._open_runtime = open_runtime or partial(_runtime, settings)
        self._open_finder = open_finder or _finder
        self.stopping = threading.Event()
        self.sources: list[Source] = open_sources(settings.sources, settings.source, self.stopping)
        self.bundle = open_bundle(settings.predict.model)
        self.counters = {source.context.counters.stream: source.context.counters for source in self.sources}
        self.sinks: Sinks = open_sinks(settings.output, self.bundle.manifest.units, [s.origin for s in self.sources])
        self.runtime_name, self.device_name, self.detector_name = "", "", ""
        self._failures: list[str] = []
        self._finders = max(1, min(len(self.sources), (os.cpu_count() or 1) // CORES_A_FINDER)) if threads else 1
        self._unloaded = self._finders + 1  # networks that are not there yet
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stack = ExitStack()
        self._reports: Iterable[Report] = ()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # what is open when a later step fails is closed at once
            stack.enter_context(self.sinks)
            stack.push(self._end)
            ticker = stack.enter_context(StatusTicker(self.counters, self.sinks, self._status))
            pipeline = self._pipeline() if self._threads else None
            ticker.pipeline = pipeline
            self.sinks.wait(self.stopping.is_set)
            self._reports = stack.enter_context(pipeline) if pipeline is not None else self._chain()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._stack.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Report]:
        yield from self._reports
        if self._failures:
            raise StreamFailed(" ".join(self._failures))

    def stop(self) -> None:
        """From any thread: the loop over the reports ends soon."""
        self.stopping.set()
        self._ready.set()

    def _loaded_one(self) -> None:
        with self._lock:
            self._unloaded -= 1
            if not self._unloaded:
                self._ready.set()

    def _frames(self, source: Source) -> Iterator[Frame | Ended]:
        """Nothing is taken in before somebody can look at it: a camera's first frames would be old by then."""
        self._ready.wait()
        yield from source.frames()

    # The stages. Each opens its network on its own thread, so that both are loaded at the same time.

    def _find(self, items: Iterable[Frame | Ended]) -> Generator[Faces | Ended, None, None]:
        from .tracking.find import find_faces

        try:
            finder = self._open_finder(self.bundle, self)
        finally:  # also where it failed: nobody is to wait for it any more
            self._loaded_one()
        yield from find_faces(items, finder, streams=len(self.sources))

    def _predict(self, items: Iterable[Faces | Ended]) -> Generator[Outcome | Ended, None, None]:
        from .prediction.predict import Predictor, predict_faces

        try:
            opened = self._open_runtime(self.bundle)
        finally:
            self._loaded_one()
        with opened as runtime:
            self.runtime_name = f"{runtime.executor.name} {runtime.executor.precision}"
            self.device_name = runtime.executor.device
            late = [s.origin.stream for s in self.sources if s.live or self.settings.source.realtime]
            every = self.settings.output.publish.why == "all"
            yield from predict_faces(items, Predictor(runtime, self.settings.predict, all_units=every, late_text=late))

    def _publish(self, items: Iterable[Outcome | Ended]) -> Generator[Report, None, None]:
        yield from publish(items, self.sinks, self.counters, self._failures)

    def _pipeline(self) -> Pipeline:
        pipeline = Pipeline(self.stopping)
        frames = []
        for source in self.sources:
            counters = source.context.counters
            channel = pipeline.add(
                f"read-{counters.stream}",
                read,
                self._frames(source),
                capacity=NEWEST if source.live else QUEUE,
                lossy=source.live,
            )
            counters.late = partial(getattr, channel, "dropped")
            frames.append(channel)
        faces = [
            pipeline.add(f"find-{k}", self._find, frames[k :: self._finders], capacity=QUEUE)
            for k in range(self._finders)
        ]
        outcomes = pipeline.add("predict", self._predict, faces, capacity=QUEUE)
        pipeline.add("publish", self._publish, [outcomes], capacity=QUEUE)
        return pipeline

    def _chain(self) -> Iterable[Report]:
        """The same without threads: one source after the other."""
        frames = (item for source in self.sources for item in self._frames(source))
        return self._publish(self._predict(self._find(frames)))

    def _status(self) -> dict[str, Any]:
        manifest = self.bundle.manifest
        return {
            "runtime": self.runtime_name,
            "device": self.device_name,
            "model": manifest.name,
            "detector": self.detector_name,
            "tiers": dict(zip(manifest.units, manifest.tiers)),
        }

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Streams that are still open when everything stops."""
        stopped = error is None or isinstance(error, (KeyboardInterrupt, GeneratorExit))
        for counters in self.counters.values():
            if not counters.ended:
                if (waiting := counters.frames_in - counters.frames_out - counters.dropped) > 0:
                    counters.drop("stopped", waiting)  # in flight when it ended; all threads are gone by now
                self.sinks.end(counters.end("stopped" if stopped else "error", "" if stopped else str(error)))


def _runtime(settings: EngineSettings, bundle: Bundle) -> Runtime:
    from vlfau.models.runtimes import open_runtime

    asked = settings.predict
    return open_runtime(
        bundle,
        asked.runtime,
        device=asked.device,
        precision=asked.precision,
        threads=asked.threads,
        say=partial(_say, settings),
    )


def _say(settings: EngineSettings, line: str) -> None:
    if not settings.output.screen.quiet:
        print(line, file=sys.stderr, flush=True)


def _finder(bundle: Bundle, engine: Engine) -> FaceFinder:
    from vlfau.models.faces import open_detector
    from vlfau.models.faces.landmarks import open_landmarks

    from .tracking.find import FaceFinder

    faces = engine.settings.faces
    detector = open_detector(faces.detector, faces.detector_model, size=faces.detector_size)
    engine.detector_name = detector.reason
    _say(engine.settings, f"faces by {detector.reason}")
    return FaceFinder(
        faces,
        detector,
        detector.landmarks or open_landmarks(),  # the embedded detector has loaded it already
        bundle.manifest.side,
        stills=[source.origin.stream for source in engine.sources if source.stills],
        keep_pixels=engine.sinks.needs_pixels,
    )


__all__ = ["Engine", "StreamFailed", "UserError", "open_engine"]
