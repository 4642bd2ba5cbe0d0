"""Sends the state of every stream to every sink once a second, on its own thread. Counting is in `counters.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .counters import Counters
from .pipeline import Pipeline
from .sinks.group import Sinks

if TYPE_CHECKING:
    from typing_extensions import Self

EVERY_S = 1.0


class StatusTicker:
    def __init__(self, counters: Mapping[str, Counters], sinks: Sinks, describe: Callable[[], dict[str, Any]]) -> None:
        self.pipeline: Pipeline | None = None
        self._counters, self._sinks, self._describe = counters, sinks, describe
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vlfau-status")

    def _run(self) -> None:
        while not self._done.wait(EVERY_S):
            try:
                self._send()
            except BaseException as error:
                if self.pipeline is not None:
                    self.pipeline.fail(error)
                return

    def _send(self) -> None:
        channels = self.pipeline.channels if self.pipeline is not None else {}
        description = self._describe()
        for stream, counters in self._counters.items():
            if counters.ended:
                continue
            queues = {
                name: len(channel)
                for name, channel in channels.items()
                if not name.startswith("read-") or name == f"read-{stream}"
            }
            self._sinks.status(counters.status(queues, **description))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
