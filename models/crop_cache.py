"""Crops of a data set's pictures, aligned as the engine aligns them and kept on the disk.

A crop is a little larger than the network's, so that the trainer can shift it; its middle is exactly the engine's crop.
Finding the five points is somebody else's work: a callable from a picture to (5, 2) points, or None where no face is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from . import align
from .errors import UserError
from .shards import open_shard
from .table import PICTURE_FILE, Table

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
FindPoints = Callable[[Picture], NDArray[np.floating] | None]
MARGIN = 256 / 224  # the paper crops 224 of 256
SAMPLES_NAMED = 3


def padded(side: int) -> int:
    """Side of a stored crop; as even or odd as the network's, so that both share their middle."""
    return side + 2 * round(side * (MARGIN - 1) / 2)


class CropCache:
    """Stored crops of one crop side. Without `find_points` pictures are taken as aligned already and only scaled."""

    def __init__(self, folder: Path | None, side: int, find_points: FindPoints | None) -> None:
        if find_points is not None and folder is None:
            raise UserError("Alignment needs a folder to keep the crops in. Give one, or aligned pictures.")
        self.folder, self.side, self.find_points = folder, side, find_points
        parts = align.TEMPLATE.tobytes() + align.WEIGHTS.tobytes() + f"{side} {padded(side)} 1".encode()
        self.recipe = hashlib.sha256(parts).hexdigest()[:12]  # another template or size is another crop

    def prepare(self, table: Table, report: Callable[[int, int], None] | None = None) -> Table:
        """Makes the crops that are not there yet; returns the rows that have a face. Calls `report(done, all)`."""
        if self.find_points is None:
            return table
        found = np.ones(len(table), bool)
        missing = []
        for row in range(len(table)):
            path = self.path(table, row)
            if not path.is_file():
                missing.append(row)
            elif not path.stat().st_size:
                found[row] = False
        done = len(table) - len(missing)
        for row, picture in pictures(table, missing):
            found[row] = self.store(self.path(table, row), picture)
            done += 1
            if report is not None:
                report(done, len(table))
        if found.all():
            return table
        lost = np.flatnonzero(~found)
        if len(lost) == len(table):
            raise UserError(f"No face was found in any of {len(table)} pictures. Choose another detector.")
        named = ", ".join(reference(table, int(row)) for row in lost[:SAMPLES_NAMED])
        note = f"No face was found in {len(lost)} of {len(table)} pictures, which are left out (first: {named})."
        return table.only(np.flatnonzero(found), note)

    def store(self, path: Path, picture: Picture) -> bool:
        """An empty file says that no face was found, so that it is not searched for again."""
        assert self.find_points is not None
        points = self.find_points(picture)
        data = b""
        if points is not None:
            side = padded(self.side)
            matrix = align.similarity(np.asarray(points, np.float32), self.side)
            matrix[:, 2] += (side - self.side) / 2
            crop = align.crop(picture, matrix, side)
            # Lossless, so that training sees the engine's crop; level 1, because higher ones cost more than they save.
            data = cv2.imencode(".png", crop[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}.partial")  # several machines may share the folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise UserError(f"Crop {path} cannot be written: {error}. Free space or choose another cache.") from None
        return bool(data)

    def path(self, table: Table, row: int) -> Path:
        """Where the crop of a row lies: another file, another time of change or another template is another place."""
        assert self.folder is not None
        source = table.pictures[row]
        try:
            state = os.stat(source)
        except OSError:
            raise _gone(table, row) from None
        key = f"{os.path.abspath(source)}|{state.st_mtime_ns}|{state.st_size}|{table.frames[row]}|{self.recipe}"
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:32]}.png"

    def read(self, table: Table, row: int) -> Picture:
        """(P, P, 3) with P = padded(side)."""
        if self.find_points is None:
            picture = read_picture(table, row)
            size = padded(self.side)
            shrinks = picture.shape[0] > size
            scaled = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            return np.asarray(scaled, np.uint8)
        path = self.path(table, row)
        crop = cv2.imread(str(path)) if path.is_file() else None
        if crop is None or crop.shape[0] != padded(self.side):
            raise UserError(f"The stored crop {path} of {reference(table, row)} is missing. Run the command again.")
        return np.asarray(crop[:, :, ::-1], np.uint8)


def pictures(table: Table, rows: list[int]) -> Iterator[tuple[int, Picture]]:
    """(row, picture), videos decoded once from their beginning."""
    videos: dict[str, dict[int, list[int]]] = {}
    for row in rows:
        source = table.pictures[row]
        if table.frames[row] == PICTURE_FILE or source.endswith(".safetensors"):
            yield row, read_picture(table, row)
        else:
            videos.setdefault(source, {}).setdefault(int(table.frames[row]), []).append(row)
    for source, wanted in videos.items():
        yield from _video_pictures(table, source, wanted)


def read_picture(table: Table, row: int) -> Picture:
    """One picture file, or one frame of a shard or of a video (slow: prefer `pictures` for many)."""
    source, frame = table.pictures[row], int(table.frames[row])
    if source.endswith(".safetensors"):
        return np.array(open_shard(Path(source))[1]["images"][frame])
    if frame != PICTURE_FILE:
        return next(picture for _, picture in _video_pictures(table, source, {frame: [row]}))
    try:
        data = Path(source).read_bytes()
    except OSError:
        raise _gone(table, row) from None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if _whole(data) else None
    if picture is None:
        raise UserError(
            f"{source} ({table.where(row)}) is truncated or no picture ({len(data)} bytes). "
            "Copy it again, or remove its line."
        )
    return np.ascontiguousarray(picture[:, :, ::-1])


def reference(table: Table, row: int) -> str:
    frame = int(table.frames[row])
    return table.pictures[row] + ("" if frame == PICTURE_FILE else f" frame {frame}")


def _video_pictures(table: Table, source: str, wanted: dict[int, list[int]]) -> Iterator[tuple[int, Picture]]:
    last = max(wanted)
    row = wanted[last][0]
    try:
        with av.open(source) as container:
            number = -1
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    picture = frame.to_ndarray(format="rgb24")
                    for each in wanted[number]:
                        yield each, picture
                if number == last:
                    return
    except FileNotFoundError:
        raise _gone(table, row) from None
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"Video {source} ({table.where(row)}) cannot be decoded: {error}. Copy it again.") from None
    raise UserError(
        f"Video {source} ends after {number + 1} frames, {table.where(row)} asks for frame {last} (from 0). "
        "Copy the video again, or remove the lines beyond its end."
    )


def _gone(table: Table, row: int) -> UserError:
    return UserError(f"{table.pictures[row]} ({table.where(row)}) does not exist. Restore it, or remove its line.")


def _whole(data: bytes) -> bool:
    """Whether a JPEG or PNG has its end: OpenCV decodes half a picture without a word."""
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data[-1024:]  # cameras append a few bytes
    if data[:4] == b"\x89PNG":
        return b"IEND" in data[-64:]
    return bool(data)
