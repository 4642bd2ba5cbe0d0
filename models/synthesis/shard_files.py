"""Writes shards of labelled pictures, and finds those that are missing.

A shard is `shard-00000.safetensors` and `shard-00000.jsonl` with one {"text": ...} per picture. Both are written under
a temporary name and renamed at the end, the tensors last, so a shard that has its tensors is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.shards import open_shard, save_shard, shard_path
from ..errors import UserError
from .picture import LabelledRender
from .units import UNITS


def write_shard(path: Path, pictures: Sequence[LabelledRender], texts: Sequence[str], seed: int, recipe: str) -> None:
    tensors: dict[str, NDArray[Any]] = {
        "images": np.stack([p.image for p in pictures]),  # (n, 160, 160, 3) u8 RGB
        "intensity": np.stack([p.intensity for p in pictures]).astype(np.float16),  # (n, A, 2) sides of the picture
        "presence": np.stack([p.presence for p in pictures]).astype(np.int8),  # (n, A) 1, 0, -1 unknown
        "points": np.stack([p.points for p in pictures]).astype(np.float32),  # (n, 68, 2) pixels
        "pose": np.stack([p.pose for p in pictures]).astype(np.float32),  # (n, 3) degrees; roll counter-clockwise
        "box": np.stack([p.box for p in pictures]).astype(np.float32),  # (n, 4) x0 y0 x1 y1
        "identity": np.array([p.identity for p in pictures], np.int32),
        "face": np.array([p.face for p in pictures], np.uint8),
        "head": np.array([p.head for p in pictures], np.uint8),
    }
    metadata = {"units": " ".join(UNITS), "seed": str(seed), "recipe": recipe}
    lines = path.with_suffix(".jsonl")
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    os.replace(partial, lines)
    save_shard(partial, tensors, metadata)
    os.replace(partial, path)


def missing_shards(folder: Path, count: int, size: int, seed: int, recipe: str) -> list[int]:
    """Which of the first `count` shards are missing. A shard of another seed or recipe is an error, not mixed in."""
    missing = []
    for index in range(count):
        path = shard_path(folder, index)
        if not path.exists():
            missing.append(index)
            continue
        metadata, arrays = open_shard(path)
        stored = metadata.get("seed"), metadata.get("recipe"), len(arrays["face"])
        current = str(seed), recipe, size
        if stored != current:
            raise UserError(
                "{} was made with seed {}, recipe {} and {} pictures; ".format(path, *stored)
                + "this run makes seed {}, recipe {} and {} pictures per shard. ".format(*current)
                + "Give another --output folder, or the settings of this one."
            )
    return missing
