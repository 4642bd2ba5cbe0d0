"""The preview window of --show. It shows the newest frame, at most 30 times a second, and never delays the pipeline.

A window belongs to one thread, so all OpenCV calls for it are made on the thread that is started here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import cv2

from vlfau.models.errors import UserError

from ..wire import Report
from .base import Pixels, Sink
from .drawing import draw

if TYPE_CHECKING:
    from typing_extensions import Self

REFRESH_S = 1 / 30
QUIT = (27, ord("q"))  # escape


class Preview(Sink):
    """One window per stream. Escape or q stops the engine, as Ctrl-C does."""

    needs_pixels = True

    def __init__(self) -> None:
        if sys.platform == "darwin":
            raise UserError(
                "--show would need the main thread on macOS, which is in use. Use --render FILE or vlfau-watch."
            )
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("--show needs a screen, and this session has none. Use --render FILE or vlfau-watch.")
        self._newest: dict[str, tuple[Report, Pixels]] = {}
        self._guard = threading.Lock()
        self._done = threading.Event()
        self._error: cv2.error | None = None
        self._thread = threading.Thread(target=self._run, name="vlfau-preview")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        if self._error is not None:
            raise UserError(f"This OpenCV cannot open a window: {self._error}. Use --render FILE or vlfau-watch.")
        if pixels is not None:
            with self._guard:
                self._newest[report.stream] = report, pixels

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._done.wait(REFRESH_S):
                with self._guard:
                    newest, self._newest = self._newest, {}
                for stream, (report, pixels) in newest.items():
                    title = f"vlfau-stream: {stream}"
                    cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)  # without OpenCV's toolbar
                    cv2.imshow(title, draw(pixels, report)[..., ::-1])
                if cv2.waitKey(1) & 0xFF in QUIT:
                    interrupt()
                    return
        except cv2.error as error:
            self._error = error
        finally:
            cv2.destroyAllWindows()


def interrupt() -> None:
    """Ctrl-C from another thread. The signal has to reach the main thread, or a wait there would go on."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
