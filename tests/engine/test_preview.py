"""The preview window, with OpenCV's window calls replaced: tests run without a screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from reports import make_picture, make_report

from vlfau.engine.sinks import preview
from vlfau.models.errors import UserError

WAIT_S = 30


class Window:
    """Stands for OpenCV: remembers what was shown and by which threads, and presses a key."""

    WINDOW_AUTOSIZE = WINDOW_GUI_NORMAL = 0

    class error(Exception):  # OpenCV's name
        pass

    def __init__(self, key: int = -1, broken: bool = False) -> None:
        self.key, self.broken = key, broken
        self.shown: list[np.ndarray] = []
        self.threads: set[int] = set()
        self.closed = False

    def namedWindow(self, title: str, flags: int) -> None:
        self.threads.add(threading.get_ident())
        if self.broken:
            raise self.error("no display driver")

    def imshow(self, title: str, picture: np.ndarray) -> None:
        self.threads.add(threading.get_ident())
        self.shown.append(picture)

    def waitKey(self, delay: int) -> int:
        assert delay == 1, "0 would wait for a key for ever"
        return self.key if self.shown else -1

    def destroyAllWindows(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed = True


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[[Window], preview.Preview]:
    def opened(window: Window) -> preview.Preview:
        monkeypatch.setattr(preview, "cv2", window)
        return preview.Preview()

    monkeypatch.setattr("vlfau.engine.sinks.preview.sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    return opened


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_without_a_screen_it_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("vlfau.engine.sinks.preview.sys.platform", system)
    with pytest.raises(UserError, match="--render FILE or vlfau-watch"):
        preview.Preview()


def test_it_shows_the_newest_picture_in_opencvs_order_and_skips_the_rest(
    show: Callable[[Window], preview.Preview],
) -> None:
    window = Window()
    with show(window) as sink:
        for frame in range(50):
            sink.write(make_report(frame, faces=0), make_picture(shade=frame))
        deadline = time.monotonic() + WAIT_S
        newest = make_picture(shade=49)[..., ::-1]
        while not (window.shown and np.array_equal(window.shown[-1], newest)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert 1 <= len(window.shown) < 50
    assert np.array_equal(window.shown[-1], newest)
    assert window.closed
    assert len(window.threads) == 1
    assert threading.get_ident() not in window.threads


@pytest.mark.parametrize("key", [27, ord("q")])
def test_escape_and_q_stop_as_ctrl_c_does(show: Callable[[Window], preview.Preview], key: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        wait_for_the_key(show(Window(key)))


def wait_for_the_key(sink: preview.Preview) -> None:
    with sink:
        sink.write(make_report(), make_picture())
        threading.Event().wait(WAIT_S)


def test_a_window_that_cannot_open_stops_the_run_in_words(show: Callable[[Window], preview.Preview]) -> None:
    with pytest.raises(UserError, match=r"cannot open a window: no display driver.*--render"):
        write_until_it_fails(show(Window(broken=True)))


def write_until_it_fails(sink: preview.Preview) -> None:
    with sink:
        for frame in range(WAIT_S * 100):
            sink.write(make_report(frame), make_picture())
            time.sleep(0.01)
