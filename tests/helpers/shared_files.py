"""Where tests find the checkout, and ../shared (real clips, detector files, head meshes); without it they skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]


def shared(*parts: str) -> Path:
    """A file of the shared folder; skips the test, or the module that asks at its top, where there is none."""
    folder = Path(os.environ.get("VLFAU_SHARED", ROOT.parent / "shared"))
    path = folder.joinpath(*parts)
    if not path.exists():
        missing = f"needs {'/'.join(parts)} of the shared folder, which is not here (set VLFAU_SHARED)"
        pytest.skip(missing, allow_module_level=True)
    return path
