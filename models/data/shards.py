"""The file format of shards, which vlfau-synthesize writes and training reads.

A shard is plain safetensors. Its header is parsed here: labels are read into memory, images are mapped, so that
reading one image copies nothing else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, unknown

SCHEMA = "1"
KINDS = {"U8": np.uint8, "I8": np.int8, "I32": np.int32, "F16": np.float16, "F32": np.float32}
TENSORS = ("images", "intensity", "presence", "points", "identity", "face")


@dataclass(frozen=True, slots=True)
class ShardArrays:
    """All labels of a folder of shards; axes: n images, A units as requested."""

    folder: Path
    files: tuple[Path, ...]
    starts: NDArray[np.int64]  # (files + 1,) first image of each file
    units: tuple[str, ...]
    labels: NDArray[np.int8]  # (n, A) 0, 1, -1 unknown
    intensity: NDArray[np.float32]  # (n, A) the stronger side; nan where there is no face
    points: NDArray[np.float32]  # (n, 68, 2) in pixels of the image
    identity: NDArray[np.int32]  # (n,)
    face: NDArray[np.uint8]  # (n,) 0 = an image without a face

    def __len__(self) -> int:
        return len(self.labels)


def read_shards(folder: Path, units: Sequence[str] | None = None) -> ShardArrays:
    """Every shard-*.safetensors of a folder in the order of names; shards of different recipes may be mixed."""
    files = tuple(sorted(folder.glob("shard-*.safetensors")))
    if not files:
        raise UserError(f"{folder} holds no shard-*.safetensors. Give the --output folder of vlfau-synthesize.")
    parts = []
    for path in files:
        metadata, arrays = open_shard(path)
        stored = metadata.get("units", "").split()
        names = list(units or stored)
        for unit in names:
            if unit not in stored:
                raise unknown(f"action unit in {path}", unit, stored)
        columns = [stored.index(unit) for unit in names]
        face = np.array(arrays["face"])
        # The stronger side counts: one label per unit, so that mirroring a crop changes no label.
        intensity = np.asarray(arrays["intensity"], np.float32).max(2)[:, columns]
        intensity[face == 0] = np.nan
        labels = np.array(arrays["presence"])[:, columns]
        parts.append((labels, intensity, np.array(arrays["points"]), np.array(arrays["identity"]), face))
        units = names
    labels, intensity, points, identity, face = (np.concatenate(part) for part in zip(*parts))
    starts = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])]).astype(np.int64)
    return ShardArrays(folder, files, starts, tuple(units or ()), labels, intensity, points, identity, face)


class ShardImages:
    """The images of all shards by number. Each process maps the files itself, since a map cannot be pickled."""

    def __init__(self, renders: ShardArrays) -> None:
        self.files, self.starts = renders.files, renders.starts
        self._maps: dict[int, NDArray[np.uint8]] = {}

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, a view of the file."""
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        images = self._maps.get(number)
        if images is None:
            images = self._maps[number] = open_shard(self.files[number])[1]["images"]
        return np.asarray(images[index - int(self.starts[number])], np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "starts": self.starts, "_maps": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def open_shard(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Metadata and tensors of one file; the tensors are mapped, not read."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, 10**8):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        end = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
        if end != size:
            raise ValueError(f"{size} bytes, the header says {end}")
        body = np.memmap(path, np.uint8, "r", offset=8 + length)
        arrays = {
            name: body[slice(*entry["data_offsets"])].view(KINDS[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}. Delete it and render it again.") from None
    missing = [name for name in TENSORS if name not in arrays]
    if metadata.get("schema") != SCHEMA or missing:
        raise UserError(
            f"{path} is not a shard of schema {SCHEMA}: its schema is {metadata.get('schema')!r}, it lacks "
            f"{', '.join(missing) or 'no tensor'}. Render it again with this version of vlfau-synthesize."
        )
    counts = {len(arrays[name]) for name in TENSORS}
    if len(counts) != 1:
        raise UserError(f"{path} has tensors of different lengths {sorted(counts)}. Delete it and render it again.")
    return metadata, arrays


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.safetensors"


def save_shard(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Writes the same bytes every time: the library's own writer orders the metadata at random."""
    names = {np.dtype(kind): name for name, kind in KINDS.items()}
    header: dict[str, Any] = {"__metadata__": {"schema": SCHEMA, **metadata}}
    start = 0
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))  # wide types first: aligned
    for name, tensor in ordered:
        end = start + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            file.write(np.ascontiguousarray(tensor).tobytes())
