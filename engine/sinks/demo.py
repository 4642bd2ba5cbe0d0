"""The text of `--demo`: what the face in the packaged clip shows, and what the engine sees, line by line.

The clip and its ground truth come from `models/synthesis/demo.py`. Lines go to standard output, terminal or not.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import Any

from vlfau.models.files import embedded
from vlfau.models.terminal import plain

from ..wire import Face, Report
from .base import Pixels, Sink

CLIP, TRUTH = "demo.mp4", "demo.json"
INDENT = " " * 10
MOST_COLUMNS = 110


class DemoText(Sink):
    """A few lines whenever the sentence of a face changes, or its active units if there are no sentences."""

    def __init__(self) -> None:
        truth: dict[str, Any] = json.loads((embedded() / TRUTH).read_text(encoding="utf-8"))
        self._fps, self._units, self._states = truth["fps"], truth["units"], truth["states"]
        # A progress bar replaces sys.stdout to print above itself: right on a terminal, wrong for a pipe.
        self._output = None if sys.stdout.isatty() else sys.stdout
        self._shown_last: dict[int, object] = {}
        self._started = False

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        if not self._started:
            self._started = True
            self._print("A rendered face whose action units are known: what it shows, what the engine sees, and why.")
        for face in report.faces:
            on = tuple(name for name, unit in face.aus.items() if unit.on)
            now = face.text if face.text is not None else on
            if face.valid and self._shown_last.get(face.track) != now:
                self._shown_last[face.track] = now
                self._describe(report, face, on)

    def _describe(self, report: Report, face: Face, on: tuple[str, ...]) -> None:
        seen = "  ".join(f"{name} {face.aus[name].p:.0%}" for name in on) or "nothing"
        self._print(f"{report.pts:6.2f} s  shown: {' '.join(self._truth(report.pts)) or 'nothing'}")
        self._print(f"{INDENT}seen:  {seen}")
        if face.text:
            width = min(shutil.get_terminal_size((MOST_COLUMNS, 24)).columns, MOST_COLUMNS)
            self._print(textwrap.fill(face.text, width, initial_indent=INDENT, subsequent_indent=INDENT))

    def _truth(self, pts: float) -> list[str]:
        """What the face does at that time; a question mark where people would disagree."""
        states = self._states[min(round(pts * self._fps), len(self._states) - 1)]
        return [name + "?" * (state < 0) for name, state in zip(self._units, states) if state]

    def _print(self, line: str) -> None:
        print(plain(line, lines=True), file=self._output, flush=True)
