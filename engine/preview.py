"""The preview window of --show. It shows at most 30 pictures a second and never waits for a screen."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

import cv2

from vlfau.models.errors import UserError

from .drawing import draw
from .sinks import Pixels, Sink
from .wire import Report

LEAST_BETWEEN_S = 1 / 30
QUIT = (27, ord("q"))  # escape


class Preview(Sink):
    """One window per stream. Escape or q asks the engine to stop, as Ctrl-C does."""

    needs_pixels = True

    def __init__(self, streams: Sequence[str]) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("--show needs a screen, and this session has none. Use --render FILE or vlfau-watch.")
        self._shown: dict[str, float] = dict.fromkeys(streams, 0.0)

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        now = time.monotonic()
        if pixels is None or now - self._shown.get(report.stream, 0.0) < LEAST_BETWEEN_S:
            return
        self._shown[report.stream] = now
        try:
            cv2.imshow(f"vlfau-stream: {report.stream}", draw(pixels, report)[..., ::-1])
            key = cv2.waitKey(1) & 0xFF
        except cv2.error as error:
            raise UserError(f"This OpenCV cannot open a window ({error}). Use --render FILE or vlfau-watch.") from None
        if key in QUIT:
            signal.raise_signal(signal.SIGINT)

    def close(self) -> None:
        if any(self._shown.values()):
            cv2.destroyAllWindows()
