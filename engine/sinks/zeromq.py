"""Messages over ZeroMQ: one XPUB socket, one-part messages `topic payload`.

A subscriber that cannot keep up loses messages in its own queue (`send_queue`), sees it from the sequence numbers, and
delays neither the engine nor other subscribers. One that joins late is sent the last status, the current sentences and
the streams that have ended at once, marked `again`; those that were already there receive them a second time and can
skip them by that mark.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import zmq
import zmq.auth.thread
import zmq.utils.monitor

from vlfau.models.errors import UserError

from ..keys import read_allowed, read_pair
from ..settings import PublishSettings
from ..wire import End, Report, Status, Text, encode, topic
from .base import KNOWN_TRACKS, Pixels, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

LINGER_MS = 500  # time for the last messages to be sent; part of the two seconds that a shutdown may take
SETTLE_S = 0.2  # a subscriber's topics follow its handshake within milliseconds
HEARTBEAT_MS = 5000  # a peer that vanished without closing is dropped after three of these


class Publisher(Sink):
    """A bound socket. `address` is its actual address, even if port `*` was requested."""

    def __init__(self, settings: PublishSettings) -> None:
        self.settings = settings
        self.address = settings.bind
        self.subscribers = 0  # that have completed the handshake and are still connected
        self.subscriptions = 0  # so far, one per subscriber and topic
        self._quiet_since = 0.0
        self._last: dict[str, Status | End] = {}  # by topic
        self._texts: dict[str, dict[int, Text]] = {}  # stream -> track -> its sentence
        self._present: dict[str, Report] = {}
        _check_bind(settings)

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        self._authenticator: zmq.auth.thread.ThreadAuthenticator | None = None
        try:
            self._socket = self._context.socket(zmq.XPUB)
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            self._set_options()
            self._bind()
        except BaseException:
            self.close()
            raise
        return self

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self._serve_newcomers()
        self._present[report.stream] = report
        self._socket.send(encode(report, self.settings.encoding))

    def text(self, text: Text) -> None:
        texts = self._texts.setdefault(text.stream, {})
        texts.pop(text.track, None)
        texts[text.track] = text
        if len(texts) > KNOWN_TRACKS:
            del texts[next(iter(texts))]
        self._socket.send(encode(text, self.settings.encoding))

    def status(self, status: Status) -> None:
        self._send_and_keep(status)

    def end(self, end: End) -> None:
        self._send_and_keep(end)

    def close(self) -> None:
        if self._authenticator is not None:
            self._authenticator.stop()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(LINGER_MS)
        self._context.term()

    def ready(self) -> bool:
        """Whether `wait_subscribers` have joined: completed the handshake and subscribed to a topic."""
        expected = self.settings.wait_subscribers
        before = self.subscriptions
        self._serve_newcomers()
        now = time.monotonic()
        if self.subscriptions != before:
            self._quiet_since = now
        joined = min(self.subscribers, self.subscriptions) >= expected
        return not expected or (joined and now - self._quiet_since > SETTLE_S)

    def _send_and_keep(self, message: Status | End) -> None:
        self._serve_newcomers()
        self._last[topic(message)] = message
        self._socket.send(encode(message, self.settings.encoding))

    def _serve_newcomers(self) -> None:
        """Counts peers that joined or left, and sends new subscribers what they missed. Usually takes microseconds."""
        while True:
            try:
                event = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if event[:1] == b"\x01":
                prefix = event[1:].decode(errors="replace")
                self.subscriptions += 1
                for message in self._missed():
                    if topic(message).startswith(prefix):
                        again = msgspec.structs.replace(message, again=True)
                        self._socket.send(encode(again, self.settings.encoding))
        while True:
            try:
                change = zmq.utils.monitor.recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                break
            self.subscribers += 1 if change["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED else -1
        self.subscribers = max(self.subscribers, 0)

    def _missed(self) -> Iterator[Status | End | Text]:
        """What a subscriber that joins late needs to know, oldest first."""
        yield from self._last.values()
        for stream, texts in self._texts.items():
            report = self._present.get(stream)
            here = {face.track for face in report.faces} if report else set()
            newest = len(texts) - 1
            yield from (text for place, text in enumerate(texts.values()) if text.track in here or place == newest)

    def _set_options(self) -> None:
        settings, socket = self.settings, self._socket
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # report every subscription, not only new topics
        socket.setsockopt(zmq.SNDHWM, settings.send_queue)
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        socket.setsockopt(zmq.IPV6, int("[" in settings.bind))  # otherwise 127.0.0.1 would appear as ::ffff:127.0.0.1
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)  # drop peers that never finish the handshake
        if settings.curve_secret is None:
            return
        socket.curve_publickey, socket.curve_secretkey = read_pair(settings.curve_secret)
        socket.curve_server = True
        if settings.allow is not None:
            allowed = read_allowed(settings.allow)
            self._authenticator = zmq.auth.thread.ThreadAuthenticator(self._context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback("*", credentials_provider=_AllowList(allowed))

    def _bind(self) -> None:
        try:
            self._socket.bind(self.settings.bind)
        except zmq.ZMQError as error:
            hint = "Is another engine running? Choose another --bind." if error.errno == zmq.EADDRINUSE else ""
            raise UserError(f"Cannot publish on {self.settings.bind}: {error.strerror}. {hint}".rstrip()) from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)


class _AllowList:
    """The credentials provider of pyzmq's authenticator."""

    def __init__(self, allowed: set[bytes]) -> None:
        self._allowed = allowed

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._allowed


def _check_bind(settings: PublishSettings) -> None:
    if settings.allow is not None and settings.curve_secret is None:
        raise UserError(
            "--allow restricts who may join, which needs encryption. Give --curve-secret too (see vlfau-keys)."
        )
    if settings.send_queue < 1 or settings.wait_subscribers < 0:
        raise UserError("--send-queue must be at least 1 and --wait-subscribers at least 0.")
    transport, separator, place = settings.bind.partition("://")
    if not separator or transport not in ("tcp", "ipc") or not place:
        raise UserError(f"Cannot publish on '{settings.bind}'. Give tcp://HOST:PORT, ipc://PATH or none.")
    if transport == "ipc" or settings.allow_public or is_loopback(place.rpartition(":")[0]):
        return
    raise UserError(
        f"{settings.bind} can be reached from other machines, and reports are about people. "
        "Add --allow-public if you want that (best with --curve-secret and --allow), or bind to 127.0.0.1."
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
