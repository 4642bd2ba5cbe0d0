"""`vlfau-stream SOURCE ...`: parses, builds and runs the engine. What it does is in app.py."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from vlfau.models.errors import UserError

from ..settings import add_engine_flags, read_engine
from .completion import add_completion

USER_ERROR, FAILED, STOPPED = 2, 1, 130


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vlfau-stream",
        description="Facial action units from live video, with the reason in words.",
        epilog="Sources: a video file, a camera (0), an address (rtsp://, http://, udp://), a folder or pattern of "
        "pictures, or - for standard input; several at once. Without any: --demo.",
    )
    made.add_argument("sources", nargs="*", metavar="SOURCE", help="what to look at")
    made.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the same settings, by section")
    made.add_argument("--check", action="store_true", help="print what this installation can do, test it, and exit")
    add_engine_flags(made)
    add_completion(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = read_engine(tuple(given.sources), given.config, given)
        if given.check:
            from .check import check

            return check(settings)
        from ..app import Engine, StreamFailed

        try:
            with Engine(settings) as reports:
                for _ in reports:
                    pass
        except StreamFailed as error:
            return _fail(str(error), FAILED)
    except UserError as error:
        return _fail(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return STOPPED
    return 0


def _fail(sentence: str, code: int) -> int:
    print(f"vlfau-stream: {sentence}", file=sys.stderr)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
