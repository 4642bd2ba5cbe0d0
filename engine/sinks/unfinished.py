"""What a run leaves that was killed or failed: the marker that shows it, and the dated name under which a file is kept.

While a file is written, `.NAME.unfinished` lies next to it. The run holds a lock on this marker, which the system
releases when the run ends in any way, and removes it when the file is complete.
"""

from __future__ import annotations

import os
import stat
import sys
from datetime import datetime
from io import FileIO
from pathlib import Path

from vlfau.models.errors import UserError


class Marker:
    """The marker of one file. Devices and pipes get none, nor do files in a folder where nothing can be created."""

    def __init__(self, file: Path) -> None:
        self._file = Path(os.path.realpath(file))
        self.path = self._file.with_name(f".{self._file.name}.unfinished")
        self._held: FileIO | None = None

    def left(self) -> bool:
        """Whether an earlier run left the file unfinished. A UserError if a run is writing it now."""
        try:
            marker = FileIO(self.path)
        except OSError:
            return False
        with marker:
            self._lock(marker)
            return self._file.exists()

    def set(self) -> None:
        if self._held is not None or (self._file.exists() and not stat.S_ISREG(self._file.stat().st_mode)):
            return
        try:
            marker = FileIO(self.path, "ab")
        except OSError:
            return
        try:
            self._lock(marker)
        except BaseException:
            marker.close()
            raise
        self._held = marker
        try:
            marker.truncate(0)
            marker.write(f"written by process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode())
        except OSError:  # the disk is full: an empty marker does as well
            return

    def release(self, *, complete: bool) -> None:
        if self._held is not None:
            if complete:
                self.path.unlink(missing_ok=True)
            self._held.close()
            self._held = None

    def _lock(self, marker: FileIO) -> None:
        if sys.platform == "win32":  # has no flock
            return
        import fcntl

        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another run is writing {self._file}. Stop it, or choose another name.") from None
        except OSError:  # some network drives have no locks
            return


def set_aside(path: Path) -> Path:
    """Renames what a run left to a name with the time of its last change, such as NAME.2026-12-01T00-10-05.mp4."""
    path = Path(os.path.realpath(path))
    when = f"{datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%dT%H-%M-%S}"
    number, name = 1, path.with_name(f"{path.stem}.{when}{path.suffix}")
    while name.exists():
        number += 1
        name = path.with_name(f"{path.stem}.{when}-{number}{path.suffix}")
    path.rename(name)
    return name


def note_continued(path: Path) -> str:
    return f"{path} was left unfinished by an earlier run and is continued."


def note_kept(path: Path, kept: Path) -> str:
    return f"{path} was left unfinished by an earlier run and is kept as {kept.name}."
