"""The two subscribers of the soak bench: one receives and checks everything, one stops reading on request."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import zmq

from vlfau.engine.wire import AnyMessage, End, Report, decode

JUMPED_NS = 1200e9  # a wall clock that differs by more has jumped
GAP_S = 1.0  # of stream time between two reports: the source was away


@dataclass
class Heard:
    """What was received from one process, by stream."""

    reports: dict[str, int] = field(default_factory=dict)
    last_frame: dict[str, int] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)
    after_gap: dict[str, int] = field(default_factory=dict)  # reports since the source was last away
    jumps: int = 0  # of the wall clock
    wrong: list[str] = field(default_factory=list)
    _pts: dict[str, float] = field(default_factory=dict)
    _off: int = 0

    def take(self, message: AnyMessage, now_ns: int, hours: float) -> float | None:
        """The latency of a report in ms. `hours` is how far the sender's clock was shifted."""
        if isinstance(message, End):
            self.ends[message.stream] = message
        if not isinstance(message, Report):
            return None
        stream, seen = message.stream, self.reports.get(message.stream, 0)
        if message.seq != seen:
            self._complain(f"{stream}: message {message.seq} came as number {seen}")
        if message.frame <= self.last_frame.get(stream, -1) or message.pts <= self._pts.get(stream, -1.0):
            self._complain(f"{stream}: time ran backwards at frame {message.frame}")
        if not 0 <= message.latency_ms.total < 60_000:
            self._complain(f"{stream}: a latency of {message.latency_ms.total} ms")
        if message.pts - self._pts.get(stream, message.pts) > GAP_S:
            self.after_gap[stream] = 0
        if stream in self.after_gap:
            self.after_gap[stream] += 1
        self.reports[stream] = message.seq + 1
        self.last_frame[stream], self._pts[stream] = message.frame, message.pts
        off = round((message.captured_ns - now_ns) / JUMPED_NS / 3)  # hours
        self.jumps += off != self._off
        self._off = off
        return message.latency_ms.total

    def _complain(self, sentence: str) -> None:
        if len(self.wrong) < 20:
            self.wrong.append(sentence)


class Staller:
    """A subscriber with a short queue on a separate thread. Nothing that it does may affect the others."""

    def __init__(self, context: Any, address: str) -> None:
        self.heard = self.lost = self.wrong = 0
        self._reading, self._done = threading.Event(), threading.Event()
        self._reading.set()
        self._next: dict[str, int] = {}
        self._context, self._address = context, address
        self._thread = threading.Thread(target=self._run, name="staller")

    def stall(self) -> None:
        self._reading.clear()

    def go_on(self) -> None:
        self._reading.set()

    def begin(self) -> None:
        """A new process of the engine counts from 0 again."""
        self._next = {}

    def end(self) -> None:
        self._next = {}

    def _run(self) -> None:
        with self._context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 5)
            socket.setsockopt(zmq.RCVBUF, 4096)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"au/")
            socket.connect(self._address)
            while not self._done.is_set():
                if self._reading.wait(0.1) and socket.poll(100):
                    self._take(decode(socket.recv()))

    def _take(self, message: AnyMessage) -> None:
        expected = self._next.get(message.stream, 0)
        if message.seq < expected:
            self.wrong += 1
        self.lost += max(0, message.seq - expected)
        self.heard += 1
        self._next[message.stream] = message.seq + 1

    def __enter__(self) -> Staller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.set()
        self._done.set()
        self._thread.join()
