"""Threads change no result, errors reach the caller, and no thread is left behind."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import pytest

from vlfau.engine.channel import Channel
from vlfau.engine.pipeline import Pipeline, read, waiting


def double(items: Iterable[int]) -> Generator[int, None, None]:
    for item in items:
        yield 2 * item


def batch(items: Iterable[int]) -> Generator[list[int], None, None]:
    yield from waiting(items, limit=8)


def flatten(items: Iterable[list[int]]) -> Generator[int, None, None]:
    for group in items:
        yield from group


def line(source: Iterable[Any], *stages: Any, lossy: bool = False) -> Pipeline:
    pipeline = Pipeline()
    inputs: Any = source
    for stage in stages:
        inputs = [pipeline.add(stage.__name__, stage, inputs, lossy=lossy)]
    return pipeline


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert [thread for thread in threading.enumerate() if thread.name.startswith("vlfau-")] == []


def test_threads_change_nothing() -> None:
    reference = list(flatten(batch(double(range(1000)))))
    with line(range(1000), double, batch, flatten) as threaded:
        assert list(threaded) == reference


def test_several_sources_meet_in_one_stage() -> None:
    pipeline = Pipeline()
    sources = [pipeline.add(f"read{k}", double, range(k, 3000, 3)) for k in range(3)]
    pipeline.add("flatten", flatten, [pipeline.add("batch", batch, sources)])
    with pipeline as items:
        assert sorted(items) == [2 * i for i in range(3000)]


def test_an_error_in_a_stage_reaches_the_caller() -> None:
    def boom(items: Iterable[int]) -> Generator[int, None, None]:
        for item in items:
            if item == 50:
                raise ValueError("frame 50")
            yield item

    with pytest.raises(ValueError, match="frame 50"), line(itertools.count(), boom, double) as pipeline:
        for _ in pipeline:
            pass


def test_an_error_in_one_of_several_sources_stops_them_all() -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise ValueError("camera 2")

    pipeline = Pipeline()
    sources = [pipeline.add("one", double, itertools.count()), pipeline.add("two", double, broken())]
    pipeline.add("batch", batch, sources)
    with pytest.raises(ValueError, match="camera 2"), pipeline as items:
        for _ in items:
            pass


def test_the_first_of_two_failures_is_raised() -> None:
    def first(items: Iterable[int]) -> Generator[int, None, None]:
        raise ValueError("first")
        yield

    with pytest.raises(ValueError, match="first"), line(range(3), first, double) as pipeline:
        list(pipeline)


def test_leaving_early_stops_an_endless_source() -> None:
    with line(itertools.count(), double, batch) as pipeline:
        assert next(iter(pipeline))[0] == 0


def test_an_interrupt_of_the_caller_stops_everything() -> None:
    def watch() -> None:
        with line(itertools.count(), double) as pipeline:
            for item in pipeline:
                if item > 100:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch()


def test_a_stop_wakes_stages_that_wait_for_something_else() -> None:
    pipeline = Pipeline()

    def sleepy() -> Iterator[int]:
        yield 1
        assert pipeline.stopping.wait(30)

    pipeline.add("double", double, sleepy())
    with pipeline as items:
        assert next(iter(items)) == 2


def test_what_a_stage_opens_is_closed_on_its_own_thread() -> None:
    log: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def socket() -> Iterator[None]:
        log.append(("open", threading.current_thread().name))
        try:
            yield
        finally:
            log.append(("close", threading.current_thread().name))

    def publish(items: Iterable[int]) -> Generator[int, None, None]:
        with socket():
            yield from items

    with line(itertools.count(), publish) as pipeline:
        next(iter(pipeline))
    assert log == [("open", "vlfau-publish"), ("close", "vlfau-publish")]


def test_a_source_is_closed_too() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with line(endless(), read) as pipeline:
        next(iter(pipeline))
    assert closed.is_set()


def test_a_live_source_is_not_delayed() -> None:
    """Only the first channel drops items; the reader gets the last one, and every gap is counted."""
    pipeline = Pipeline()
    channel: Channel[int] = pipeline.add("double", double, range(1000), capacity=1, lossy=True)
    with pipeline:
        until = time.monotonic() + 10
        while channel.dropped < 999 and time.monotonic() < until:
            time.sleep(0.001)
        assert list(pipeline) == [1998]
    assert channel.dropped == 999


def test_a_failure_reported_from_outside_is_raised() -> None:
    pipeline = line(itertools.count(), double)

    def watch() -> None:
        with pipeline:
            for item in pipeline:
                if item == 20:
                    pipeline.fail(OSError("disk full"))

    with pytest.raises(OSError, match="disk"):
        watch()
