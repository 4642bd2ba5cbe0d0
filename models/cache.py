"""The user's cache of compiled graphs and measured choices. Deleting the folder is always safe."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "VLFAU_CACHE"  # another folder; if empty, nothing is cached


def cache_folder(*parts: str) -> Path | None:
    """A folder that exists and can be written, or None if there can be no cache."""
    chosen = os.environ.get(VARIABLE)
    if chosen == "":
        return None
    try:
        folder = (Path(chosen) if chosen else _home() / "vlfau-stream").joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only home, or no home at all as in some containers
        return None
    return folder if os.access(folder, os.W_OK) else None


def recall(file: str) -> dict[str, Any]:
    """The table in a file of the cache; empty if the file is missing or damaged."""
    folder = cache_folder()
    try:
        table = json.loads((folder / file).read_text(encoding="utf-8")) if folder is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def remember(file: str, key: str, value: Any) -> None:
    """Adds a row to that table, unless there can be no cache."""
    folder = cache_folder()
    if folder is None:
        return
    partial = folder / f"{file}.{os.getpid()}.partial"
    with contextlib.suppress(OSError):  # a full disk
        partial.write_text(json.dumps({**recall(file), key: value}, indent=1), encoding="utf-8")
        os.replace(partial, folder / file)


def _home() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
