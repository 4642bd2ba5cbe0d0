"""A hostile publisher in front of `subscribe` and `vlfau-watch`: nothing ends, and nothing raw reaches the terminal."""

from __future__ import annotations

import io
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from reports import make_end, make_report, make_status
from rich.console import Console
from rich.live import Live

from vlfau.engine import wire
from vlfau.engine.commands import watch
from vlfau.engine.commands.board import MOST_STREAMS, Board, save_picture
from vlfau.engine.subscriber import KNOWN_TOPICS, MESSAGE_BYTES, TOPIC_BYTES, subscribe
from vlfau.models.errors import UserError

PATIENCE_S = 10
EVIL = (
    "\x1b]52;c;aGk=\x07\x1b]0;title\x07\x1b[2J\x1b[31m\x9b31m\x90q\x9c\r\b\x00\x7f\u202egnp.exe\u2066\u200f\u2028"
    "[red][/][/nothing][link=file:///etc/passwd]x[/link]\nvlfau-watch: FORGED"
)
# What rich itself sends: colours, and on a live screen the cursor, the title of nothing, and the other screen
RICH = re.compile(r"\x1b\[(?:[\d;]*m|\?(?:25|1049)[hl]|[\d;]*[HJKA])|\r(?=\x1b|\n|$)")
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def fields(message: wire.AnyMessage) -> dict[str, Any]:
    return dict(json.loads(wire.line(message)))


def spoilt(message: wire.AnyMessage, **changes: Any) -> bytes:
    return wire.topic(message).encode() + b" " + json.dumps(fields(message) | changes).encode()


def with_face(**changes: Any) -> bytes:
    report = make_report(0, "evil")
    return spoilt(report, faces=[fields(report)["faces"][0] | changes])


def packed(message: wire.AnyMessage, **changes: Any) -> bytes:
    return wire.topic(message).encode() + b" " + msgspec.msgpack.encode(fields(message) | changes)


def bits(**changes: Any) -> bytes:
    report = make_report(0, "evil")
    return packed(report, faces=[fields(report)["faces"][0] | changes])


STATUS, END, REPORT = make_status(0, "evil"), make_end(0, "evil"), make_report(0, "evil")
NAN = float("nan")
MESSAGES: dict[str, list[bytes]] = {
    "escapes in a sentence": [with_face(text=EVIL, why={"AU12": EVIL})],
    "escapes in the name of a stream": [b"au/evil " + json.dumps(fields(REPORT) | {"stream": EVIL}).encode()],
    "escapes in the name of a unit": [with_face(aus={EVIL: {"p": 0.9, "on": True}})],
    "escapes in a status": [
        spoilt(STATUS, note=EVIL, runtime=EVIL, device=EVIL, state=EVIL, model=EVIL, detector=EVIL),
        spoilt(STATUS, tiers={EVIL: EVIL}, drops={EVIL: 1}, queues={EVIL: 1}),
    ],
    "escapes in an end": [spoilt(END, reason=EVIL, error=EVIL)],
    "escapes in the topic": [f"au/{EVIL} ".encode() + wire.line(REPORT)],
    "a text of 20 MB": [with_face(text="x" * 20_000_000)],
    "a text of 7 MB": [with_face(text="lip corner " * 600_000)],
    "deep JSON": [b'status/evil {"v":1,"seq":0,"stream":"evil","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"],
    "deep msgpack": [b"status/evil \x81\xa1x" + b"\x91" * 200_000 + b"\x00"],
    "no payload": [b"au/evil", b"au/evil ", b"status/evil ", b"end/evil {", b"au/"],
    "other JSON": [b"au/evil null", b"au/evil []", b"status/evil {}", b'end/evil "x"', b"au/evil {\xff}"],
    "another schema": [spoilt(REPORT, v=2), spoilt(STATUS, v="x")],
    "wrong types": [spoilt(REPORT, faces=5), spoilt(STATUS, fps_out="x"), spoilt(END, seq=None), with_face(track=-1)],
    "numbers without end": [
        spoilt(STATUS, seq=10**30), spoilt(STATUS, fps_out=1e308, pts=-1e308, uptime_s=1e308),
        b'au/evil {"v":1,"seq":' + b"9" * 5000 + b"}", spoilt(END, elapsed_s=1e308),
        with_face(track=2**62, score=1e300),
    ],
    "no numbers": [
        packed(STATUS, fps_out=NAN, pts=NAN), packed(END, elapsed_s=float("inf")), packed(END, elapsed_s=NAN),
        bits(aus={"AU12": {"p": NAN, "on": True}}, score=NAN), bits(pose=dict.fromkeys(("yaw", "pitch", "roll"), NAN)),
    ],
    "many faces": [spoilt(REPORT, faces=fields(REPORT)["faces"] * 2000)],
    "many units": [with_face(aus={f"unit {k}": {"p": 0.5, "on": True} for k in range(20_000)})],
    "many streams": [wire.encode(make_report(0, f"evil{k}")) for k in range(300)],
    "long names": [b"au/" + b"x" * 5000 + b" " + wire.line(REPORT), spoilt(STATUS, stream="y" * 5000)],
    "noise": [bytes([k]) * 40 for k in range(256)] + [b"au/evil " + bytes(range(256)) * 40],
}  # fmt: skip
BIG = ("a text of 20 MB",)
GOOD = [wire.encode(make_status(0, "good")), wire.encode(make_report(0, "good"))]


@contextmanager
def published(hostile: list[bytes], pause_s: float = 0.05) -> Iterator[str]:
    """Sends good messages again and again, and the others among them."""
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.linger = 0
        publisher.bind("tcp://127.0.0.1:*")
        done = threading.Event()

        def send() -> None:
            for turn in itertools.count():
                for message in [*(hostile if turn % 4 == 1 or not pause_s else ()), *GOOD]:
                    publisher.send(message)
                if done.wait(pause_s):
                    return

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        finally:
            done.set()
            sender.join()


@pytest.mark.parametrize("kind", MESSAGES)
def test_subscribe_goes_on(kind: str) -> None:
    hostile = MESSAGES[kind]
    with (
        published(hostile, 0.3 if kind in BIG else 0.02) as address,
        subscribe(address, [f"{k}/" for k in wire.KINDS], timeout_s=PATIENCE_S, stop_at_end=False) as messages,
    ):
        good = 0
        for message in messages:
            good += message.stream == "good"
            if good == (10 if kind in BIG else 20):
                break
    assert messages.unreadable < 10 * len(hostile)


@pytest.mark.parametrize("kind", MESSAGES)
def test_watching_once_shows_the_rest_and_nothing_raw(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with published(MESSAGES[kind], 0.3 if kind in BIG else 0.05) as address:
        assert watch.main([address, "--once", "--timeout", str(PATIENCE_S)]) == 0
    assert time.monotonic() - began < PATIENCE_S
    printed = capsys.readouterr()
    assert not RAW.search(printed.out)
    assert not re.search("^vlfau-watch: FORGED", printed.out, re.MULTILINE)
    assert printed.err == ""


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind not in BIG])
def test_the_board_shows_every_kind_and_nothing_raw(kind: str, tmp_path: Path) -> None:
    board = Board("tcp://here")
    screen, errors = io.StringIO(), []
    console = Console(file=screen, force_terminal=True, width=110, height=40)
    for data in [*MESSAGES[kind], *GOOD]:
        try:
            board.add(wire.decode(data))
        except UserError as error:
            errors.append(str(error))
            continue
        if kind != "many streams":
            console.print(board)
    console.print(board)
    assert not any(map(RAW.search, errors))
    assert len(board.streams) <= MOST_STREAMS
    assert not RAW.search(RICH.sub("", screen.getvalue()))
    save_picture(board, str(tmp_path / "view.svg"))
    picture = (tmp_path / "view.svg").read_text(encoding="utf-8")
    assert not RAW.search(picture)


