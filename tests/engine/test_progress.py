"""What the person beside the machine sees."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from reports import make_end, make_report, make_status

from vlfau.engine.packets import Origin
from vlfau.engine.sinks.base import Sink
from vlfau.engine.sinks.progress import BarProgress, PlainProgress, clock, open_progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(sink: Sink) -> None:
    with sink:
        for frame in range(50):
            sink.write(make_report(frame))
        sink.status(make_status(2, frame=49, pts=1.96, uptime_s=4.0, duration_s=3.92, faces=1))
        sink.end(make_end())


def test_a_file_gets_plain_lines_and_a_summary() -> None:
    output = io.StringIO()
    sink = open_progress([Origin("cam", duration_s=3.92)], output)
    assert isinstance(sink, PlainProgress)
    run(sink)
    status, summary, *more = output.getvalue().splitlines()
    for piece in ("cam: playing", "frame 49", "24.9 fps", "1 face", "p95 14.0 ms", "3 dropped", "50%, 0:04 left"):
        assert piece in status
    assert "\x1b" not in output.getvalue(), "no control characters in a log"
    assert "finished after 0:04, 100 frames at 25.0 fps, 1 face followed, 3 frames dropped (late 3)" in summary
    assert any("p50 10.0" in line for line in more)
    assert any("share of 50 faces: AU" in line for line in more)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    output = Screen()
    sink = open_progress([Origin("cam", duration_s=3.92)], output)
    assert isinstance(sink, BarProgress)
    run(sink)
    assert "\x1b[" in output.getvalue()
    assert "━" in output.getvalue()
    assert "100 frames at 25.0 fps" in output.getvalue()


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.4, 61, 3725)] == ["0:00", "0:59", "1:01", "1:02:05"]


EVIL = "a\nvlfau-stream: FORGED\x1b]0;t\x07\x9b2J\u202e [red][/x]"


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_notes_control_no_terminal_and_forge_no_line(terminal: bool) -> None:
    output = Screen() if terminal else io.StringIO()
    sink = open_progress([Origin(EVIL, duration_s=3.92)], output)
    with sink:
        sink.write(make_report(0, EVIL))
        for state in ("reconnecting", "playing"):
            sink.status(make_status(2, EVIL, state=state, note=EVIL))
        sink.end(msgspec.structs.replace(make_end(0, EVIL), error=EVIL, reason="lost"))
    text = output.getvalue()
    assert "FORGED" in text
    assert "[red][/x]" in text
    assert not any(line.startswith("vlfau-stream") for line in text.splitlines())
    if terminal:
        text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text).replace("\r", "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
