"""Opens the sources that the user names, and gives each a stream name."""

from __future__ import annotations

import glob
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from vlfau.models.errors import UserError
from vlfau.models.files import PICTURES

from ..counters import Counters
from ..settings import SourceSettings
from .addresses import ADDRESS, derived_name, is_camera, is_list, is_live, unique
from .base import Context, Source


def open_sources(addresses: Sequence[str], settings: SourceSettings, stopping: Event) -> list[Source]:
    if not addresses:
        raise UserError(
            "No source was given. Name a video file, a camera (0), an address (rtsp://...), a folder or -, "
            "or use --demo."
        )
    if len(settings.name) > len(addresses):
        raise UserError(
            f"{len(settings.name)} names were given for {len(addresses)} sources. Give one name per source."
        )
    names = unique([*settings.name, *map(derived_name, addresses[len(settings.name) :])])
    alone = len(addresses) == 1
    return [
        open_source(Context(address, settings, Counters(name), stopping, alone=alone))
        for address, name in zip(addresses, names)
    ]


def open_source(context: Context) -> Source:
    address = context.address
    if not address.strip():
        raise UserError("The name of a source is empty. Name a video file, a camera (0) or an address.")
    if address == "-":
        from .pipe import PipeSource

        return PipeSource(context)
    if is_camera(address):
        from .live import LiveSource

        return LiveSource(context, camera=True)
    if ADDRESS.match(address) and not address.lower().startswith("file://"):
        from .file import FileSource
        from .live import LiveSource

        return LiveSource(context) if _is_live(context) else FileSource(context)
    try:
        return _open_path(context)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"Source '{address}' cannot be opened: {why}. May this user read it?") from None


def _is_live(context: Context) -> bool:
    address, settings = context.address, context.settings
    if settings.live is not None:
        return settings.live
    if not is_live(address):
        return False
    if not is_list(address):
        return True
    from .decoding import has_length

    lengths: list[bool] = []

    def look() -> None:
        lengths.append(has_length(address, settings.open_timeout, settings.read_timeout))

    looking = threading.Thread(target=look, name="vlfau-open", daemon=True)
    looking.start()
    looking.join()  # on this thread, a signal would be heard only when FFmpeg returns
    return not (lengths and lengths[0])


def _open_path(context: Context) -> Source:
    from .file import FileSource
    from .images import ImageSource
    from .pipe import PipeSource

    address = re.sub(r"^file://", "", context.address)
    path = Path(address).expanduser()
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in PICTURES]
        if not files:
            raise UserError(f"Folder {path} holds no images ({', '.join(sorted(PICTURES))}).")
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
    if path.exists():  # a named pipe or another device, which can be opened only once
        return PipeSource(context, path)
    raise UserError(
        f"Source '{context.address}' does not exist. Name a video file, a folder or pattern of images, a camera (0), "
        "an address (rtsp://...) or - for standard input."
    )