def test_the_live_board_survives_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds at once, for a while; then Ctrl-C."""
    screen = io.StringIO()
    end = time.monotonic() + 4

    class EndedLive(Live):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            console = Console(file=screen, force_terminal=True, width=110, height=1000, legacy_windows=False)
            super().__init__(*arguments, console=console, **options)

        def refresh(self) -> None:
            super().refresh()
            if time.monotonic() > end:
                raise KeyboardInterrupt

    monkeypatch.setattr(watch, "Live", EndedLive)
    left_out = (*BIG, "many streams")  # whose panels would fill the screen
    everything = [data for kind, many in MESSAGES.items() if kind not in left_out for data in many if len(data) < 10**6]
    with published(everything, 0.2) as address:
        assert watch.main([address]) == 0
    text = RICH.sub("", screen.getvalue())
    assert "good  playing" in text
    assert "unreadable messages were skipped" in text
    assert not RAW.search(text)


def test_what_could_not_be_read_is_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.bind("tcp://127.0.0.1:*")
        with subscribe(publisher.getsockopt_string(zmq.LAST_ENDPOINT), "status/") as statuses:
            assert publisher.poll(PATIENCE_S * 1000)
            for _ in range(3):
                publisher.send(b'status/x {"v":2}')
            with pytest.raises(TimeoutError, match=r"3 could not be read, the newest because: .*not of schema 1"):
                statuses.receive(timeout_s=0.5)
            assert statuses.unreadable == 3
            assert statuses.lost_total == 0


def test_a_flood_of_nonsense_does_not_stretch_the_time_limit() -> None:
    with published([b"text/x nonsense"] * 2000, 0) as address, subscribe(address, "text/") as texts:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            texts.receive(timeout_s=0.5)
        assert time.monotonic() - began < 2


def test_what_is_remembered_of_topics_is_limited() -> None:
    with subscribe("tcp://127.0.0.1:9", "status/") as statuses:
        for k in range(KNOWN_TOPICS + 100):
            statuses._read(wire.encode(make_status(2 * k, f"s{k}")))
        assert len(statuses._newest) == KNOWN_TOPICS
        assert len(statuses._last) == KNOWN_TOPICS
        statuses._read(wire.encode(make_status(0, "x" * TOPIC_BYTES)))
        assert statuses.unreadable == 1


def test_the_largest_report_of_an_engine_is_far_below_the_limit() -> None:
    assert len(wire.encode(make_report(0, faces=500))) < MESSAGE_BYTES / 2
