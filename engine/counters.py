"""Counts and latencies of each stream, and the status and end messages built from them.

Each number has one writer; readers on other threads see it a moment late at worst.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlfau.models.terminal import plain

from .wire import STAGES, End, LatencyMs, Quantiles, Status, now_ns, quantiles

RECENT = 256  # frames that the quantiles of a status message cover
BUCKETS_PER_E = 50  # of the histogram of a whole run: each 2 % wide, from 1 microsecond to e^18 ms
FIRST = -7.0  # log of the first bucket's milliseconds


class Latencies:
    """Milliseconds by stage: recent ones exactly, all of them in a histogram of constant size."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {stage: deque(maxlen=RECENT) for stage in STAGES}
        self._counts: NDArray[np.int64] = np.zeros((len(STAGES), 25 * BUCKETS_PER_E), np.int64)
        self._rows = np.arange(len(STAGES))
        self._lock = threading.Lock()

    def add(self, latency: LatencyMs) -> None:
        values = [getattr(latency, stage) for stage in STAGES]
        logs = np.log(np.maximum(values, 1e-6))
        columns = ((logs - FIRST) * BUCKETS_PER_E).astype(int).clip(0, self._counts.shape[1] - 1)
        with self._lock:
            for stage, value in zip(STAGES, values):
                self._recent[stage].append(value)
            self._counts[self._rows, columns] += 1

    def recent(self) -> dict[str, Quantiles]:
        with self._lock:
            values = {stage: list(recent) for stage, recent in self._recent.items()}
        return {stage: q for stage, v in values.items() if (q := quantiles(v)) is not None}

    def overall(self) -> dict[str, Quantiles]:
        with self._lock:
            sums = self._counts.cumsum(1)
        if not sums[0, -1]:
            return {}
        return {stage: Quantiles(*(_quantile(row, q) for q in (0.5, 0.95, 0.99))) for stage, row in zip(STAGES, sums)}


def _quantile(sums: NDArray[np.int64], q: float) -> float:
    bucket = int(np.searchsorted(sums, q * sums[-1]))
    return round(float(np.exp((bucket + 0.5) / BUCKETS_PER_E + FIRST)), 3)


@dataclass
class Counters:
    """Counters of one stream."""

    stream: str
    state: str = "opening"  # opening, playing, reconnecting, ended
    note: str = ""
    width: int = 0
    height: int = 0
    duration_s: float | None = None
    frames_in: int = 0
    frames_out: int = 0
    frame: int = -1  # last published
    pts: float = 0.0
    faces: int = 0
    highest_track: int = -1
    reconnects: int = 0
    drops: dict[str, int] = field(default_factory=dict)  # cause -> frames
    late: Callable[[], int] = lambda: 0  # frames that the first channel dropped
    latencies: Latencies = field(default_factory=Latencies)
    began: float = field(default_factory=time.monotonic)
    ended: bool = False
    _statuses: int = 0
    _ins: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=4))

    def drop(self, cause: str, frames: int = 1) -> None:
        self.drops[cause] = self.drops.get(cause, 0) + frames

    def all_drops(self) -> dict[str, int]:
        late = self.late()
        return {**self.drops, "late": late} if late else dict(self.drops)

    @property
    def dropped(self) -> int:
        return self.late() + sum(self.drops.values())

    def status(
        self, queues: dict[str, int], runtime: str, device: str, model: str, detector: str, tiers: dict[str, str]
    ) -> Status:
        now = time.monotonic()
        before = self._ins[0] if self._ins else (self.began, 0, 0)
        self._ins.append((now, self.frames_in, self.frames_out))
        seconds = max(now - before[0], 1e-3)
        seq, self._statuses = self._statuses, self._statuses + 1
        return Status(
            seq,
            self.stream,
            state=self.state,
            sent_ns=now_ns(),
            uptime_s=round(now - self.began, 3),
            frame=self.frame,
            pts=self.pts,
            fps_in=round((self.frames_in - before[1]) / seconds, 1),
            fps_out=round((self.frames_out - before[2]) / seconds, 1),
            faces=self.faces,
            queues=queues,
            drops=self.all_drops(),
            latency_ms=self.latencies.recent(),
            runtime=plain(runtime),
            device=plain(device),
            model=plain(model),
            detector=plain(detector),
            tiers=tiers,
            width=self.width,
            height=self.height,
            duration_s=self.duration_s,
            reconnects=self.reconnects,
            note=plain(self.note),
        )

    def end(self, reason: str, error: str = "") -> End:
        self.ended, self.state = True, "ended"
        elapsed = time.monotonic() - self.began
        return End(
            0,
            self.stream,
            reason=reason,
            sent_ns=now_ns(),
            elapsed_s=round(elapsed, 3),
            frames_in=self.frames_in,
            frames_out=self.frames_out,
            fps=round(self.frames_out / max(elapsed, 1e-3), 2),
            dropped=self.dropped,
            drops=self.all_drops(),
            tracks=self.highest_track + 1,
            latency_ms=self.latencies.overall(),
            error=plain(error),
            reconnects=self.reconnects,
        )
