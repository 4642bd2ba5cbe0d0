"""What peers may not do to a publisher and its other subscribers, and a publisher to files and other engines."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from reports import make_report, make_status

from vlfau.engine import wire
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.prometheus import parse
from vlfau.engine.sinks.zeromq import ANSWER_S, PEER_MESSAGE_BYTES, Publisher
from vlfau.engine.subscriber import Subscription, subscribe
from vlfau.models.errors import UserError

LOCAL = "tcp://127.0.0.1:*"
PATIENCE_S = 10
MEMORY_MB = 40
SILENCE_S = 1.5

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"


def frame(body: bytes, command: bool = False) -> bytes:
    if len(body) < 256:
        return bytes([4 * command, len(body)]) + body
    return bytes([4 * command | 2]) + len(body).to_bytes(8, "big") + body


def attack(address: str, payload: bytes) -> None:
    """Joins in the protocol of ZeroMQ, sends the bytes, and stays for a second unless the publisher disconnects."""
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as peer:
        try:
            peer.sendall(GREETING)
            peer.recv(len(GREETING), socket.MSG_WAITALL)
            peer.sendall(frame(READY, command=True) + payload)
            end = time.monotonic() + 1
            while time.monotonic() < end and peer.recv(65536):
                pass
        except OSError:
            pass


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Listener(threading.Thread):
    """A subscriber that reads reports and statuses, and remembers the longest time without a report."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.frames: list[int] = []
        self.repeated = 0
        self.silence_s = 0.0
        self.over = threading.Event()
        self._address = address

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
            subscriber.linger = 0
            subscriber.rcvhwm = 0
            for topic in ("au/", "status/"):
                subscriber.subscribe(topic)
            subscriber.connect(self._address)
            last = None
            while not self.over.is_set():
                if not subscriber.poll(50):
                    continue
                message = wire.decode(subscriber.recv())
                if isinstance(message, wire.Report):
                    now = time.monotonic()
                    self.silence_s = max(self.silence_s, now - (last or now))
                    last = now
                    self.frames.append(message.frame)
                elif isinstance(message, wire.Status):
                    self.repeated += message.again


