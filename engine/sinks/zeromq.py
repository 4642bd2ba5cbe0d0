"""Messages over ZeroMQ: one XPUB socket, one-part messages `topic payload`.

A subscriber that cannot keep up loses messages in its own queue (`send_queue`), sees it from the sequence numbers, and
delays neither the engine nor other subscribers. One that joins late is sent the last status, the current sentences and
the streams that have ended at once, marked `again`; those that were already there receive them a second time and can
skip them by that mark.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing_extensions import Self

LINGER_MS = 500  # time for the last messages to be sent; part of the two seconds that a shutdown may take
SETTLE_S = 0.2  # a subscriber's topics follow its handshake within milliseconds
HEARTBEAT_MS = 5000  # a peer that vanished without closing is dropped after three of these
PEER_MESSAGE_BYTES = 1024  # a topic, that is; a peer that sends more is disconnected
EVENTS = 1000  # subscriptions handled per message sent: a millisecond
ANSWER_S = 0.1  # between two repetitions of the same topic, which every subscriber receives
LOCK_S = 2.0  # for other engines that are just binding in the same folder
CONNECTIONS = zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
MOST_QUEUED = 2**31 - 1


class Publisher(Sink):
    """A bound socket. `address` is its actual address, even if port `*` was requested."""

    def __init__(self, settings: PublishSettings) -> None:
        self.settings = settings
        self.address = settings.bind
        self.subscribers = 0  # that have completed the handshake and are still connected
        self.subscriptions = 0  # so far, one per subscriber and topic
        self._connected = 0  # strangers included
        self._strangers = 0  # whose handshake failed, until they are disconnected
        self._quiet_since = 0.0
        self._last: dict[str, Status | End] = {}  # by topic
        self._texts: dict[str, dict[int, Text]] = {}  # stream -> track -> its sentence
        self._present: dict[str, Report] = {}
        self._due: set[str] = set()  # topics that newcomers have missed
        self._repeated_s: dict[str, float] = {}  # topic -> when it was last sent again
        _check_bind(settings)

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        self._authenticator: zmq.auth.thread.ThreadAuthenticator | None = None
        try:
            self._socket = self._context.socket(zmq.XPUB)
            self._monitor = self._socket.get_monitor_socket(CONNECTIONS | HANDSHAKE_FAILED)
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
        for _ in range(EVENTS):
            try:
                event = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if event[:1] == b"\x01":
                prefix = event[1:].decode(errors="replace")
                self.subscriptions += 1
                self._due.update(name for name in self._last if name.startswith(prefix))
                self._due.update(name for name in map(_text_topic, self._texts) if name.startswith(prefix))
        for _ in range(EVENTS):
            try:
                change = zmq.utils.monitor.recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                break
            self._count_peer(change["event"])
        if self._due:
            self._repeat()

    def _count_peer(self, event: int) -> None:
        """Events name no peer, but a stranger causes one more before it is disconnected: its handshake fails."""
        if event == zmq.EVENT_ACCEPTED:
            self._connected += 1
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.subscribers += 1
        elif event != zmq.EVENT_DISCONNECTED:
            self._strangers += 1
        else:
            self._connected -= 1
            if self._strangers:
                self._strangers -= 1
            else:
                self.subscribers -= 1
        self.subscribers = max(min(self.subscribers, self._connected), 0)

    def _repeat(self) -> None:
        """Sends what is due, however many subscribers it is due to, unless it was repeated a moment ago."""
        now = time.monotonic()
        names = {name for name in self._due if now - self._repeated_s.get(name, 0.0) >= ANSWER_S}
        if not names:
            return
        self._due -= names
        self._repeated_s.update(dict.fromkeys(names, now))
        for message in self._missed():
            if topic(message) in names:
                again = msgspec.structs.replace(message, again=True)
                self._socket.send(encode(again, self.settings.encoding))

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
        socket.setsockopt(zmq.MAXMSGSIZE, PEER_MESSAGE_BYTES)  # of what arrives
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
        transport, _, path = self.settings.bind.partition("://")
        try:
            if transport == "ipc" and not path.startswith(("*", "@")):  # @: not in the file system, * a new name
                with _folder_locked(path):
                    _check_socket_path(path)
                    self._socket.bind(self.settings.bind)
            else:
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
    if not 1 <= settings.send_queue <= MOST_QUEUED or settings.wait_subscribers < 0:
        raise UserError(f"--send-queue must be from 1 to {MOST_QUEUED}, and --wait-subscribers at least 0.")
    transport, separator, place = settings.bind.partition("://")
    if not separator or transport not in ("tcp", "ipc") or not place:
        raise UserError(f"Cannot publish on '{settings.bind}'. Give tcp://HOST:PORT, ipc://PATH or none.")
    host, _, port = place.rpartition(":")
    if transport == "tcp" and port != "*" and not (host and port.isdecimal() and int(port) <= 65535):
        raise UserError(f"Cannot publish on '{settings.bind}'. Give tcp://HOST:PORT with a port from 0 to 65535, or *.")
    if transport == "ipc" or settings.allow_public or is_loopback(host):
        return
    raise UserError(
        f"{settings.bind} can be reached from other machines, and reports are about people. "
        "Add --allow-public if you want that (best with --curve-secret and --allow), or bind to 127.0.0.1."
    )


def _text_topic(stream: str) -> str:
    return f"text/{stream}"


@contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    """Engines look for a free path and bind to it one after the other: libzmq replaces whatever is there."""
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:  # binding will say why
        yield
        return
    try:
        give_up = time.monotonic() + LOCK_S
        while fcntl is not None:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise UserError(f"The folder of {path} is locked by another program. Try again.") from None
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(folder)


def _check_socket_path(path: str) -> None:
    """Only the socket of an engine that is gone may be replaced."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # nothing is there, or binding will say why
        return
    if not stat.S_ISSOCK(mode):
        raise UserError(f"Cannot publish on ipc://{path}: a file of this name exists. Choose another --bind.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(LOCK_S)
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise UserError(
                f"Cannot publish on ipc://{path}: this socket belongs to another program ({error.strerror or error}). "
                "Choose another --bind."
            ) from None
    raise UserError(f"Another engine publishes on ipc://{path}. Choose another --bind.")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
