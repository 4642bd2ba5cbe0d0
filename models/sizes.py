"""Named sizes: settings of VL-FAU by name, among them the five rows of the paper's ablation. Builds nothing."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, Any] = {}  # the defaults of network.Shape

# Chosen for two CPU cores and for training from nothing; see docs and issue 6 for what it was measured against.
COMPACT: dict[str, Any] = {
    "stem": "resnet18",
    "side": 112,
    "width": 256,
    "stage_width": 64,
    "hidden": 256,
    "embedding": 128,
    "state_conditioned": True,
    "caption_rows": 4,
    "intensity": 1.0,
}

TINY: dict[str, Any] = {
    "stem": "convnext_atto",
    "stem_options": {"depths": [1, 1, 1, 1], "dims": [16, 24, 32, 48]},
    "side": 64,
    "grid": 4,
    "width": 32,
    "stage_width": 16,
    "hidden": 48,
    "embedding": 32,
}

_OFF = {"msc": False, "dair": False, "local_captions": False, "global_caption": False}
_PARTS = {  # the paper's ablation on BP4D, row by row
    "stem": _OFF,
    "refined": {"local_captions": False, "global_caption": False},
    "local": {"global_caption": False},
    "global": {"local_captions": False},
}

SIZES: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "compact": COMPACT,
    "tiny": TINY,
    **{f"paper-{row}": PAPER | changes for row, changes in _PARTS.items()},
    **{f"tiny-{row}": TINY | changes for row, changes in _PARTS.items()},
}