def suffer(payload: bytes, seconds: float = 2.0) -> tuple[Listener, int, float]:
    """A publisher under attack: the other subscriber, how many frames were sent, and how much memory grew in MB."""
    with Publisher(PublishSettings(bind=LOCAL, wait_subscribers=1, send_queue=10_000)) as publisher:
        listener = Listener(publisher.address)
        listener.start()
        while not publisher.ready():
            time.sleep(0.005)
        before = most = resident_mb()
        attacker = threading.Thread(target=attack, args=(publisher.address, payload))
        attacker.start()
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end or attacker.is_alive():
            publisher.write(make_report(sent))
            if sent % 25 == 0:
                publisher.status(make_status(sent // 25))
            sent += 1
            most = max(most, resident_mb())
            time.sleep(0.01)
        attacker.join()
        deadline = time.monotonic() + PATIENCE_S
        while len(listener.frames) < sent and time.monotonic() < deadline:
            time.sleep(0.01)
        listener.over.set()
        listener.join()
    return listener, sent, most - before


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory from /proc")


@linux
@pytest.mark.parametrize("megabytes", [2, 8])
def test_one_long_topic_costs_neither_memory_nor_messages(megabytes: int) -> None:
    payload = frame(b"\x01" + b"au/x" * (megabytes * 250_000))
    listener, sent, grown_mb = suffer(payload)
    assert listener.frames == list(range(sent))
    assert grown_mb < MEMORY_MB + 2 * megabytes, "this process holds what is sent, too"
    assert listener.silence_s < SILENCE_S


@linux
def test_subscribing_again_and_again_is_not_answered_to_everybody() -> None:
    listener, sent, grown_mb = suffer(frame(b"\x01status/") * 50_000)
    assert listener.frames == list(range(sent))
    assert listener.repeated < 200
    assert grown_mb < MEMORY_MB
    assert listener.silence_s < SILENCE_S


def test_the_longest_name_of_a_stream_can_be_subscribed_to() -> None:
    name = wire.stream_name("\N{GRINNING FACE}" * 5000)
    assert len(f"\x01status/{name}".encode()) < PEER_MESSAGE_BYTES
    with (
        Publisher(PublishSettings(bind=LOCAL, wait_subscribers=1)) as publisher,
        subscribe(publisher.address, f"status/{name}", timeout_s=PATIENCE_S) as statuses,
    ):
        while not publisher.ready():
            time.sleep(0.005)
        publisher.status(make_status(0, name))
        message = statuses.receive()
    assert message is not None
    assert message.stream == name


def test_two_that_join_at_once_are_both_answered() -> None:
    with Publisher(PublishSettings(bind=LOCAL)) as publisher:
        publisher.status(make_status(7))
        late: list[Subscription[wire.Status]] = []
        answers = []
        for _ in range(3):
            late.append(subscribe(publisher.address, "status/"))
            end = time.monotonic() + ANSWER_S / 2
            while time.monotonic() < end:
                publisher.ready()
                publisher._serve_newcomers()
                time.sleep(0.005)
        deadline = time.monotonic() + PATIENCE_S
        for one in late:
            answer = None
            while answer is None and time.monotonic() < deadline:
                publisher._serve_newcomers()
                try:
                    answer = one.receive(timeout_s=0.02)
                except TimeoutError:
                    continue
            answers.append(answer)
            one.close()
    assert [answer.seq for answer in answers if answer is not None] == [7, 7, 7]


def test_strangers_who_leave_do_not_count_as_subscribers_who_left() -> None:
    with (
        Publisher(PublishSettings(bind=LOCAL)) as publisher,
        subscribe(publisher.address),
        subscribe(publisher.address),
    ):
        deadline = time.monotonic() + PATIENCE_S
        while publisher.subscribers < 2 and time.monotonic() < deadline:
            publisher._serve_newcomers()
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", GREETING[:12] + bytes(52)):
            with socket.create_connection(("127.0.0.1", int(publisher.address.rpartition(":")[2]))) as stranger:
                stranger.sendall(data)
                time.sleep(0.1)
            time.sleep(0.2)
            publisher._serve_newcomers()
            assert publisher.subscribers == 2


# The socket file of ipc://


def test_a_file_at_the_path_of_the_socket_is_kept(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("frame\n", encoding="utf-8")
    (tmp_path / "link").symlink_to(table)
    for path in (table, tmp_path / "link", tmp_path):
        with pytest.raises(UserError, match="a file of this name exists"):
            Publisher(PublishSettings(bind=f"ipc://{path}")).__enter__()
    assert table.read_text(encoding="utf-8") == "frame\n"


def test_a_second_engine_does_not_take_the_path_of_the_first(tmp_path: Path) -> None:
    bind = f"ipc://{tmp_path}/engine"
    with Publisher(PublishSettings(bind=bind)) as publisher:
        with pytest.raises(UserError, match="Another engine publishes on ipc://"):
            Publisher(PublishSettings(bind=bind)).__enter__()
        assert hears(bind, publisher), "the first can still be joined"


def test_the_socket_of_an_engine_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert stat.S_ISSOCK(path.lstat().st_mode), "it is left behind"
    with Publisher(PublishSettings(bind=f"ipc://{path}")) as publisher:
        assert hears(publisher.address, publisher)


def test_the_socket_of_another_kind_of_program_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        with pytest.raises(UserError, match="belongs to another program"):
            Publisher(PublishSettings(bind=f"ipc://{path}")).__enter__()
    assert path.exists()


RACE = """
import sys, time
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.zeromq import Publisher
from vlfau.models.errors import UserError
while time.time() < float(sys.argv[2]):
    pass
try:
    with Publisher(PublishSettings(bind=sys.argv[1])):
        print("published", flush=True)
        sys.stdin.read()
except UserError as error:
    print(error, flush=True)
"""


def test_of_engines_that_start_at_once_one_gets_the_path(tmp_path: Path) -> None:
    bind, start = f"ipc://{tmp_path}/engine", time.time() + 3
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/engine")
    command = [sys.executable, "-c", RACE, bind, str(start)]
    pipe = subprocess.PIPE
    engines = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    first_lines = [engine.stdout.readline() for engine in engines if engine.stdout is not None]
    for engine in engines:
        engine.communicate(timeout=60)
    assert first_lines.count("published\n") == 1, first_lines


def hears(address: str, publisher: Publisher) -> bool:
    with subscribe(address) as reports:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            publisher.write(make_report())
            try:
                return reports.receive(timeout_s=0.05) is not None
            except TimeoutError:
                continue
    return False


# Numbers at the door


@pytest.mark.parametrize("port", ["65536", "99999", "-5", "", "x", "\N{SUPERSCRIPT TWO}"])
def test_a_port_that_does_not_exist_is_refused(port: str) -> None:
    with pytest.raises(UserError, match="a port from 0 to 65535"):
        Publisher(PublishSettings(bind=f"tcp://127.0.0.1:{port}"))
    with pytest.raises(UserError, match="not an address for metrics"):
        parse(f":{port}")


@pytest.mark.parametrize("port", ["0", "5556", "65535", "*"])
def test_every_port_that_exists_is_taken(port: str) -> None:
    Publisher(PublishSettings(bind=f"tcp://127.0.0.1:{port}"))


@pytest.mark.parametrize("queue", [0, 2**31, 10**20])
def test_a_queue_that_cannot_be_is_refused(queue: int) -> None:
    with pytest.raises(UserError, match="--send-queue must be from 1 to 2147483647"):
        Publisher(PublishSettings(bind=LOCAL, send_queue=queue))


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before
