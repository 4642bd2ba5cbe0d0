"""Modules of `measuring/` as processes, for what has to be measured, or killed, on its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"measuring.{module}", *map(str, arguments)]


def environment(*folders: Path, **variables: str) -> dict[str, str]:
    """Of a process that imports from these folders first; without any, from bench/."""
    paths = [*map(str, folders or (BENCH,)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables
