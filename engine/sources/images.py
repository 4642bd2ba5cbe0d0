"""Image files, in natural order (2 before 10). Each stands alone, unless they are declared a sequence."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfau.models.terminal import plain

from ..packets import Ended, Frame, Origin
from .base import Context, Pace, Selection, Unreadable, stamp


class ImageSource:
    live = False

    def __init__(self, context: Context, files: Sequence[Path]) -> None:
        self.context = context
        self.stills = not context.settings.sequence
        self.files = sorted((file for file in files if file.is_file()), key=natural)

    @property
    def origin(self) -> Origin:
        frames = len(self.files)
        duration_s = frames / self.context.settings.image_fps
        return Origin(self.context.stream, duration_s=duration_s, frames=frames, files=tuple(self.files))

    def frames(self) -> Generator[Frame | Ended, None, None]:
        settings, counters = self.context.settings, self.context.counters
        selection = Selection(settings, begin=settings.start)
        pace = Pace(self.context) if settings.realtime else None
        for index, file in enumerate(self.files):
            began = time.monotonic_ns()
            pts = index / settings.image_fps
            if self.context.stopping.is_set() or selection.over(pts):
                break
            if pts < settings.start - 1e-6 or not selection.wants(index, pts):
                continue
            pixels = read_image(file)
            if pixels is None:
                counters.drop("unreadable")
                counters.note = f"{plain(file.name)} is not a readable image"
                continue
            if pace is not None:
                pace.wait_for(pts)
            counters.state = "playing"
            counters.height, counters.width = pixels.shape[:2]
            counters.frames_in += 1
            yield Frame(stamp(self.context.stream, index, pts, (time.monotonic_ns() - began) / 1e6), pixels)
        if not counters.frames_in and counters.drops:
            raise Unreadable(f"None of the {len(self.files)} files of '{self.context.stream}' is a readable image.")
        yield Ended(self.context.stream, "finished")


def read_image(file: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) RGB, rotated upright by its EXIF tag; None if it cannot be read."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def natural(file: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(file))]
