"""The two ends of the wire under attack: raw peers at a publisher, and a hostile publisher at subscribers.

Both ends are in one process, over the loopback; what is sent is bounded.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import zmq
from measuring.facts import peak_mb, resident_mb
from measuring.fuzz_cases import message
from measuring.mutations import Step, apply, bent, text

from vlfau.engine import subscribe, wire
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.zeromq import Publisher
from vlfau.models.errors import UserError

REPORTS, PERIOD_S = 150, 0.004
GROWTH_MB = 48.0  # of which a few are the attack's own
SILENCE_S = 3.0
AGAIN = 200  # repeated messages to a subscriber that joined once
PATIENCE_S = 10.0
AGAIN_S = 0.05  # between rounds of hostile messages
GOOD = "good"


# Raw peers


def run_wire(steps: Sequence[Step]) -> dict[str, str]:
    """An engine's publisher, a subscriber who did nothing, and the peers of the steps."""
    with Publisher(PublishSettings(bind="tcp://127.0.0.1:*", wait_subscribers=1, send_queue=10_000)) as publisher:
        innocent = Innocent(publisher.address)
        innocent.start()
        while not publisher.ready():
            time.sleep(0.005)
        before = resident_mb()
        peers = [step[1] for step in steps]
        attack = threading.Thread(target=_attack, args=(publisher.address, peers))
        attack.start()
        sent, deadline = 0, time.monotonic() + PATIENCE_S
        while (attack.is_alive() or sent < REPORTS) and time.monotonic() < deadline:
            publisher.write(_report(sent))
            if sent % 20 == 0:
                publisher.status(_status(sent // 20))
            sent += 1
            time.sleep(PERIOD_S)
        attack.join()
        publisher.write(_report(sent))
        innocent.join_after(sent + 1)
        grown = peak_mb() - before
    return wire_verdict(innocent, sent + 1, grown)


def wire_verdict(innocent: Innocent, sent: int, grown_mb: float) -> dict[str, str]:
    if grown_mb > GROWTH_MB:
        return {"problem": "memory", "where": "publisher", "detail": f"the publisher grew by {grown_mb:.0f} MB"}
    if innocent.seen != list(range(sent)):
        return {
            "problem": "lost message",
            "where": "publisher",
            "detail": f"the other subscriber heard {len(innocent.seen)} of {sent}",
        }
    if innocent.again > AGAIN:
        return {
            "problem": "flood",
            "where": "publisher",
            "detail": f"the other subscriber got {innocent.again} messages once more",
        }
    if innocent.silence > SILENCE_S:
        return {
            "problem": "silence",
            "where": "publisher",
            "detail": f"the other subscriber heard nothing for {innocent.silence:.1f} s",
        }
    return {"verdict": "read", "detail": f"{sent} reports"}


class Innocent(threading.Thread):
    """A subscriber who keeps account."""

    def __init__(self, address: str) -> None:
        super().__init__(name="innocent", daemon=True)
        self.seen: list[int] = []
        self.again, self.silence = 0, 0.0
        self._address, self._expected = address, -1

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
            subscriber.setsockopt(zmq.RCVHWM, 0)
            subscriber.setsockopt(zmq.LINGER, 0)
            for topic in (b"au/", b"status/"):
                subscriber.setsockopt(zmq.SUBSCRIBE, topic)
            subscriber.connect(self._address)
            heard, done = time.monotonic(), 0.0
            while self._expected < 0 or (len(self.seen) < self._expected and time.monotonic() - done < SILENCE_S):
                if subscriber.poll(20):
                    one = wire.decode(subscriber.recv())
                    if isinstance(one, wire.Report):
                        self.silence = max(self.silence, time.monotonic() - heard if self.seen else 0)
                        heard = time.monotonic()
                        self.seen.append(one.seq)
                    elif isinstance(one, wire.Status):
                        self.again += one.again
                if self._expected < 0:
                    done = time.monotonic()

    def join_after(self, count: int) -> None:
        """Waits until that many reports have come, or none comes any more."""
        self._expected = count
        self.join(4 * SILENCE_S)


def _report(number: int) -> wire.Report:
    times = wire.milliseconds(decode=0, detect=0, align=0, predict=0, explain=0, total=0)
    return wire.Report(number, "x", number, number / 25, wire.now_ns(), 0, times, [])


def _status(number: int) -> wire.Status:
    return wire.Status(number, "x", "playing", wire.now_ns(), 1.0, 0, 0.0, 25.0, 25.0, 0, {}, {}, {}, "x", "x")


def _attack(address: str, peers: Sequence[Sequence[Step]]) -> None:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    opened = []
    for sends in peers:
        try:
            connection = socket.create_connection((host, int(port)), timeout=1)
            opened.append(connection)
            for send in sends:
                for piece in pieces(send):
                    connection.sendall(piece)
                if send[0] == "wait":
                    time.sleep(send[1])
        except OSError:  # shown the door
            continue
    for connection in opened:
        connection.close()


def pieces(send: Step) -> Iterator[bytes]:
    """The bytes of one step in ZMTP 3."""
    match send:
        case ["greeting", length, minor]:
            whole = b"\xff" + bytes(8) + b"\x7f\x03" + bytes([minor]) + b"NULL".ljust(20, b"\0") + bytes(32)
            yield whole[:length]
        case ["ready", kind]:
            value = kind.encode()
            yield frame(4, b"\x05READY\x0bSocket-Type" + len(value).to_bytes(4, "big") + value)
        case ["subscribe" | "cancel", length, count, alike]:
            first = b"\1" if send[0] == "subscribe" else b"\0"
            for number in range(count):
                topic = b"au/" * (length // 3 + 1) if alike else str(number).encode() + b"x" * length
                yield frame(0, first + topic[:length])
        case ["frame", flags, announced, length]:
            yield bytes([flags]) + (announced.to_bytes(8, "big") if flags & 2 else bytes([announced & 255]))
            yield bytes(length)
        case ["raw", data]:
            yield bytes.fromhex(data)
        case ["http"]:
            yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def frame(flags: int, body: bytes) -> bytes:
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body


# A hostile publisher


@contextmanager
def hostile_publisher(steps: Sequence[Step]) -> Iterator[str]:
    """Its address. It sends the hostile messages and then good ones, again and again."""
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind("tcp://127.0.0.1:*")
        hostile = [hostile_message(step) for step in steps]
        good = [f"{kind}/{GOOD} ".encode() + json.dumps(message(kind, GOOD)).encode() for kind in ("status", "au")]
        done = threading.Event()
        sender = threading.Thread(target=_send, args=(publisher, [*hostile, *good], done), daemon=True)
        sender.start()
        try:
            yield publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        finally:
            done.set()
            sender.join()


def _send(publisher: Any, messages: Sequence[bytes], done: threading.Event) -> None:
    while not done.is_set():
        for one in messages:
            publisher.send(one)
        done.wait(AGAIN_S)


def listen(address: str) -> dict[str, str]:
    """What comes after the hostile messages must still be heard."""
    topics = [f"{kind}/" for kind in wire.KINDS]
    heard = 0
    try:
        with subscribe(address, topics, timeout_s=PATIENCE_S, stop_at_end=False) as messages:
            for one in messages:
                heard += 1
                if one.stream == GOOD and isinstance(one, wire.Report):
                    return {"verdict": "read", "detail": f"{heard} messages"}
    except (UserError, TimeoutError) as error:
        return {"problem": "ended by a message", "where": "subscribe", "detail": str(error)[:300]}
    return {"problem": "ended by a message", "where": "subscribe", "detail": "the iteration was over"}


def hostile_message(step: Step) -> bytes:
    _, kind, encoding, topic, edits = step
    tree = message(kind)
    for name, edit in edits:
        tree = bent(tree, edit) if name == "tree" else tree
    payload = text(tree)
    if encoding == "msgpack":
        with suppress(msgspec.MsgspecError, ValueError, RecursionError, OverflowError):  # what JSON alone can say
            payload = msgspec.msgpack.encode(msgspec.json.decode(payload))
    payload = apply(payload, [edit for name, edit in edits if name == "bytes"], lambda name: payload)
    return str(topic).encode(errors="surrogatepass") + b" " + payload
