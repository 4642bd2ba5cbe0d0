"""Crops of a data set's images, aligned as the engine aligns them and cached on the disk.

A crop is slightly larger than the network's, so that training can shift it; its middle is exactly the engine's crop.
The five points come from a callable: image -> (5, 2) points, or None without a face.
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
from .table import IMAGE_FILE, Table

Image = NDArray[np.uint8]  # (H, W, 3) RGB
FindPoints = Callable[[Image], NDArray[np.floating] | None]
MARGIN = 256 / 224  # the paper crops 224 of 256
SAMPLES_NAMED = 3


def padded(side: int) -> int:
    """Side of a stored crop; even if the network's is even and odd if it is odd, so that both have the same middle."""
    return side + 2 * round(side * (MARGIN - 1) / 2)


class CropCache:
    """Stored crops of one size. Without `find_points` images count as aligned and are only scaled."""

    def __init__(self, folder: Path | None, side: int, find_points: FindPoints | None) -> None:
        if find_points is not None and folder is None:
            raise UserError("Alignment needs a folder for the crops. Give one with --cache, or use --no-align.")
        self.folder, self.side, self.find_points = folder, side, find_points
        parts = align.TEMPLATE.tobytes() + align.WEIGHTS.tobytes() + f"{side} {padded(side)} 1".encode()
        if find_points is None:
            parts += b" scaled"
        self.recipe = hashlib.sha256(parts).hexdigest()[:12]  # another template or size is another crop

    def prepare(self, table: Table, report: Callable[[int, int], None] | None = None) -> Table:
        """Makes the missing crops; returns the rows that have a face. Calls `report(done, total)`."""
        cached = self.fill(table, report)
        faceless = [row for row in cached if not self.path(table, row).stat().st_size]
        if not faceless:
            return table
        if len(faceless) == len(table):
            raise UserError(
                f"No face was found in any of {len(table)} images. Use --no-align if they are aligned already."
            )
        listed = ", ".join(reference(table, row) for row in faceless[:SAMPLES_NAMED])
        note = f"No face was found in {len(faceless)} of {len(table)} images, which are left out (first: {listed})."
        return table.only(np.setdiff1d(np.arange(len(table)), faceless), note)

    def fill(
        self, table: Table, report: Callable[[int, int], None] | None = None, *, rank: int = 0, world: int = 1
    ) -> list[int]:
        """Makes one process's share of the crops, divided by image file or video. Returns all rows that are cached."""
        cached = [row for row in range(len(table)) if self.caches(table, row)]
        missing = [row for row in cached if not self.path(table, row).is_file()]
        if world > 1:
            number = {source: i for i, source in enumerate(dict.fromkeys(table.images))}
            missing = [row for row in missing if number[table.images[row]] % world == rank]
        for done, (row, image) in enumerate(images(table, missing), 1):
            self.store(self.path(table, row), image)
            if report is not None:
                report(done, len(missing))
        return cached

    def caches(self, table: Table, row: int) -> bool:
        """Aligned crops are cached, and frames of videos, which are slow to reach."""
        if self.find_points is not None:
            return True
        video = table.frames[row] != IMAGE_FILE and not table.images[row].endswith(".safetensors")
        return video and self.folder is not None

    def store(self, path: Path, image: Image) -> None:
        """An empty file means that no face was found, so that the search is not repeated."""
        crop = self.cut(image)
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
            raise UserError(f"Crop {path} cannot be written: {error}. Free space or choose another --cache.") from None

    def cut(self, image: Image) -> Image | None:
        """(P, P, 3): aligned, or scaled only; None if no face is found."""
        side = padded(self.side)
        if self.find_points is None:
            shrinks = image.shape[0] > side
            scaled = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            return np.asarray(scaled, np.uint8)
        points = self.find_points(image)
        if points is None:
            return None
        matrix = align.similarity(np.asarray(points, np.float32), self.side)
        matrix[:, 2] += (side - self.side) / 2
        return np.asarray(align.crop(image, matrix, side), np.uint8)

    def path(self, table: Table, row: int) -> Path:
        """Depends on the file, when it was changed, and the template, so that outdated crops are never read."""
        assert self.folder is not None
        source = table.images[row]
        try:
            state = os.stat(source)
        except OSError:
            raise _gone(table, row) from None
        key = f"{os.path.abspath(source)}|{state.st_mtime_ns}|{state.st_size}|{table.frames[row]}|{self.recipe}"
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:32]}.png"

    def read(self, table: Table, row: int) -> Image:
        """(P, P, 3) with P = padded(side)."""
        if self.find_points is None and not (self.caches(table, row) and self.path(table, row).is_file()):
            scaled = self.cut(read_image(table, row))
            assert scaled is not None
            return scaled
        path = self.path(table, row)
        crop = cv2.imread(str(path)) if path.is_file() else None
        if crop is None or crop.shape[0] != padded(self.side):
            raise UserError(f"The stored crop {path} of {reference(table, row)} is missing. Run the command again.")
        return np.asarray(crop[:, :, ::-1], np.uint8)


def images(table: Table, rows: list[int]) -> Iterator[tuple[int, Image]]:
    """(row, image); each video is decoded once, from its beginning."""
    videos: dict[str, dict[int, list[int]]] = {}
    for row in rows:
        source = table.images[row]
        if table.frames[row] == IMAGE_FILE or source.endswith(".safetensors"):
            yield row, read_image(table, row)
        else:
            videos.setdefault(source, {}).setdefault(int(table.frames[row]), []).append(row)
    for source, frames in videos.items():
        yield from _video_images(table, source, frames)


def read_image(table: Table, row: int) -> Image:
    """One image file, or one frame of a shard or video (slow; for many rows use `images`)."""
    source, frame = table.images[row], int(table.frames[row])
    if source.endswith(".safetensors"):
        return np.array(open_shard(Path(source))[1]["images"][frame])
    if frame != IMAGE_FILE:
        return next(image for _, image in _video_images(table, source, {frame: [row]}))
    try:
        data = Path(source).read_bytes()
    except OSError:
        raise _gone(table, row) from None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if _whole(data) else None
    if image is None:
        raise UserError(
            f"{source} ({table.where(row)}) is truncated or not an image ({len(data)} bytes). "
            "Copy it again, or remove its line."
        )
    return np.ascontiguousarray(image[:, :, ::-1])


def reference(table: Table, row: int) -> str:
    frame = int(table.frames[row])
    return table.images[row] + ("" if frame == IMAGE_FILE else f" frame {frame}")


def _video_images(table: Table, source: str, rows: dict[int, list[int]]) -> Iterator[tuple[int, Image]]:
    """`rows` by frame."""
    last = max(rows)
    row = rows[last][0]
    try:
        with av.open(source) as container:
            number = -1
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number in rows:
                    image = frame.to_ndarray(format="rgb24")
                    for each in rows[number]:
                        yield each, image
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
    return UserError(f"{table.images[row]} ({table.where(row)}) does not exist. Restore it, or remove its line.")


def _whole(data: bytes) -> bool:
    """Whether a JPEG or PNG is complete: OpenCV decodes half an image without an error."""
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data[-1024:]  # cameras append a few bytes
    if data[:4] == b"\x89PNG":
        return b"IEND" in data[-64:]
    return bool(data)
