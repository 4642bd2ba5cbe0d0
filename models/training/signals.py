"""Ctrl-C and SIGTERM end a run after the current step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class StopRequest:
    """`with StopRequest() as stop:`, then look at `stop.requested` after each step. Outside the main thread, or if not
    `enabled`, signals keep their meaning."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.requested = False
        self._enabled = enabled
        self._previous: list[tuple[int, Any]] = []

    def __enter__(self) -> StopRequest:
        if self._enabled and threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._previous = [(number, signal.signal(number, self._request)) for number in numbers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous:
            signal.signal(number, handler)

    def _request(self, number: int, frame: object) -> None:
        self.requested = True
        signal.signal(number, signal.default_int_handler)
