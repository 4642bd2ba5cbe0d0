"""Publisher and subscriber over real sockets: late, slow, dead, many and uninvited subscribers."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from reports import make_end, make_report, make_status

from vlfau.engine import wire
from vlfau.engine.keys import make_pair
from vlfau.engine.settings import OutputSettings, PublishSettings
from vlfau.engine.sinks import open_sinks
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.zeromq import Publisher
from vlfau.engine.subscriber import Subscription, subscribe
from vlfau.models.errors import UserError

LOCAL = "tcp://127.0.0.1:*"
PATIENCE_S = 10


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(PublishSettings(bind=LOCAL, wait_subscribers=1)) as made:
        yield made


def joined(publisher: Publisher, stopped: Callable[[], bool] = lambda: False) -> None:
    """Wait as a run does."""
    Sinks([publisher]).wait(stopped)


def play(publisher: Publisher, frames: int, stream: str = "cam") -> None:
    with_texts = Sinks([publisher], [stream])
    for frame in range(frames):
        with_texts.write(make_report(frame, stream, sentence=frame // 10))
    with_texts.end(make_end(stream=stream))


@pytest.mark.parametrize("bind", [LOCAL, "ipc"])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_subscriber_that_is_waited_for_misses_nothing(bind: str, encoding: str, tmp_path: Path) -> None:
    bind = f"ipc://{tmp_path}/s" if bind == "ipc" else bind
    settings = PublishSettings(bind=bind, encoding=encoding, wait_subscribers=1)
    with Publisher(settings) as publisher, subscribe(publisher.address, timeout_s=PATIENCE_S) as reports:
        joined(publisher)
        play(publisher, 50)
        assert [report.frame for report in reports] == list(range(50)), "and the end of the stream ends the loop"
        assert reports.lost_total == 0


def test_topics_are_kinds_or_single_streams(publisher: Publisher) -> None:
    with subscribe(publisher.address, ("au/cam1", "text/", "end/"), timeout_s=PATIENCE_S) as messages:
        joined(publisher)
        both = Sinks([publisher], ["cam1", "cam10"])
        for stream in ("cam1", "cam10"):
            both.write(make_report(0, stream))
        both.end(make_end(stream="cam1"))
        both.end(make_end(stream="cam10"))
        received = [wire.topic(message) for message in messages]
    assert received == ["au/cam1", "text/cam1", "text/cam10", "end/cam1", "end/cam10"], "cam10 only shares a prefix"


def test_the_plain_socket_gets_one_part_topic_space_payload(publisher: Publisher) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.subscribe("au/cam")
        socket.connect(publisher.address)
        joined(publisher)
        publisher.write(make_report(3))
        assert socket.poll(PATIENCE_S * 1000)
        parts = socket.recv_multipart()
    assert len(parts) == 1
    assert wire.decode(parts[0]) == make_report(3)


def test_a_late_subscriber_gets_status_and_sentences_at_once(publisher: Publisher) -> None:
    sinks = Sinks([publisher], ["cam"])
    with subscribe(publisher.address, ("status/", "text/"), timeout_s=PATIENCE_S) as early:
        joined(publisher)
        sinks.write(make_report(0, faces=3))
        sinks.write(make_report(1, faces=2, sentence=1))
        sinks.status(make_status(4))
        received = [early.receive() for _ in range(6)]
        assert len({(wire.topic(one), one.seq) for one in received if one}) == 6
        with subscribe(publisher.address, ("status/", "text/"), timeout_s=PATIENCE_S) as late:
            deadline = time.monotonic() + PATIENCE_S
            while publisher.subscriptions < 6 and time.monotonic() < deadline:  # status/, text/ and end/ of both
                publisher.ready()
                time.sleep(0.01)
            first = [late.receive() for _ in range(3)]
            kinds = {wire.topic(one): one for one in first if one}
            assert set(kinds) == {"status/cam", "text/cam"}
            assert kinds["status/cam"].seq == 4
            assert all(one is not None and one.again for one in first)  # type: ignore[union-attr]
            texts = [(one.track, one.seq) for one in first if isinstance(one, wire.Text)]
            assert texts == [(0, 3), (1, 4)], "the sentences of faces that are present, not of the one that left"
            assert late.lost_total == 0, "joining late is no loss"
        sinks.status(make_status(5))
        assert early.receive() == make_status(5), "repetitions for others are not delivered again"
        assert early.lost_total == 0


def test_the_status_of_a_late_subscriber_is_the_control_of_an_empty_publisher(publisher: Publisher) -> None:
    with subscribe(publisher.address, "status/") as early:
        joined(publisher)
        publisher.write(make_report(0))
        with pytest.raises(TimeoutError, match=r"No message from .* within 0.3 s"):
            early.receive(timeout_s=0.3)


def test_a_slow_subscriber_delays_no_other_and_sees_its_losses() -> None:
    """One reads at once, one only at the end; queues are small and reports large, so that the second must lose some."""
    faces = make_report(0, faces=30).faces
    frames = 3000
    with (
        Publisher(PublishSettings(bind=LOCAL, wait_subscribers=2, send_queue=50)) as publisher,
        subscribe(publisher.address, receive_queue=20, stop_at_end=False) as slow,
        subscribe(publisher.address, timeout_s=PATIENCE_S) as quick,
    ):
        joined(publisher)
        arrived: list[int] = []
        reader = threading.Thread(target=lambda: arrived.extend(report.seq for report in quick))
        reader.start()
        slowest = 0.0
        for frame in range(frames):
            report = msgspec.structs.replace(make_report(frame, faces=0), faces=faces)
            started = time.perf_counter()
            publisher.write(report)
            slowest = max(slowest, time.perf_counter() - started)
            time.sleep(0.0005)
        publisher.end(make_end())
        reader.join(PATIENCE_S)
        assert not reader.is_alive()
        assert slowest < 0.5
        received = drain(slow)
        publisher.write(make_report(frames))
        assert slow.receive(timeout_s=PATIENCE_S) == make_report(frames), "it is still connected"
        assert 0 < received < frames, "the test must overfill the queues to show anything"
        assert slow.lost == {"au/cam": frames - received}
        assert len(arrived) > received, "the quick one received more"


def drain(subscription: Subscription[Any]) -> int:
    """Counts messages until no more arrive."""
    count = 0
    while True:
        try:
            subscription.receive(timeout_s=0.5)
        except TimeoutError:
            return count
        count += 1


@pytest.mark.parametrize("count", [1, 10, 100])
def test_many_subscribers_of_which_some_never_read(count: int) -> None:
    settings = PublishSettings(bind=LOCAL, wait_subscribers=count, send_queue=10)
    with Publisher(settings) as publisher, zmq.Context() as context:
        sockets = []
        for _ in range(count):
            socket = context.socket(zmq.SUB)
            socket.linger = 0
            socket.rcvhwm = 1000
            socket.subscribe("au/")
            socket.connect(publisher.address)
            sockets.append(socket)
        started = time.monotonic()
        joined(publisher, lambda: time.monotonic() - started > PATIENCE_S)
        assert publisher.subscribers == count
        times = []
        for frame in range(100):
            started = time.perf_counter()
            publisher.write(make_report(frame))
            times.append(time.perf_counter() - started)
            time.sleep(0.002)
        readers = [socket for place, socket in enumerate(sockets) if place % 3 == 0]  # the others never read
        for socket in readers:
            for frame in range(100):
                assert socket.poll(PATIENCE_S * 1000)
                assert wire.decode(socket.recv()).seq == frame
        for socket in sockets:
            socket.close(0)
        assert sorted(times)[50] < 0.01


def test_a_dead_subscriber_is_forgotten(publisher: Publisher) -> None:
    doomed = subscribe(publisher.address)
    joined(publisher)
    assert publisher.subscribers == 1
    doomed.close()
    deadline = time.monotonic() + PATIENCE_S
    while publisher.subscribers and time.monotonic() < deadline:
        publisher.write(make_report())
        time.sleep(0.01)
    assert publisher.subscribers == 0


def test_losses_and_restarts_are_distinguished() -> None:
    subscription = subscribe("tcp://127.0.0.1:9")

    def receive(report: wire.Report) -> None:
        topic, _, payload = wire.encode(report).partition(b" ")
        subscription._accept(topic.decode(), payload)

    with subscription:
        for seq in (5, 6, 9, 10, 0, 1, 3):  # 7 and 8 lost; then the engine restarted; then 2 lost
            receive(make_report(seq))
        receive(make_report(0, "other"))
        assert subscription.lost == {"au/cam": 3}


def test_waiting_can_be_stopped(publisher: Publisher) -> None:
    started = time.monotonic()
    joined(publisher, lambda: time.monotonic() - started > 0.2)
    assert time.monotonic() - started < 2


def test_the_end_arrives_even_if_the_engine_exits_at_once() -> None:
    publisher = Publisher(PublishSettings(bind=LOCAL, wait_subscribers=1))
    with publisher, subscribe(publisher.address, "end/", timeout_s=PATIENCE_S) as ends:
        joined(publisher)
        publisher.end(make_end(reason="stopped"))
        publisher.__exit__(None, None, None)
        assert [end.reason for end in ends if isinstance(end, wire.End)] == ["stopped"]
        publisher.__enter__()


# Access


def test_a_public_address_has_to_be_allowed() -> None:
    for bind in ("tcp://0.0.0.0:5556", "tcp://*:5556", "tcp://192.0.2.7:5556", "tcp://eth0:5556", "tcp://[::]:5556"):
        with pytest.raises(UserError, match="--allow-public"):
            Publisher(PublishSettings(bind=bind))
        Publisher(PublishSettings(bind=bind, allow_public=True))
    for bind in ("tcp://localhost:5556", "tcp://127.0.0.2:5556", "tcp://[::1]:5556", "ipc:///tmp/x"):
        Publisher(PublishSettings(bind=bind))


@pytest.mark.parametrize("bind", ["127.0.0.1:5556", "http://127.0.0.1:5556", "tcp://", "inproc://x"])
def test_an_invalid_address_is_refused(bind: str) -> None:
    with pytest.raises(UserError, match="Give tcp://HOST:PORT"):
        Publisher(PublishSettings(bind=bind))


def test_a_taken_address_is_named(publisher: Publisher) -> None:
    with pytest.raises(UserError, match=r"Cannot publish on tcp://127.0.0.1:\d+.*Is another engine running"):
        Publisher(PublishSettings(bind=publisher.address)).__enter__()


def test_keys_for_an_address_that_is_none_are_refused(tmp_path: Path) -> None:
    for publish in (PublishSettings("none", curve_secret=tmp_path), PublishSettings("none", allow=tmp_path)):
        settings = OutputSettings(publish=publish)
        with pytest.raises(UserError, match="--bind is none"):
            open_sinks(settings, ["AU01"], [])


def test_none_opens_no_socket() -> None:
    settings = OutputSettings(publish=PublishSettings(bind="none"))
    assert not any(isinstance(sink, Publisher) for sink in open_sinks(settings, ["AU01"], []).sinks)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    pairs = {name: make_pair(tmp_path / "keys", name) for name in ("engine", "alice", "eve")}
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "alice.key").write_text(pairs["alice"][0].read_text(encoding="utf-8"))
    return pairs


ANOTHER = "encryption on one side only, or another server key"


def first(subscription: Subscription[Any], publisher: Publisher) -> wire.AnyMessage | None:
    """The first message, sent repeatedly until one arrives or time runs out."""
    with subscription:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            publisher.write(make_report())
            try:
                return subscription.receive(timeout_s=0.05)
            except TimeoutError:
                continue
    raise TimeoutError


def test_only_keys_of_the_allow_list_are_admitted(keys: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    settings = PublishSettings(bind=LOCAL, curve_secret=keys["engine"][1], allow=tmp_path / "allowed")
    with Publisher(settings) as publisher:
        alice = subscribe(publisher.address, server_key=keys["engine"][0], secret=keys["alice"][1])
        assert first(alice, publisher) == make_report()
        with pytest.raises(UserError, match="refuses this key"):
            first(subscribe(publisher.address, server_key=keys["engine"][0], secret=keys["eve"][1]), publisher)
        with pytest.raises(UserError, match="refuses this key"):
            first(subscribe(publisher.address, server_key=keys["engine"][0]), publisher)
        with pytest.raises(UserError, match=ANOTHER):  # no key at all
            first(subscribe(publisher.address), publisher)
        with pytest.raises(UserError, match=ANOTHER):  # another server's key
            first(subscribe(publisher.address, server_key=keys["eve"][0], secret=keys["alice"][1]), publisher)
        again = subscribe(publisher.address, server_key=keys["engine"][0], secret=keys["alice"][1])
        assert first(again, publisher) == make_report(), "refused subscribers did no harm"


def test_without_an_allow_list_the_server_key_is_enough(keys: dict[str, tuple[Path, Path]]) -> None:
    with Publisher(PublishSettings(bind=LOCAL, curve_secret=keys["engine"][1])) as publisher:
        assert first(subscribe(publisher.address, server_key=keys["engine"][0]), publisher) == make_report()
        with pytest.raises(UserError, match=ANOTHER):
            first(subscribe(publisher.address), publisher)


def test_nothing_readable_is_on_the_line_with_curve(keys: dict[str, tuple[Path, Path]]) -> None:
    with Publisher(PublishSettings(bind=LOCAL, curve_secret=keys["engine"][1])) as publisher:
        assert bytes_on_the_line(publisher, keys["engine"][0]).count(b"landmarks") == 0
    with Publisher(PublishSettings(bind=LOCAL)) as publisher:
        assert bytes_on_the_line(publisher, None).count(b"landmarks") > 0, "the control: plain text shows"


def bytes_on_the_line(publisher: Publisher, server_key: Path | None) -> bytes:
    """Everything that a relay between both sides can read."""
    import socket

    port = int(publisher.address.rpartition(":")[2])
    seen = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as relay:

        def carry(source: socket.socket, target: socket.socket) -> None:
            try:
                while data := source.recv(65536):
                    seen.extend(data)
                    target.sendall(data)
            except OSError:
                pass

        def accept() -> None:
            left, _ = relay.accept()
            with left, socket.create_connection(("127.0.0.1", port)) as right:
                threads = [threading.Thread(target=carry, args=pair) for pair in ((left, right), (right, left))]
                for thread in threads:
                    thread.start()
                threads[0].join()
                right.shutdown(socket.SHUT_RDWR)
                threads[1].join()

        relayed = threading.Thread(target=accept)
        relayed.start()
        address = f"tcp://127.0.0.1:{relay.getsockname()[1]}"
        assert first(subscribe(address, server_key=server_key), publisher) == make_report()
        relayed.join()
    return bytes(seen)


def test_an_allow_list_without_encryption_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--curve-secret"):
        Publisher(PublishSettings(bind=LOCAL, allow=tmp_path))


def test_an_empty_allow_list_is_refused(keys: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    (tmp_path / "nobody").mkdir()
    settings = PublishSettings(bind=LOCAL, curve_secret=keys["engine"][1], allow=tmp_path / "nobody")
    with pytest.raises(UserError, match="no subscriber could join"):
        Publisher(settings).__enter__()


def test_a_secret_file_is_private(keys: dict[str, tuple[Path, Path]]) -> None:
    assert stat.S_IMODE(keys["engine"][1].stat().st_mode) == 0o600


def test_unknown_topics_are_refused() -> None:
    with pytest.raises(UserError, match="Unknown topic 'faces'"):
        subscribe("tcp://127.0.0.1:9", "faces")
