"""How a command ends: what a person can mend is said in one sentence, without a traceback. Knows no command."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from .errors import UserError

P = ParamSpec("P")
USER_ERROR, STOPPED = 2, 130  # exit codes; 130 is the shell's for Ctrl-C


def command(name: str, stopped: str = "Stopped.") -> Callable[[Callable[P, None]], Callable[P, int]]:
    """Makes a `main` that returns nothing into one that returns the exit code; `stopped` is said after Ctrl-C."""

    def made(main: Callable[P, None]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                main(*args, **kwargs)
            except UserError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return USER_ERROR
            except KeyboardInterrupt:
                print(f"\n{name}: {stopped}", file=sys.stderr)
                return STOPPED
            return 0

        return run

    return made


def clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02d} s"
