"""`--demo`: the clip inside the package, and a sink that tells in lines of text what was shown and what was seen.

The clip and its truth are made by models/synthesis/demo.py. Lines go to standard output, terminal or not.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import Any

from vlfau.models.bundle import embedded

from ..wire import Face, Report
from .base import Pixels, Sink

CLIP, TRUTH = "demo.mp4", "demo.json"
INDENT = " " * 10
MOST_COLUMNS = 110


class DemoText(Sink):
    """A few lines whenever a face's sentence changes, or its units where no sentences are made."""

    def __init__(self) -> None:
        truth: dict[str, Any] = json.loads((embedded() / TRUTH).read_text(encoding="utf-8"))
        self._fps, self._units, self._states = truth["fps"], truth["units"], truth["states"]
        # A progress bar takes sys.stdout over to print above itself: right on a terminal, wrong for a pipe.
        self._output = None if sys.stdout.isatty() else sys.stdout
        self._said: dict[int, object] = {}
        self._started = False

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        if not self._started:
            self._started = True
            self._say("A rendered face whose action units are known: what it shows, what is seen, and why.")
        for face in report.faces:
            on = tuple(name for name, unit in face.aus.items() if unit.on)
            now = face.text if face.text is not None else on
            if face.valid and self._said.get(face.track) != now:
                self._said[face.track] = now
                self._tell(report, face, on)

    def _tell(self, report: Report, face: Face, on: tuple[str, ...]) -> None:
        seen = "  ".join(f"{name} {face.aus[name].p:.0%}" for name in on) or "nothing"
        self._say(f"{report.pts:6.2f} s  shown: {' '.join(self._shown(report.pts)) or 'nothing'}")
        self._say(f"{INDENT}seen:  {seen}")
        if face.text:
            width = min(shutil.get_terminal_size((MOST_COLUMNS, 24)).columns, MOST_COLUMNS)
            self._say(textwrap.fill(face.text, width, initial_indent=INDENT, subsequent_indent=INDENT))

    def _shown(self, pts: float) -> list[str]:
        """What the face does then; a question mark where even people would disagree."""
        states = self._states[min(round(pts * self._fps), len(self._states) - 1)]
        return [name + "?" * (state < 0) for name, state in zip(self._units, states) if state]

    def _say(self, line: str) -> None:
        print(line, file=self._output, flush=True)
