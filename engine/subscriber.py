"""Subscribes to a running engine: an iterator over its messages.

for report in subscribe("tcp://127.0.0.1:5556"):
    print(report.pts, [face.text for face in report.faces])
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, cast, overload

import zmq
import zmq.utils.monitor

from vlfau.models.errors import UserError

from .keys import read_pair, read_public
from .wire import KINDS, AnyMessage, End, Report, Status, Text, decode_payload

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

M = TypeVar("M", bound=AnyMessage)

DEFAULT_ADDRESS = "tcp://127.0.0.1:5556"
MESSAGE_BYTES = 8 * 2**20  # a report of a thousand faces has 2; a publisher that sends more is disconnected
TOPIC_BYTES = 1024
KNOWN_TOPICS = 10_000  # whose sequence numbers are remembered
RECONNECT_S = 0.3  # libzmq announces its own attempts within milliseconds
CONNECTIONS = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED
REFUSALS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class Options(TypedDict, total=False):
    """What `subscribe` takes by name."""

    timeout_s: float | None
    stop_at_end: bool
    server_key: str | Path | None
    secret: str | Path | None
    receive_queue: int


# A type checker knows the kind of a literal topic; for several topics, or a name built at run time, only the union.
@overload
def subscribe(address: str = ..., topics: Literal["au/"] = ..., **options: Unpack[Options]) -> Subscription[Report]: ...
@overload
def subscribe(address: str, topics: Literal["text/"], **options: Unpack[Options]) -> Subscription[Text]: ...
@overload
def subscribe(address: str, topics: Literal["status/"], **options: Unpack[Options]) -> Subscription[Status]: ...
@overload
def subscribe(address: str, topics: Literal["end/"], **options: Unpack[Options]) -> Subscription[End]: ...
@overload
def subscribe(address: str, topics: str | Iterable[str], **options: Unpack[Options]) -> Subscription[AnyMessage]: ...
def subscribe(
    address: str = DEFAULT_ADDRESS,
    topics: str | Iterable[str] = "au/",
    *,
    timeout_s: float | None = None,
    stop_at_end: bool = True,
    server_key: str | Path | None = None,
    secret: str | Path | None = None,
    receive_queue: int = 10_000,
) -> Subscription[Any]:
    """Join a running engine, or wait until one runs there.

    `topics`: `au/`, `text/`, `status/`, `end/`, or those of one stream, such as `au/cam1`.
    `timeout_s`: raise TimeoutError after this long without a message; None waits for ever.
    `stop_at_end`: end the iteration with the engine's last stream, or with the last of the streams that topics name.
    `server_key`, `secret`: the engine's public key and your secret key file, if it runs with --curve-secret.
    """
    names = (topics,) if isinstance(topics, str) else tuple(topics)
    return Subscription(address, names, timeout_s, stop_at_end, server_key, secret, receive_queue)


class Subscription(Generic[M]):
    """Connects when created; used on one thread.

    `lost` counts the messages that never arrived, per topic, and `unreadable` those that arrived and were skipped.
    """

    def __init__(
        self,
        address: str,
        topics: tuple[str, ...],
        timeout_s: float | None,
        stop_at_end: bool,
        server_key: str | Path | None,
        secret: str | Path | None,
        receive_queue: int,
    ) -> None:
        for name in topics:
            if name.partition("/")[0] not in KINDS or "/" not in name:
                kinds = " ".join(f"{kind}/" for kind in KINDS)
                raise UserError(f"Unknown topic '{name}'. Topics begin with one of: {kinds}.")
        self.address = address
        self.lost: dict[str, int] = {}
        self.unreadable = 0
        self.unreadable_why = ""  # of the newest
        self._topics = topics
        self._timeout_s = timeout_s
        self._stop_at_end = stop_at_end
        self._last: dict[str, int] = {}  # topic -> the newest sequence number
        self._newest: dict[str, tuple[int, int]] = {}  # topic -> (Unix ns, sequence number) of the newest message
        self._open_streams = {name.partition("/")[2] for name in topics}  # named streams that have not ended
        self._named = "" not in self._open_streams
        self._disconnected_s: float | None = None
        self._ended = False
        self._closed = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._monitor = self._socket.get_monitor_socket(REFUSALS | CONNECTIONS | zmq.EVENT_DISCONNECTED)
        try:
            self._connect(server_key, secret, receive_queue)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[M]:
        try:
            while (message := self.receive()) is not None:
                yield message
        finally:
            self.close()

    def receive(self, timeout_s: float | None = None) -> M | None:
        """The next message, or None once the engine has ended. Raises TimeoutError if none arrives in time."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        give_up = None if limit_s is None else time.monotonic() + limit_s
        while not self._ended and not self._closed:
            left_ms = 1000 if give_up is None else min(1000, max(0, int((give_up - time.monotonic()) * 1000)))
            if self._socket.poll(left_ms):
                message = self._read(self._socket.recv())
                if message is not None:
                    return message
            else:
                self._check_connection()
            if give_up is not None and time.monotonic() >= give_up:
                raise TimeoutError(f"No message from {self.address} within {limit_s:g} s. {self.why_none()}")
        return None

    @property
    def lost_total(self) -> int:
        return sum(self.lost.values())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()

    def _read(self, data: bytes) -> M | None:
        topic, _, payload = data.partition(b" ")
        try:
            if len(topic) > TOPIC_BYTES:
                raise UserError(f"A topic has more than {TOPIC_BYTES} bytes.")
            return self._accept(topic.decode(errors="replace"), payload)
        except UserError as error:
            self.unreadable += 1
            self.unreadable_why = str(error)
            return None

    def why_none(self) -> str:
        """What to add to the news that there is no message."""
        if not self.unreadable:
            return "Is an engine running?"
        return f"{self.unreadable} could not be read, the newest because: {self.unreadable_why}"

    def _accept(self, topic: str, payload: bytes) -> M | None:
        """None for repeated messages, and for topics that only begin with the same name."""
        kind, _, stream = topic.partition("/")
        subscribed = any(topic == name or (name.endswith("/") and topic.startswith(name)) for name in self._topics)
        if not subscribed and kind != "end":
            return None
        message = decode_payload(kind, payload)
        moment = (message.captured_ns if isinstance(message, Report | Text) else message.sent_ns, message.seq)
        if not isinstance(message, Report) and message.again:
            fresh = moment > self._newest.get(topic, (-1, -1))
        else:
            fresh = True
            last = self._last.get(topic)
            if last is not None and message.seq > last + 1:  # a smaller number comes from an engine that was restarted
                self.lost[topic] = self.lost.get(topic, 0) + message.seq - last - 1
            self._last[topic] = message.seq
        if not fresh:
            return None
        self._newest[topic] = moment
        if len(self._newest) > KNOWN_TOPICS:
            oldest = next(iter(self._newest))
            for known in (self._newest, self._last, self.lost):
                known.pop(oldest, None)
        if isinstance(message, End):
            self._open_streams.discard(stream)
            over = not self._open_streams if self._named else message.left == 0
            self._ended = self._stop_at_end and over
        return cast(M, message) if subscribed else None

    def _connect(self, server_key: str | Path | None, secret: str | Path | None, receive_queue: int) -> None:
        socket = self._socket
        socket.setsockopt(zmq.RCVHWM, receive_queue)
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        socket.setsockopt(zmq.IPV6, int("[" in self.address))
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        if server_key is not None:
            socket.curve_serverkey = read_public(server_key)
            if secret is not None:
                socket.curve_publickey, socket.curve_secretkey = read_pair(Path(secret))
            else:  # an engine without an allow-list accepts any key
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        elif secret is not None:
            raise UserError("A secret key alone is not enough. Give the engine's public key as server_key too.")
        topics = set(self._topics)
        if self._stop_at_end:
            topics |= {"end/" + name.partition("/")[2] for name in self._topics}
        for name in sorted(topics, key=lambda name: not name.startswith("end/")):
            socket.subscribe(name)
        try:
            socket.connect(self.address)
        except zmq.ZMQError as error:
            raise UserError(
                f"Cannot connect to '{self.address}': {error.strerror}. Give tcp://HOST:PORT or ipc://PATH."
            ) from None

    def _check_connection(self) -> None:
        self._read_events()
        if self._disconnected_s is None or time.monotonic() - self._disconnected_s < RECONNECT_S:
            return
        self._disconnected_s = None
        self.unreadable += 1
        self.unreadable_why = f"It has more than {MESSAGE_BYTES >> 20} MiB, or breaks the protocol of ZeroMQ."
        with suppress(zmq.ZMQError):
            self._socket.disconnect(self.address)
        self._socket.connect(self.address)

    def _read_events(self) -> None:
        """Notes whether libzmq tries to connect again, which it does unless the publisher broke the rules."""
        while self._monitor.poll(0):
            event = zmq.utils.monitor.recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self._disconnected_s = time.monotonic()
                continue
            if event & CONNECTIONS:
                self._disconnected_s = None
                continue
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise UserError(f"{self.address} refuses this key. Ask for it to be added to the allow-list.")
            raise UserError(
                f"{self.address} speaks another protocol than expected: encryption on one side only, or another "
                "server key. Give the engine's public key as server_key, and your secret key file."
            )
