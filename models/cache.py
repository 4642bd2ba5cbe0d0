"""The user's cache of compiled graphs and measured choices. Deleting the folder is always safe."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def _home() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
