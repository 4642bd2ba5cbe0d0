"""Named sizes: settings of VL-FAU by name, among them the five rows of the paper's ablation."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, Any] = {}  # the defaults of vlfau.Shape

# For two CPU cores and for training from scratch. Measured at 112 px, one thread, all parts: this narrow ResNet-18
# trains on 26 images a second; the standard resnet18 on 15, resnet10t 19, convnext_atto 20, mobilenetv4_conv_small 19,
# regnetx_004 20, efficientvit_b0 18. It encodes in 6 ms, the others in 10 to 17. Width 256 halves the 26.
COMPACT: dict[str, Any] = {
    "stem": "resnet18",
    "stem_options": {"channels": [32, 64, 128, 256]},
    "side": 112,
    "width": 128,
    "stage_width": 64,
    "squeeze": 8,
    "hidden": 192,
    "attention": 64,
    "embedding": 96,
    "state_conditioned": True,
    "caption_rows": 4,
    "intensity": 1.0,
    "landmarks": 2.0,  # needs renders, or `start_from` a run on renders (so does the next)
    "judge_points": 64,
}

TINY: dict[str, Any] = {
    "stem": "convnext_atto",
    "stem_options": {"depths": [1, 1, 1, 1], "dims": [16, 24, 32, 48]},
    "side": 64,
    "grid": 4,
    "width": 32,
    "stage_width": 16,
    "hidden": 48,
    "attention": 32,
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
