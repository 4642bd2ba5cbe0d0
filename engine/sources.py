"""What the user names -> sources with stream names. What each kind of source does is in its own module."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Protocol
from urllib.parse import urlsplit

from vlfau.models.errors import UserError

from .counters import Counters
from .packets import Ended, Frame, Stamp
from .settings import SourceSettings
from .sinks import Origin
from .wire import stream_name

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
RECORDED = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".wmv"}  # an address ending so is a file, not live
ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass
class Context:
    """What every source is given."""

    address: str
    settings: SourceSettings
    counters: Counters
    stopping: Event
    hint: str = "Is it a complete video file of a known format?"  # what the user is told when it cannot be read

    @property
    def stream(self) -> str:
        return self.counters.stream


class Source(Protocol):
    """frames() runs on the source's own thread and owns what it opens."""

    context: Context
    live: bool  # newest frame: a full channel forgets its oldest
    stills: bool  # each picture stands alone, nothing is followed from one to the next

    @property
    def origin(self) -> Origin: ...

    def frames(self) -> Generator[Frame | Ended, None, None]: ...


@dataclass
class Selection:
    """Which frames are looked at: --start, --duration, --every, --max-fps. Index and time are a stream's own."""

    settings: SourceSettings
    begin: float = 0.0  # the first wanted second
    _next_pts: float = field(default=float("-inf"))

    def wants(self, index: int, pts: float) -> bool:
        if index % self.settings.every:
            return False
        if self.settings.max_fps is None:
            return True
        period = 1 / self.settings.max_fps
        if (
            self._next_pts - 2 * period < pts < self._next_pts - 1e-6
        ):  # a clock that jumped back does not stop the video
            return False
        # keep to the grid, so that 30 -> 20 frames a second gives 20 and not 15
        self._next_pts = max(self._next_pts + period, pts + period / 2)
        return True

    def over(self, pts: float) -> bool:
        return self.settings.duration is not None and pts >= self.begin + self.settings.duration - 1e-6


def stamp(stream: str, index: int, pts: float, decode_ms: float) -> Stamp:
    return Stamp(stream, index, round(pts, 6), time.time_ns(), time.monotonic_ns(), decode_ms)


def open_sources(addresses: Sequence[str], settings: SourceSettings, stopping: Event) -> list[Source]:
    if not addresses:
        raise UserError(
            "No source was given. Name a video file, a camera (0), an address (rtsp://...), a folder or -, "
            "or give --demo."
        )
    if len(settings.name) > len(addresses):
        raise UserError(
            f"{len(settings.name)} names were given for {len(addresses)} sources. Give one name per source."
        )
    names = unique([*settings.name, *map(derived_name, addresses[len(settings.name) :])])
    return [
        open_source(Context(address, settings, Counters(name), stopping)) for address, name in zip(addresses, names)
    ]


def open_source(context: Context) -> Source:
    address = context.address
    if address == "-":
        from .stdin_source import StdinSource

        return StdinSource(context)
    if is_camera(address):
        from .live_source import LiveSource

        return LiveSource(context, camera=True)
    if ADDRESS.match(address) and not address.lower().startswith("file://"):
        from .file_source import FileSource
        from .live_source import LiveSource, is_film

        live = context.settings.live
        if live is None:
            live = is_live(address) and not (is_list(address) and is_film(context))
        return LiveSource(context) if live else FileSource(context)
    return _open_path(context)


def _open_path(context: Context) -> Source:
    from .file_source import FileSource
    from .image_source import ImageSource

    address = re.sub(r"^file://", "", context.address)
    path = Path(address).expanduser()
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in PICTURES]
        if not files:
            raise UserError(f"Folder {path} holds no pictures ({', '.join(sorted(PICTURES))}).")
        return ImageSource(context, files)
    if path.is_file():
        if path.suffix.lower() in PICTURES:
            return ImageSource(context, [path])
        return FileSource(context, path)
    if glob.has_magic(address):
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]
        if not files:
            raise UserError(f"Nothing matches '{address}'. Check the pattern and quote it for the shell.")
        return ImageSource(context, files)
    if path.exists():  # a named pipe or another device: read like a file, but never opened twice
        return FileSource(context)
    raise UserError(
        f"Source '{context.address}' does not exist. Name a video file, a folder or pattern of pictures, a camera (0), "
        "an address (rtsp://...) or - for standard input."
    )


def is_camera(address: str) -> bool:
    """A number, a device, or one of the names under which Linux keeps a device wherever it is plugged in."""
    return address.isdecimal() or address.startswith(("/dev/video", "/dev/v4l/"))


def is_live(address: str) -> bool:
    parts = urlsplit(address)
    return not (parts.scheme.lower() in ("http", "https") and Path(parts.path).suffix.lower() in RECORDED)


def is_list(address: str) -> bool:
    """Of HTTP Live Streaming, which names the pieces of a film as well as those of a camera."""
    return Path(urlsplit(address).path).suffix.lower() in (".m3u8", ".m3u")


def derived_name(address: str) -> str:
    """Short, and without user names and passwords."""
    if address == "-":
        return "stdin"
    if is_camera(address):
        device = Path(address).name.removeprefix("video")
        return f"camera{device}" if device.isdecimal() else stream_name(f"camera-{device}")
    if ADDRESS.match(address) and not address.lower().startswith("file://"):
        parts = urlsplit(address)
        return stream_name("-".join(part for part in (parts.hostname or "", Path(parts.path).stem) if part))
    path = Path(re.sub(r"[*?\[\]]", "", address))
    return stream_name(path.name if Path(address).is_dir() else path.stem or path.parent.name)


def unique(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for wanted in map(stream_name, names):
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.append(name)
    return taken
