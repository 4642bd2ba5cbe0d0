"""The terminal view of vlfau-watch: the last messages as a panel per stream with a column per face."""

from __future__ import annotations

import io
import math
import time
from itertools import islice
from typing import Any, TypeVar

import msgspec
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text as Words

from vlfau.models.sentences.loading import unit_names
from vlfau.models.terminal import plain

from ..sinks.drawing import TRACK_COLOURS
from ..sinks.progress import clock
from ..wire import AnyMessage, End, Face, Report, Status

BAR_CELLS = 12
EIGHTHS = " ▏▎▍▌▋▊▉█"
MOST_FACES = 6  # columns of a stream; further faces are only counted
MOST_SENTENCES = 32
MOST_STREAMS = 64  # further ones are not shown
MOST_ITEMS = 200  # of a list or table in a message
MOST_CHARACTERS = 1000  # of a text in a message
STALE_S = 3.0  # seconds without a message until a stream is shown as silent


M = TypeVar("M", bound=AnyMessage)


class Board:
    """The last messages of every stream, whatever is in them: anything can be on the other side of an address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.reports: dict[str, Report] = {}
        self.statuses: dict[str, Status] = {}
        self.ends: dict[str, End] = {}
        self.unreadable = 0  # messages so far
        self._received: dict[str, float] = {}

    def add(self, message: AnyMessage) -> None:
        message = _harmless(message)
        stream = message.stream
        if stream not in self._received and len(self._received) >= MOST_STREAMS:
            return
        self._received[stream] = time.monotonic()
        if isinstance(message, Report):
            self.reports[stream] = message
            self.ends.pop(stream, None)
        elif isinstance(message, Status):
            self.statuses[stream] = message
        elif isinstance(message, End):
            self.ends[stream] = message

    @property
    def streams(self) -> list[str]:
        return sorted({*self.reports, *self.statuses, *self.ends})

    def __rich__(self) -> RenderableType:
        if not self.streams:
            return Panel(f"Waiting for an engine at {escape(self.address)} ...{self._skipped()}", border_style="dim")
        rows: list[RenderableType] = [self._stream(stream) for stream in self.streams]
        return Group(*rows, *([Words(self._skipped().strip(), style="yellow")] if self.unreadable else []))

    def _skipped(self) -> str:
        return f" {self.unreadable} unreadable messages were skipped." if self.unreadable else ""

    def _stream(self, stream: str) -> Panel:
        report, status, end = self.reports.get(stream), self.statuses.get(stream), self.ends.get(stream)
        faces = report.faces if report and end is None else []
        body: list[RenderableType] = []
        if faces:
            body.append(Columns([_face(face) for face in faces[:MOST_FACES]], padding=(0, 3)))
            if len(faces) > MOST_FACES:
                body.append(Words(f"and {len(faces) - MOST_FACES} more", style="dim"))
            body += [_sentence(face, len(faces)) for face in faces[:MOST_SENTENCES] if face.text]
        elif end is not None:
            body.append(Words(f"{end.frames_out} frames in {clock(end.elapsed_s)}. {end.error}".rstrip()))
        else:
            body.append(Words("no face in the frame", style="dim"))
        state = end.reason if end else status.state if status else "playing"
        if end is None and time.monotonic() - self._received[stream] > STALE_S:
            state = "silent"
        style = "green" if state == "playing" else "yellow" if state in ("reconnecting", "opening", "silent") else "dim"
        return Panel(
            Group(*body),
            title=f"[bold]{escape(stream)}[/]  [{style}]{escape(state)}[/]",
            title_align="left",
            subtitle=escape(_facts(report, status)),
            subtitle_align="left",
            border_style=style,
        )


def _harmless(message: M) -> M:
    """The same message with short, plain texts, few items and finite numbers."""
    return msgspec.convert(_tamed(msgspec.to_builtins(message)), type(message))


def _tamed(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value[:MOST_CHARACTERS])
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    if isinstance(value, (list, tuple)):
        return [_tamed(item) for item in value[:MOST_ITEMS]]
    if isinstance(value, dict):
        return {plain(key[:MOST_CHARACTERS]): _tamed(item) for key, item in islice(value.items(), MOST_ITEMS)}
    return value


def _facts(report: Report | None, status: Status | None) -> str:
    facts: list[str] = []
    if report:
        facts += [f"frame {report.frame}", f"{report.pts:.2f} s"]
    if status:
        facts.append(f"{status.fps_out:.1f} fps")
        if "total" in status.latency_ms:
            total = status.latency_ms["total"]
            facts.append(f"latency p50 {total.p50:.0f} p95 {total.p95:.0f} p99 {total.p99:.0f} ms")
    elif report:
        facts.append(f"latency {report.latency_ms.total:.0f} ms")
    if report:
        facts.append(f"{report.dropped} dropped")
    if status:
        facts.append(f"{status.runtime} on {status.device}")
        if status.note:
            facts.append(status.note)
    return " · ".join(facts)


def _face(face: Face) -> RenderableType:
    colour = _colour(face)
    table = Table.grid(padding=(0, 1))
    quality = f"  quality {face.quality:.2f}" if face.quality is not None else ""
    head = Words(f"face {face.track}", style=f"bold {colour}")
    head.append(f"  score {face.score:.2f}{quality}", style="dim")
    if face.pose:
        angles = f"yaw {face.pose.yaw:+.0f}°  pitch {face.pose.pitch:+.0f}°  roll {face.pose.roll:+.0f}°"
        head.append(f"\n{angles}", style="dim")
    if not face.valid:
        return Group(head, Words("not judged: too small, blurred or turned", style="yellow"))
    for name, unit in face.aus.items():
        shown = colour if unit.on else "bright_black"
        style = "default" if unit.on else "bright_black"
        table.add_row(
            Words(name, style=style), bar(unit.p, shown), Words(f"{unit.p:.2f}", style=style),
            Words(unit_names().get(name, ""), style=style),
        )  # fmt: skip
    return Group(head, table)


def _sentence(face: Face, count: int) -> Words:
    words = Words("▌ ", style=_colour(face))
    if count > 1:
        words.append(f"face {face.track}: ", style="dim")
    return words.append(face.text or "", style="default")


def bar(share: float, colour: str) -> Words:
    """A bar in eighths of a cell on a faint background."""
    eighths = round(min(max(share, 0.0), 1.0) * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    cells = (EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")).ljust(BAR_CELLS)
    return Words(cells, style=f"{colour} on grey15")


def save_picture(board: Board, path: str, width: int = 118) -> None:
    """Stores the view as an SVG, for documentation."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(board)
    console.save_svg(path, title=f"vlfau-watch {board.address}")


def _colour(face: Face) -> str:
    red, green, blue = TRACK_COLOURS[face.track % len(TRACK_COLOURS)]
    return f"#{red:02x}{green:02x}{blue:02x}"
