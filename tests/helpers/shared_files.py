"""The root of the checkout, and the folder ../shared (real clips, detector files, head meshes) that some tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]


def shared(*parts: str) -> Path:
    """A file of the shared folder. If it is missing, the calling test (or module, at import) is skipped."""
    folder = Path(os.environ.get("VLFAU_SHARED", ROOT.parent / "shared"))
    path = folder.joinpath(*parts)
    if not path.exists():
        missing = f"needs {'/'.join(parts)} from the shared folder (set VLFAU_SHARED)"
        pytest.skip(missing, allow_module_level=True)
    return path
