"""Addresses: the kind of source that one names, and the stream name derived from it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from vlfau.models.files import VIDEOS

from ..wire import stream_name

ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_camera(address: str) -> bool:
    """A number, a device file, or one of the names that Linux gives a device independently of its port."""
    return address.isdecimal() or address.startswith(("/dev/video", "/dev/v4l/"))


def is_live(address: str) -> bool:
    parts = urlsplit(address)
    return not (parts.scheme.lower() in ("http", "https") and Path(parts.path).suffix.lower() in VIDEOS)


def is_list(address: str) -> bool:
    """Whether it is a playlist of HTTP Live Streaming, which may be of a recording or of a camera."""
    return Path(urlsplit(address).path).suffix.lower() in (".m3u8", ".m3u")


def derived_name(address: str) -> str:
    """A short name, without user names and passwords."""
    if address == "-":
        return "stdin"
    if is_camera(address):
        device = Path(address).name.removeprefix("video")
        return f"camera{device}" if device.isdecimal() else stream_name(f"camera-{device}")
    if ADDRESS.match(address) and not address.lower().startswith("file://"):
        parts = urlsplit(address)
        return stream_name("-".join(part for part in (parts.hostname or "", Path(parts.path).stem) if part))
    path = Path(re.sub(r"[*?\[\]]", "", address))
    return stream_name(path.name if os.path.isdir(address) else path.stem or path.parent.name)


def unique(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for stem in map(stream_name, names):
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.append(name)
    return taken
