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

from ..errors import UserError
from ..faces import align
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
            raise UserError("Alignment needs a folder to keep the crops in. Give one with --cache, or --no-align.")
        self.folder, self.side, self.find_points = folder, side, find_points
        parts = align.TEMPLATE.tobytes() + align.WEIGHTS.tobytes() + f"{side} {padded(side)} 1".encode()
        if find_points is None:
            parts += b" scaled"
        self.recipe = hashlib.sha256(parts).hexdigest()[:12]  # another template or size is another crop

    def prepare(self, table: Table, report: Callable[[int, int], None] | None = None) -> Table:
        """Makes the crops that are not there yet; returns the rows that have a face. Calls `report(done, all)`."""
        kept = self.fill(table, report)
        lost = [row for row in kept if not self.path(table, row).stat().st_size]
        if not lost:
            return table
        if len(lost) == len(table):
            raise UserError(
                f"No face was found in any of {len(table)} pictures. Choose another detector, or --no-align."
            )
        named = ", ".join(reference(table, row) for row in lost[:SAMPLES_NAMED])
        note = f"No face was found in {len(lost)} of {len(table)} pictures, which are left out (first: {named})."
        return table.only(np.setdiff1d(np.arange(len(table)), lost), note)

    def fill(
        self, table: Table, report: Callable[[int, int], None] | None = None, *, rank: int = 0, world: int = 1
    ) -> list[int]:
        """Makes one process's share of the crops, divided by picture file or video. Returns all rows that are kept."""
        kept = [row for row in range(len(table)) if self.keeps(table, row)]
        missing = [row for row in kept if not self.path(table, row).is_file()]
        if world > 1:
            number = {source: i for i, source in enumerate(dict.fromkeys(table.pictures))}
            missing = [row for row in missing if number[table.pictures[row]] % world == rank]
        for done, (row, picture) in enumerate(pictures(table, missing), 1):
            self.store(self.path(table, row), picture)
            if report is not None:
                report(done, len(missing))
        return kept

    def keeps(self, table: Table, row: int) -> bool:
        """Whether a row's crop is kept: every aligned one, and frames of videos, which are slow to reach."""
        if self.find_points is not None:
            return True
        video = table.frames[row] != PICTURE_FILE and not table.pictures[row].endswith(".safetensors")
        return video and self.folder is not None

    def store(self, path: Path, picture: Picture) -> None:
        """An empty file says that no face was found, so that it is not searched for again."""
        crop = self.cut(picture)
        # Lossless, so that training sees the engine's crop; level 1, because higher ones cost more than they save.
        settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        data = b"" if crop is None else cv2.imencode(".png", crop[:, :, ::-1], settings)[1].tobytes()
        partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}.partial")  # several machines may share the folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise UserError(f"Crop {path} cannot be written: {error}. Free space or choose another cache.") from None

    def cut(self, picture: Picture) -> Picture | None:
        """(P, P, 3) of a picture: aligned, or as it is; None where no face is found."""
        side = padded(self.side)
        if self.find_points is None:
            shrinks = picture.shape[0] > side
            scaled = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            return np.asarray(scaled, np.uint8)
        points = self.find_points(picture)
        if points is None:
            return None
        matrix = align.similarity(np.asarray(points, np.float32), self.side)
        matrix[:, 2] += (side - self.side) / 2
        return np.asarray(align.crop(picture, matrix, side), np.uint8)

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
        if self.find_points is None and not (self.keeps(table, row) and self.path(table, row).is_file()):
            found = self.cut(read_picture(table, row))
            assert found is not None
            return found
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
