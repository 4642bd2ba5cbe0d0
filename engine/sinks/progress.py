"""The progress display: a bar on a terminal, otherwise one plain line a second, and a summary at the end.

It goes to standard error, so that standard output stays free for data.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from vlfau.models.terminal import plain

from ..packets import Origin
from ..wire import End, Report, Status
from .base import Pixels, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

REFRESH_S = 0.25


def open_progress(origins: Sequence[Origin], output: IO[str] | None = None) -> Sink:
    output = output or sys.stderr
    return BarProgress(origins, output) if output.isatty() else PlainProgress(origins, output)


class PlainProgress(Sink):
    """One line per second and stream, and the summary."""

    def __init__(self, origins: Sequence[Origin], output: IO[str]) -> None:
        self._output = output
        self._durations = {origin.stream: origin.duration_s for origin in origins}
        self._first: dict[str, float] = {}
        self._active: dict[str, Counter[str]] = {}
        self._valid: Counter[str] = Counter()
        self._ends: list[End] = []

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self._first.setdefault(report.stream, report.pts)
        for face in report.faces:
            if face.valid:
                self._valid[report.stream] += 1
                active = self._active.setdefault(report.stream, Counter())
                active.update(name for name, unit in face.aus.items() if unit.on)

    def status(self, status: Status) -> None:
        self._print(self.status_line(status))

    def end(self, end: End) -> None:
        self._ends.append(end)

    def close(self) -> None:
        for end in self._ends:
            for text in self.summary(end):
                self._print(text)

    def _print(self, text: str) -> None:
        print(plain(text), file=self._output, flush=True)

    def status_line(self, status: Status) -> str:
        pieces = [f"{status.stream}: {status.state}", f"frame {status.frame}", f"{status.pts:.1f} s"]
        pieces += [f"{status.fps_out:.1f} fps", f"{status.faces} {'face' if status.faces == 1 else 'faces'}"]
        if "total" in status.latency_ms:
            pieces.append(f"p95 {status.latency_ms['total'].p95:.1f} ms")
        pieces.append(f"{sum(status.drops.values())} dropped")
        duration = status.duration_s or self._durations.get(status.stream)
        done = status.pts - self._first.get(status.stream, status.pts)
        if duration and done > 0 and status.uptime_s > 0:
            left_s = max(duration - done, 0.0) * status.uptime_s / done
            pieces.append(f"{min(done / duration, 1):.0%}, {clock(left_s)} left")
        if status.note:
            pieces.append(status.note)
        return "  ".join(pieces)

    def summary(self, end: End) -> list[str]:
        faces = "1 face" if end.tracks == 1 else f"{end.tracks} faces"
        lines = [
            f"{end.stream}: {end.reason} after {clock(end.elapsed_s)}, {end.frames_out} frames at {end.fps:.1f} fps, "
            f"{faces} followed, {end.dropped} frames dropped{_causes(end)}"
        ]
        if "total" in end.latency_ms:
            total = end.latency_ms["total"]
            lines.append(f"  capture to publish: p50 {total.p50:.1f}  p95 {total.p95:.1f}  p99 {total.p99:.1f} ms")
        valid = self._valid[end.stream]
        if valid:
            most = self._active.get(end.stream, Counter()).most_common(6)
            shares = "  ".join(f"{name} {count / valid:.0%}" for name, count in most) or "none"
            lines.append(f"  active units, share of {valid} faces: {shares}")
        if end.error:
            lines.append(f"  {end.error}")
        return lines


class BarProgress(PlainProgress):
    """Rich's progress bars, one per stream. They count seconds of video, so the time left is that of the file."""

    def __init__(self, origins: Sequence[Origin], output: IO[str]) -> None:
        super().__init__(origins, output)
        from rich import progress
        from rich.console import Console

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}", style="bold", markup=False),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[note]}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=output),
            refresh_per_second=1 / REFRESH_S,
        )
        self._tasks: dict[str, Any] = {
            origin.stream: self._bars.add_task(plain(origin.stream), total=origin.duration_s, note="opening")
            for origin in origins
        }
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        super().write(report)
        now = time.monotonic()
        if now - self._shown.get(report.stream, 0.0) < REFRESH_S:
            return
        self._shown[report.stream] = now
        self._bars.update(self._task(report.stream), completed=max(report.pts - self._first[report.stream], 0.0))

    def status(self, status: Status) -> None:
        total = status.latency_ms.get("total")
        note = f"{status.fps_out:5.1f} fps  {status.faces} {'face ' if status.faces == 1 else 'faces'}"
        note += f"  p95 {total.p95:5.1f} ms" if total else ""
        note += f"  {sum(status.drops.values())} dropped"
        note = note if status.state == "playing" else plain(f"{status.state} {status.note}".strip())
        self._bars.update(self._task(status.stream), note=note)

    def end(self, end: End) -> None:
        super().end(end)
        task = self._task(end.stream)
        total = next(item.total for item in self._bars.tasks if item.id == task)
        self._bars.update(task, note=plain(end.reason), completed=total if end.reason == "finished" else None)

    def close(self) -> None:
        self._bars.stop()
        super().close()

    def _task(self, stream: str) -> Any:
        if stream not in self._tasks:
            self._tasks[stream] = self._bars.add_task(plain(stream), total=None, note="")
        return self._tasks[stream]


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _causes(end: End) -> str:
    named = ", ".join(f"{cause} {count}" for cause, count in end.drops.items() if count)
    return f" ({named})" if named else ""
