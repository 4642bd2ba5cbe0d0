"""Runs stages, each on its own thread, connected by channels.

A stage is a generator over its input, so the same stages also run without threads: `last(middle(first(source)))` is the
reference for the tests. What a stage opens with `with` is closed on its own thread, however it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from .channel import Channel, Closed, Junction

T = TypeVar("T")
LEAVE_S = 1.0  # half of the two seconds that a shutdown may take; the rest is for files and last messages
Stage = Callable[[Iterable[Any]], Generator[Any, None, None]]


def read(source: Iterable[T]) -> Generator[T, None, None]:
    """A first stage, which only passes items on; closing it closes the source."""
    yield from source


class Pipeline:
    """add() stages, enter to start them, iterate over what the last one yields. Leaving stops and joins all threads.

    A first stage may wait in foreign code for data that never comes. It is left behind after `LEAVE_S`: nothing that it
    still yields gets anywhere, and it does not keep the process alive.
    """

    def __init__(self, stopping: threading.Event | None = None) -> None:
        self.stopping = stopping or threading.Event()  # for code that waits for something other than a channel
        self.channels: dict[str, Channel[Any]] = {}
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def add(
        self,
        name: str,
        stage: Stage,
        inputs: Iterable[Any] | Sequence[Channel[Any]],
        *,
        capacity: int = 4,
        lossy: bool = False,
    ) -> Channel[Any]:
        """`inputs` are channels of earlier stages, or, for a first stage, any iterable."""
        outbox: Channel[Any] = Channel(capacity, lossy=lossy)
        self.channels[name] = outbox
        channels = list(inputs) if isinstance(inputs, list | tuple) else []
        inbox = Junction(channels) if channels and all(isinstance(c, Channel) for c in channels) else inputs
        first = not isinstance(inbox, Junction)
        self._threads.append(
            threading.Thread(target=self._run, args=(stage, inbox, outbox), name=f"vlfau-{name}", daemon=first)
        )
        return outbox

    def _run(self, stage: Stage, inbox: Iterable[Any], outbox: Channel[Any]) -> None:
        try:
            with closing(stage(inbox)) as items:
                for item in items:
                    outbox.put(item)
        except Closed:
            pass  # the next stage has ended, so this one is done too
        except BaseException as error:
            self.fail(error)
        finally:
            outbox.close()

    def fail(self, error: BaseException) -> None:
        """The first failure stops all stages and is raised to the caller who iterates."""
        with self._lock:
            self._error = self._error or error
        self.stop()

    def stop(self) -> None:
        """Drop what is in flight and let every stage return. Safe from any thread, and more than once."""
        self.stopping.set()
        for channel in self.channels.values():
            channel.close(discard=True)

    def __iter__(self) -> Iterator[Any]:
        yield from list(self.channels.values())[-1]
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Pipeline:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        until = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()) if thread.daemon else None)


def waiting(items: Iterable[T], limit: int) -> Iterator[list[T]]:
    """Batches of what queued up while the last one ran: full batches under load, no added delay otherwise."""
    if isinstance(items, Junction):
        while group := items.take(limit):
            yield group
    else:
        for item in items:
            yield [item]
