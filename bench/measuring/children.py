"""Starts modules of `measuring/` as processes, so that they can be measured or killed separately."""

from __future__ import annotations

import os
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"measuring.{module}", *map(str, arguments)]


def environment(*folders: Path, **variables: str) -> dict[str, str]:
    """Environment of a process that imports from these folders first, or from bench/ if there are none."""
    paths = [*map(str, folders or (BENCH,)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables
