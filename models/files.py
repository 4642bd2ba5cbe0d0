"""Files: suffixes of images and videos, what the package carries, and writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from .errors import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".wmv")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota or a limit on the size of files


def embedded() -> Path:
    """The folder of what the package carries: the bundle, the face networks and the demonstration."""
    return Path(__file__).with_name("embedded")  # importlib does not find it in editable installs


def write_or_stop(path: Path, body: bytes) -> None:
    """`write_whole`, whose errors become a UserError."""
    try:
        write_whole(path, body)
    except OSError as error:
        if error.errno not in FULL:
            raise UserError(f"{path} cannot be written: {error}.") from None
        raise UserError(
            f"The disk is full: {path} needs {len(body) / 1e6:.1f} MB; what was there before is untouched. "
            "Free space and run the same command again: it resumes."
        ) from None


def write_whole(path: Path, body: bytes) -> None:
    """Whole or not at all, and on the disk when this returns."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
