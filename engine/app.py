"""Wires the stages of the engine together, starts them and stops them.

A frame's way: its source decodes it (`sources/`, one thread each); `tracking/find.py` finds, follows and aligns its
faces (one thread for all streams, more on machines with many cores); `prediction/predict.py` turns them into action
units and sentences (one thread); `publishing.py` numbers the report, hands it to every sink and yields it to the
caller.
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
from vlfau.models.terminal import plain

from .packets import Ended, Faces, Frame, Outcome, StreamFailed
from .pipeline import Pipeline, read
from .publishing import publish
from .settings import EngineSettings, for_python
from .sinks import open_sinks
from .sinks.group import Sinks
from .sources import open_sources
from .sources.base import Source, Unreadable
from .status import StatusTicker
from .wire import Report

if TYPE_CHECKING:
    from typing_extensions import Self

    from vlfau.models.runtimes.base import Runtime

    from .tracking.find import FaceFinder

CORES_PER_FINDER = 4  # for each of these, one thread that finds faces; at least one, at most one per stream
NEWEST = 1  # frames queued from a live source
QUEUE = 4  # packets queued between stages: enough to keep all of them busy and to fill a batch


def open_engine(*sources: str, **settings: Any) -> Engine:
    """`with open_engine("video.mp4") as reports: for report in reports: ...`

    Keywords are named like the flags of vlfau-stream: `detect_every=5`, `explain="never"`, `jsonl=Path("out.jsonl")`.
    Nothing is printed, and nothing is published unless `bind` is given.
    """
    return Engine(for_python(sources, settings))


class Engine:
    """Enter to start, iterate over the reports of all streams, leave to stop. An engine runs once."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        threads: bool = True,
        open_runtime: Callable[[Bundle], Runtime] | None = None,
        open_finder: Callable[[Bundle, Engine], FaceFinder] | None = None,
    ) -> None:
        """`threads=False` runs the same stages as one chain of generators on the caller's thread.

        The openers replace the networks: `open_runtime(bundle)` opens what predicts action units and sentences,
        `open_finder(bundle, engine)` what finds and follows faces (once per thread that finds faces). Each runs on the
        thread that uses the result. By default they open what the settings name.
        """
        self.settings, self._threads = settings, threads
        self._open_runtime = open_runtime or partial(_runtime, settings)
        self._open_finder = open_finder or _finder
        self.stopping = threading.Event()
        self.sources: list[Source] = open_sources(settings.sources, settings.source, self.stopping)
        self.bundle = open_bundle(settings.predict.model)
        self.counters = {source.context.counters.stream: source.context.counters for source in self.sources}
        origins = [source.origin for source in self.sources]
        inputs = [path for path in (settings.config, settings.faces.detector_model, self.bundle.folder) if path]
        self.sinks: Sinks = open_sinks(settings.output, self.bundle.manifest.units, origins, inputs)
        self.runtime_name, self.device_name, self.detector_name = "", "", ""
        self._failures: list[str] = []
        self._finders = max(1, min(len(self.sources), (os.cpu_count() or 1) // CORES_PER_FINDER)) if threads else 1
        self._unloaded = self._finders + 1  # stages whose networks are still loading
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stack = ExitStack()
        self._reports: Iterable[Report] = ()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # if a later step fails, what is open is closed at once
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
        """Ends the loop over the reports soon. Safe from any thread."""
        self.stopping.set()
        self._ready.set()

    def _count_loaded(self) -> None:
        with self._lock:
            self._unloaded -= 1
            if not self._unloaded:
                self._ready.set()

    def _frames(self, source: Source) -> Iterator[Frame | Ended]:
        """Reads no frame before the networks are loaded: a camera's first frames would be old by then."""
        self._ready.wait()
        try:
            yield from source.frames()
        except Unreadable as error:
            if source.context.alone:
                raise
            yield Ended(source.context.stream, "error", str(error))

    # The stages. Each opens its network on its own thread, so that they load at the same time.

    def _find(self, items: Iterable[Frame | Ended]) -> Generator[Faces | Ended, None, None]:
        from .tracking.find import find_faces

        try:
            finder = self._open_finder(self.bundle, self)
        finally:  # on failure too, so that nothing waits for it
            self._count_loaded()
        yield from find_faces(items, finder, streams=len(self.sources))

    def _predict(self, items: Iterable[Faces | Ended]) -> Generator[Outcome | Ended, None, None]:
        from .prediction.predict import Predictor, predict_faces

        try:
            runtime = self._open_runtime(self.bundle)
        finally:
            self._count_loaded()
        with runtime:
            self.runtime_name = f"{runtime.executor.name} {runtime.executor.precision}"
            self.device_name = runtime.executor.device
            late = [s.origin.stream for s in self.sources if s.live or self.settings.source.realtime]
            all_units = self.settings.output.publish.why == "all"
            predictor = Predictor(runtime, self.settings.predict, all_units=all_units, late_text=late)
            yield from predict_faces(items, predictor)

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
        """The same stages without threads: one source after the other."""
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
        """Ends the streams that are still open when the engine stops."""
        stopped = error is None or isinstance(error, (KeyboardInterrupt, GeneratorExit, BrokenPipeError))
        for counters in self.counters.values():
            if not counters.ended:
                if (waiting := counters.frames_in - counters.frames_out - counters.dropped) > 0:
                    counters.drop("stopped", waiting)  # frames in flight; by now nothing is counted any more
                self.sinks.end(counters.end("stopped" if stopped else "error", "" if stopped else str(error)))


def _runtime(settings: EngineSettings, bundle: Bundle) -> Runtime:
    from vlfau.models.runtimes import open_runtime

    predict = settings.predict
    return open_runtime(
        bundle,
        predict.runtime,
        device=predict.device,
        precision=predict.precision,
        threads=predict.threads,
        say=partial(_print, settings),
    )


def _print(settings: EngineSettings, line: str) -> None:
    if not settings.output.screen.quiet:
        print(plain(line, lines=True), file=sys.stderr, flush=True)


def _finder(bundle: Bundle, engine: Engine) -> FaceFinder:
    from vlfau.models.faces import open_detector
    from vlfau.models.faces.landmarks import open_landmarks

    from .tracking.find import FaceFinder

    faces = engine.settings.faces
    detector = open_detector(faces.detector, faces.detector_model, size=faces.detector_size)
    engine.detector_name = detector.reason
    _print(engine.settings, f"faces by {detector.reason}")
    return FaceFinder(
        faces,
        detector,
        detector.landmarks or open_landmarks(),  # the embedded detector has loaded it already
        bundle.manifest.side,
        stills=[source.origin.stream for source in engine.sources if source.stills],
        keep_pixels=engine.sinks.needs_pixels,
    )


__all__ = ["Engine", "StreamFailed", "UserError", "open_engine"]
