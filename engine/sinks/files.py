"""What sinks that write files share: checks of paths, names per stream, error messages, a file that grows by lines."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlfau.models.errors import UserError

from .base import Sink

if TYPE_CHECKING:
    from typing_extensions import Self


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Re-raises an OSError as a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise file_error(path, error) from error


def file_error(path: Path, error: OSError) -> UserError:
    """The message for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"The disk is full: {path} cannot grow. What was written stays. Free some space and run again."
        )
    return UserError(
        f"Cannot write {path}: {os.strerror(error.errno) if error.errno else error}. Choose another place."
    )


def per_stream(path: Path, stream: str, streams: Sequence[str]) -> Path:
    """One file per stream where a format cannot hold several: out.mp4 becomes out.<stream>.mp4."""
    return path if len(streams) <= 1 else path.with_name(f"{path.stem}.{stream}{path.suffix}")


def check_path(path: Path | None, overwrite: bool) -> None:
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"The folder {path.parent} for {path.name} does not exist. Create it first.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the name of a file.")
    if not overwrite and path.exists():
        raise UserError(f"{path} exists. Remove it, choose another name, or leave out --no-overwrite.")


class GrowingFile(Sink):
    """A file to which whole lines are added. A line that did not fit is removed, so that the file ends with a row."""

    def __init__(self, path: Path, header: bytes = b"") -> None:
        self.path = path
        self._header = header

    def __enter__(self) -> Self:
        with file_errors(self.path):
            self._file = open(self.path, "wb", buffering=0)
        self._size = 0
        try:
            self.add(self._header)
        except BaseException:
            self._file.close()
            raise
        return self

    def add(self, lines: bytes) -> None:
        written = 0
        try:
            while written < len(lines):
                written += self._file.write(lines[written:])
        except OSError as error:
            self._keep_whole_lines(lines[:written])
            raise file_error(self.path, error) from error
        self._size += written

    def close(self) -> None:
        self._file.close()

    def _keep_whole_lines(self, part: bytes) -> None:
        try:
            os.ftruncate(self._file.fileno(), self._size + part.rfind(b"\n") + 1)
        except OSError:  # a pipe or a device keeps what it was sent
            return
