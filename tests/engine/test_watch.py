"""The terminal view and its command, against a real publisher."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from reports import SENTENCES, make_end, make_report, make_status
from rich.console import Console

from vlfau.engine.commands.board import BAR_CELLS, Board, bar, save_picture
from vlfau.engine.commands.watch import main
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.zeromq import Publisher


def shown(board: Board, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(board)
    return console.export_text()


@pytest.fixture
def engine() -> Iterator[str]:
    """A publisher that sends a report every 20 ms and a status every tenth time."""
    stop = threading.Event()
    with Publisher(PublishSettings(bind="tcp://127.0.0.1:*")) as publisher:
        sinks = Sinks([publisher], ["cam", "door"])

        def run() -> None:
            frame = 0
            while not stop.wait(0.02):
                for stream in ("cam", "door"):
                    sinks.write(make_report(frame, stream, faces=2))
                    if frame % 10 == 0:
                        sinks.status(make_status(frame // 10, stream))
                frame += 1

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield publisher.address
        finally:
            stop.set()
            thread.join()


def test_a_board_shows_streams_faces_units_and_sentences() -> None:
    board = Board("tcp://here")
    assert "Waiting for an engine at tcp://here" in shown(board)
    report = make_report(7, faces=2, sentence=1)
    for message in (report, make_status(3), make_report(0, "door", faces=0)):
        board.add(message)
    text = shown(board)
    for piece in ("cam  playing", "door", "no face in the frame", "face 0", "face 1", "AU12", "lip corner puller"):
        assert piece in text
    assert SENTENCES[1] in text
    assert "24.9 fps · latency p50 10 p95 14 p99 22 ms" in text
    assert f"{report.faces[0].aus['AU12'].p:.2f}" in text
    assert "openvino on CPU" in text


def test_a_board_marks_faces_not_judged_and_streams_that_ended_or_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board("tcp://here")
    board.add(make_report(0, valid=False))
    assert "not judged" in shown(board)
    now = time.monotonic()
    monkeypatch.setattr("vlfau.engine.commands.board.time.monotonic", lambda: now + 10)
    assert "silent" in shown(board)
    board.add(make_end(reason="lost"))
    text = shown(board)
    assert "lost" in text
    assert "100 frames in 0:04" in text
    board.add(make_report(0))
    assert "playing" in shown(board), "an engine that came back"


def test_a_crowd_is_counted_and_narrow_terminals_hold() -> None:
    board = Board("x")
    board.add(make_report(0, faces=9))
    assert "and 3 more" in shown(board)
    for width in (20, 40, 80):
        assert all(len(line) <= width for line in shown(board, width).splitlines())


def test_bars_grow_with_the_share() -> None:
    lengths = [len(bar(share / 20, "red").plain.rstrip()) for share in range(21)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (0, BAR_CELLS)
    assert all(len(bar(share, "red").plain) == BAR_CELLS for share in (-1.0, 0.5, 2.0))


def test_a_snapshot_is_an_svg_with_the_text(tmp_path: Path) -> None:
    board = Board("tcp://here")
    board.add(make_report(3))
    save_picture(board, str(tmp_path / "out.svg"))
    words = "".join(ElementTree.parse(tmp_path / "out.svg").getroot().itertext())
    assert "lip\N{NO-BREAK SPACE}corner\N{NO-BREAK SPACE}puller" in words


def test_once_prints_and_leaves(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([engine, "--once"]) == 0
    text = capsys.readouterr().out
    assert "AU12" in text
    assert main([engine, "--once", "--stream", "door"]) == 0
    text = capsys.readouterr().out
    assert "door" in text
    assert "cam" not in text


def test_a_terminal_without_unicode_gets_the_words(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main([engine, "--once"]) == 0
    sys.stdout.flush()
    assert b"cam" in raw.getvalue()


def test_a_snapshot_is_stored(engine: str, tmp_path: Path) -> None:
    assert main([engine, "--snapshot", str(tmp_path / "view.svg")]) == 0
    assert (tmp_path / "view.svg").read_text(encoding="utf-8").startswith("<svg")


def test_no_engine_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tcp://127.0.0.1:9", "--once", "--timeout", "0.3"]) == 2
    assert "No message from tcp://127.0.0.1:9 within 0.3 s. Is an engine running?" in capsys.readouterr().err
    assert main(["nonsense", "--once"]) == 2
    assert "Cannot connect to 'nonsense'" in capsys.readouterr().err
