"""Prometheus metrics over HTTP, to monitor and alert on. They contain no action units."""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from vlfau.models.errors import UserError

from ..wire import STAGES, End, Report, Status
from .base import Pixels, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

CONNECTIONS = 16  # at a time; further ones are closed without an answer
CONNECTION_S = 5.0  # a connection lives no longer, whatever its peer does
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.033, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics(Sink):
    """Serves /metrics on its own thread. `port` is the actual port, even if 0 was requested."""

    def __init__(self, address: str) -> None:
        self.host, self.port = parse(address)
        self.registry = CollectorRegistry()
        self._reports = self._counter("vlfau_reports", "Frames reported")
        self._invalid = self._counter("vlfau_invalid_faces", "Faces too small, blurred or turned to be judged")
        self._faces = self._gauge("vlfau_faces", "Faces in the last report")
        self._fps_in = self._gauge("vlfau_fps_in", "Frames a second out of the decoder")
        self._fps_out = self._gauge("vlfau_fps_out", "Reports a second")
        self._running = self._gauge("vlfau_stream_running", "1 while frames can arrive, 0 when the stream is over")
        self._reconnects = self._gauge("vlfau_reconnects", "Times the source was opened again")
        self._dropped = self._gauge("vlfau_dropped_frames", "Frames dropped so far", "stream", "cause")
        self._queues = self._gauge("vlfau_queue_depth", "Items waiting", "stream", "channel")
        self._state = self._gauge("vlfau_stream_state", "1 for the current state", "stream", "state")
        self._info = self._gauge(
            "vlfau_info", "What runs the networks; always 1", "runtime", "device", "model", "detector"
        )
        self._latency = Histogram(
            "vlfau_latency_seconds",
            "Time in a stage, including waiting; total is capture to publish",
            ("stream", "stage"),
            buckets=BUCKETS,
            registry=self.registry,
        )

    def __enter__(self) -> Self:
        try:
            self._server = _serve(self.host, self.port, self.registry)
        except OSError as error:
            place = f"{self.host}:{self.port}"
            raise UserError(f"Cannot serve metrics at {place}: {error.strerror}. Choose another --metrics.") from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        return self

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels or ("stream",), registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels or ("stream",), registry=self.registry)

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self._reports.labels(report.stream).inc()
        self._faces.labels(report.stream).set(len(report.faces))
        self._invalid.labels(report.stream).inc(sum(not face.valid for face in report.faces))
        for stage in STAGES:
            self._latency.labels(report.stream, stage).observe(getattr(report.latency_ms, stage) / 1000)

    def status(self, status: Status) -> None:
        stream = status.stream
        self._fps_in.labels(stream).set(status.fps_in)
        self._fps_out.labels(stream).set(status.fps_out)
        self._running.labels(stream).set(status.state != "ended")
        self._reconnects.labels(stream).set(status.reconnects)
        self._info.labels(status.runtime, status.device, status.model, status.detector).set(1)
        for state in ("opening", "playing", "reconnecting", "ended"):
            self._state.labels(stream, state).set(status.state == state)
        for cause, count in status.drops.items():
            self._dropped.labels(stream, cause).set(count)
        for channel, depth in status.queues.items():
            self._queues.labels(stream, channel).set(depth)

    def end(self, end: End) -> None:
        self._running.labels(end.stream).set(0)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingWSGIServer):
    """A thread for each connection, within the limits above."""

    def __init__(self, *arguments: Any) -> None:
        self._opened_s: dict[Any, float] = {}
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return len(self._opened_s) < CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        self._opened_s[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._opened_s.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second by `serve_forever`."""
        self._disconnect(before_s=time.monotonic() - CONNECTION_S)

    def server_close(self) -> None:
        self._disconnect(before_s=time.monotonic())
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a peer that disconnects is not worth a traceback
            super().handle_error(request, client_address)

    def _disconnect(self, before_s: float) -> None:
        for request, opened_s in list(self._opened_s.items()):
            if opened_s <= before_s:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)  # its thread wakes up and closes it


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing."""


def _serve(host: str, port: int, registry: CollectorRegistry) -> _Server:
    family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    kind = _Server6 if family == socket.AF_INET6 else _Server
    return make_server(str(place[0]), port, make_wsgi_app(registry), kind, _Handler)


def parse(address: str) -> tuple[str, int]:
    """`:9100` and `9100` are reachable from this machine only; `0.0.0.0:9100` has to be explicit."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UserError(f"'{address}' is not an address for metrics. Give :PORT or HOST:PORT, for example :9100.")
    return host.strip("[]") or "127.0.0.1", int(port)
