"""A process that has imported everything and forks a child for each request.

    PYTHONPATH=bench python -m measuring.nursery MODULE

A child costs milliseconds instead of the second or two that imports take, and yet can die, hang or grow on its own. The
module has `perform(request, folder)`, which runs in the child with `folder` as its current folder; what it returns is
the exit code. Requests and answers are lines of JSON. The process has one thread, so that it can be forked safely.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from measuring import children
from measuring.facts import resident_mb

if TYPE_CHECKING:
    from typing_extensions import Self

LOOK_S = 0.05  # between looks at the memory of a child
LAST_WORDS_S = 0.7  # for a child that hangs to write where it is
HERE, OUT, ERR = "here", "stdout", "stderr"  # in the folder of a request: current folder of the child, what it printed


@dataclass(frozen=True)
class Ending:
    status: int  # exit code, or minus the signal
    seconds: float
    hung: bool = False  # it was killed because its time was over
    swollen: bool = False  # it was killed because of its memory
    peak_mb: float = 0.0


class Nursery:
    """The process seen from outside. Used on one thread."""

    def __init__(self, module: str, *folders: Path) -> None:
        """`folders` are those that the module is imported from, besides bench/."""
        # Without threads of a BLAS; and none that a user's configuration asks for.
        environment = children.environment(children.BENCH, *folders, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self._process = subprocess.Popen(
            children.command("nursery", module), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def run(self, request: Any, folder: Path, limit_s: float = 20.0, most_mb: float = 1500.0) -> Ending:
        """`folder` is made; it holds HERE, OUT and ERR afterwards."""
        (folder / HERE).mkdir(parents=True)
        line = {"request": request, "folder": str(folder.resolve()), "limit_s": limit_s, "most_mb": most_mb}
        self._requests.write(json.dumps(line).encode() + b"\n")
        self._requests.flush()
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError(f"The process that starts the children ended with {self._process.wait()}.")
        return Ending(**json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.close()
        self._process.wait()
        self._answers.close()


def main() -> int:
    module = import_module(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other side, which then closes this one
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        began, child = time.monotonic(), os.fork()
        if not child:
            return _live(module, asked["request"], Path(asked["folder"]))
        print(json.dumps(asdict(_watch(child, began, asked["limit_s"], asked["most_mb"]))), flush=True)
    return 0


def _live(module: ModuleType, request: Any, folder: Path) -> int:
    os.setsid()  # so that whatever it starts ends with it
    os.chdir(folder / HERE)
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, folder / OUT, os.O_WRONLY | os.O_CREAT),
        (2, folder / ERR, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    return int(module.perform(request, folder) or 0)


def _watch(child: int, began: float, limit_s: float, most_mb: float) -> Ending:
    hung = swollen = False
    peak = 0.0
    handle = os.pidfd_open(child)
    try:
        while not select.select([handle], [], [], LOOK_S)[0]:
            peak = max(peak, now := resident_mb(child))
            hung, swollen = time.monotonic() - began > limit_s, now > most_mb
            if hung or swollen:
                os.kill(child, signal.SIGUSR1)
                select.select([handle], [], [], LAST_WORDS_S)
                break
        seconds = time.monotonic() - began
    finally:
        os.close(handle)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it, or what it left behind
    _, status = os.waitpid(child, 0)
    return Ending(os.waitstatus_to_exitcode(status), round(seconds, 3), hung, swollen, round(peak, 1))


if __name__ == "__main__":
    sys.exit(main())
