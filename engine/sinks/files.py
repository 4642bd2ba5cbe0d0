"""What sinks that write files share: names per stream, devices and pipes, messages of errors, a file that grows."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from vlfau.models.errors import UserError

from .base import Sink
from .unfinished import Marker, note_continued, note_kept, set_aside

if TYPE_CHECKING:
    from typing_extensions import Self

Say = Callable[[str], None]  # takes a line for the user
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
BLOCK = 1 << 16


def silent(line: str) -> None:
    """Discards the line."""


@contextmanager
def file_errors(path: Path, *, kept: bool = False) -> Iterator[None]:
    """Re-raises an OSError as a UserError that names the file. `kept`: something was written before."""
    try:
        yield
    except OSError as error:
        raise file_error(path, error, kept=kept) from error


def file_error(path: Path, error: OSError, *, kept: bool = False) -> UserError:
    """The message for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        stays = " What was written stays." if kept else ""
        return UserError(f"The disk is full: {path} cannot grow.{stays} Free some space and run again.")
    return UserError(
        f"Cannot write {path}: {os.strerror(error.errno) if error.errno else error}. Choose another place."
    )


def per_stream(path: Path, stream: str, streams: Sequence[str]) -> Path:
    """One file per stream where a format cannot hold several: out.mp4 becomes out.<stream>.mp4."""
    return path if len(streams) <= 1 else path.with_name(f"{path.stem}.{stream}{path.suffix}")


def is_stream(path: Path) -> bool:
    """Whether what is written there passes on, to a device, a pipe or standard output, rather than replacing a file."""
    return descriptor(path) is not None or (path.exists() and not path.is_file())


def descriptor(path: Path) -> int | None:
    """The number in /dev/fd/N, or that of /dev/stdout and /dev/stderr."""
    name = os.path.abspath(path)
    match = DESCRIPTOR.fullmatch(name)
    return int(match[1]) if match else {"/dev/stdout": 1, "/dev/stderr": 2}.get(name)


class GrowingFile(Sink):
    """A file to which whole lines are added, opened by the first. A line that does not fit is removed again.

    What an earlier run left unfinished is continued after its last whole line if it has the same header, and otherwise
    kept under a dated name.
    """

    continues: ClassVar[bool] = True

    def __init__(self, path: Path, header: bytes = b"", say: Say = silent) -> None:
        self.path = path
        self._header = header
        self._say = say
        self._file: io.FileIO | None = None
        self._is_stream = self._continued = self._grown = self._failed = False
        self._marker = Marker(path)

    def __enter__(self) -> Self:
        with file_errors(self.path):
            self._is_stream = is_stream(self.path)
            if self._is_stream:
                self._begin_stream()
            elif self._marker.left():
                self._continued = self.continues and self._has_header()
                if self._continued:
                    self._say(note_continued(self.path))
                else:
                    self._say(note_kept(self.path, set_aside(self.path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.path.exists():
                self.begin()
        finally:
            self.close()

    def begin(self) -> None:
        """Opens the file. Until then an older one of this name is untouched."""
        if self._file is not None:
            return
        with file_errors(self.path):
            if self._is_stream:
                number = descriptor(self.path)
                self._file = io.FileIO(self.path if number is None else os.dup(number), "wb")
            else:
                self._marker.set()
                self._file = io.FileIO(self.path, "ab")
                self._file.truncate(_end_of_lines(self.path) if self._continued else 0)
            if self._is_stream or not os.fstat(self._file.fileno()).st_size:
                self._write(self._header)

    def _begin_stream(self) -> None:
        """At once, because the first report must not wait until a pipe has a reader."""
        try:
            self.begin()
        except BaseException:
            self.close()
            raise

    def add(self, lines: bytes) -> None:
        self.begin()
        self._write(lines)
        self._grown = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._marker.release(complete=not (self._failed or self.incomplete))

    def _write(self, lines: bytes) -> None:
        assert self._file is not None
        written = 0
        try:
            while written < len(lines):
                written += self._file.write(lines[written:])
        except OSError as error:
            self._failed = True
            if not self._is_stream:
                self._remove_part(lines[:written])
            raise file_error(self.path, error, kept=self._grown or self._continued) from error

    def _remove_part(self, part: bytes) -> None:
        """Leaves whole lines of what was written last."""
        assert self._file is not None
        with suppress(OSError):
            size = os.fstat(self._file.fileno()).st_size
            os.ftruncate(self._file.fileno(), size - len(part) + part.rfind(b"\n") + 1)

    def _has_header(self) -> bool:
        with open(self.path, "rb") as file:
            return self._header.startswith(file.read(len(self._header)))  # a kill may have cut the header, too


def _end_of_lines(path: Path) -> int:
    """The size without a last line that a kill cut off."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - BLOCK, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
