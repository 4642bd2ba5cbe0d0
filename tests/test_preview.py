"""The preview window, with OpenCV's window calls replaced: tests run without a screen."""

from __future__ import annotations

import numpy as np
import pytest
from reports import make_picture, make_report

from vlfau.engine import preview
from vlfau.models.errors import UserError


class Window:
    """Stands for OpenCV: remembers what was shown, and presses a key."""

    error = RuntimeError

    def __init__(self, key: int = -1) -> None:
        self.key, self.shown = key, list[np.ndarray]()

    def imshow(self, title: str, picture: np.ndarray) -> None:
        self.shown.append(picture)

    def waitKey(self, delay: int) -> int:
        assert delay == 1, "0 would wait for a key for ever"
        return self.key

    def destroyAllWindows(self) -> None:
        self.shown.append(np.empty(0))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")


def test_without_a_screen_it_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("vlfau.engine.preview.sys.platform", "linux")
    with pytest.raises(UserError, match="--render FILE or vlfau-watch"):
        preview.Preview(["cam"])


@pytest.mark.usefixtures("screen")
def test_it_shows_the_drawing_in_opencvs_order_and_skips_what_no_eye_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()
    monkeypatch.setattr(preview, "cv2", window)
    with preview.Preview(["cam"]) as sink:
        for frame in range(20):
            sink.write(make_report(frame, faces=0), make_picture())
    *shown, closed = window.shown
    assert 1 <= len(shown) < 20
    assert np.array_equal(shown[0], make_picture()[..., ::-1])
    assert closed.size == 0


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize("key", [27, ord("q")])
def test_escape_and_q_stop_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch, key: int) -> None:
    monkeypatch.setattr(preview, "cv2", Window(key))
    sink = preview.Preview(["cam"])
    with pytest.raises(KeyboardInterrupt):
        sink.write(make_report(), make_picture())
