"""`vlfau-stream SOURCE ...`: runs the engine of `app.py` from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from vlfau.models.terminal import FAILED, OK, command, complain

from ..settings import add_engine_flags, read_engine
from .completion import add_completion


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="vlfau-stream",
        description="Facial action units from live video, explained in sentences.",
        epilog="Sources: a video file, a camera (0), an address (rtsp://, http://, udp://), a folder or pattern of "
        "images, or - for standard input; also several at once. To try it without a source: --demo.",
    )
    result.add_argument("sources", nargs="*", metavar="SOURCE", help="what to analyse")
    result.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the same settings, in sections")
    result.add_argument("--check", action="store_true", help="print what this installation can do, test it, and exit")
    add_engine_flags(result)
    add_completion(result)
    return result


@command("vlfau-stream", stopped="")
def main(arguments: Sequence[str] | None = None) -> int:
    flags = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    settings = read_engine(tuple(flags.sources), flags.config, flags)
    if flags.check:
        from .check import check

        return check(settings)
    from ..app import Engine, StreamFailed

    try:
        with Engine(settings) as reports:
            for _ in reports:
                pass
    except StreamFailed as error:
        complain("vlfau-stream", error)
        return FAILED
    return OK


def console() -> None:
    """The command. It leaves without dismantling Python, for threads of FFmpeg or of a network library may still run.

    One that asks for Python's lock while Python ends is unwound by force, and where that meets C++ the process is
    aborted: `FATAL: exception not rethrown`. Everything that has to be closed is closed by now.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    console()
