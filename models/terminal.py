"""What all commands share: how they end, and how they show the progress of a long job."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from collections.abc import Callable
from typing import ParamSpec

from .errors import UserError

P = ParamSpec("P")
OK, FAILED, USER_ERROR, STOPPED, UNREAD = 0, 1, 2, 130, 141  # exit codes; the shell's for Ctrl-C and a closed pipe

REDRAW_S = 0.5  # of a line on a terminal
LINE_S = 30.0  # between lines that stay, as in a log file

# For a [] of a regular expression: C0, DEL, C1, changes of the direction of writing, line separators, lone surrogates
CONTROLS = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_ANY_CONTROL = re.compile(f"[{CONTROLS}]")
_NO_LAYOUT = re.compile(rf"(?![\t\n])[{CONTROLS}]")


def plain(text: object, *, lines: bool = False) -> str:
    """The text without what could control a terminal or forge a line of a log. `lines`: newlines and tabs are meant."""
    return (_NO_LAYOUT if lines else _ANY_CONTROL).sub("\N{REPLACEMENT CHARACTER}", str(text))


def complain(name: str, error: object) -> None:
    """Prints an error as one line; if it has more, no other begins like one."""
    print(f"{name}: {plain(error, lines=True)}".replace("\n", "\n  "), file=sys.stderr)


def command(name: str, stopped: str = "Stopped.") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Wraps a `main` so that it returns an exit code and prints a UserError or OSError without a traceback.

    A `main` that returns None succeeded. `stopped` is printed after Ctrl-C; an empty one prints nothing. A pipe that is
    read no more (`| head`) ends the command without a word.
    """

    def wrap(main: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            _replace_closed()
            try:
                try:
                    return main(*args, **kwargs) or OK
                finally:
                    sys.stdout.flush()
            except BrokenPipeError:
                _replace_unwritable()
                return UNREAD
            except (UserError, OSError) as error:
                _replace_unwritable()
                complain(name, error)
                return USER_ERROR
            except KeyboardInterrupt:
                if stopped:
                    print(f"\n{name}: {stopped}", file=sys.stderr)
                return STOPPED

        return run

    return wrap


def _replace_closed() -> None:
    """Python has None for a stream that is closed when it starts, as with `2>&-`."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _replace_unwritable() -> None:
    """Otherwise Python would complain when it flushes the streams at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Progress:
    """How much of a job is done, how fast it goes and how long the rest will take.

    On a terminal one line is redrawn; in a log file, or with `report`, a new line comes every half minute.
    """

    def __init__(
        self,
        title: str,
        total: int = 0,
        done: int = 0,
        *,
        unit: str = "images",
        report: Callable[[str], None] | None = None,
        every_s: float | None = None,
    ) -> None:
        """`done` of `total` were done before; lines go to `report`, by default to standard error."""
        self.title, self.total, self.done, self.unit, self.report = title, total, done, unit, report
        self.before = done
        self.live = report is None and sys.stderr.isatty()
        self.every_s = every_s if every_s is not None else REDRAW_S if self.live else LINE_S
        self.began_s = self.shown_s = time.monotonic()

    def add(self, count: int) -> None:
        self.show(self.done + count, self.total)

    def show(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if time.monotonic() - self.shown_s > self.every_s:
            self.shown_s = time.monotonic()
            self._write()

    def close(self) -> None:
        """Shows the last line in any case."""
        self._write()
        if self.live:
            print(file=sys.stderr)

    def _write(self) -> None:
        rate = (self.done - self.before) / max(time.monotonic() - self.began_s, 1e-6)
        left = clock((self.total - self.done) / rate) if rate > 0 else "?"
        line = f"{self.title}: {self.done} of {self.total}, {left} left, {rate:.1f} {self.unit}/s"
        if self.report is not None:
            self.report(line)
        else:
            end = "" if self.live else "\n"
            print(f"\r{line}\033[K" if self.live else line, end=end, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`12 min 05 s`, or `3 h 07 min`."""
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02d} s"
