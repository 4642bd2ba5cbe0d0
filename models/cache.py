"""Where this user's compiled graphs and measured choices are kept between runs. Deleting the folder is always safe."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "VLFAU_CACHE"  # another folder; empty switches caching off


def cache_folder(*parts: str) -> Path | None:
    """A folder that exists and can be written, or None: then the caller does without."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    try:
        folder = (Path(named) if named else _home() / "vlfau-stream").joinpath(*parts)
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
