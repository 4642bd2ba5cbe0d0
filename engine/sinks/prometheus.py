"""Prometheus metrics over HTTP: what an operator alarms on. Says nothing about what a face does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from vlfau.models.errors import UserError

from ..wire import STAGES, End, Report, Status
from .base import Pixels, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.033, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics(Sink):
    """Serves /metrics on its own thread. `port` is where it really is, also for port 0."""

    def __init__(self, address: str) -> None:
        self.host, self.port = parse(address)
        self.registry = CollectorRegistry()
        self._reports = self._counter("vlfau_reports", "Frames reported")
        self._invalid = self._counter("vlfau_invalid_faces", "Faces too small, blurred or turned to be judged")
        self._faces = self._gauge("vlfau_faces", "Faces in the last report")
        self._fps_in = self._gauge("vlfau_fps_in", "Frames a second out of the decoder")
        self._fps_out = self._gauge("vlfau_fps_out", "Reports a second")
        self._running = self._gauge("vlfau_stream_running", "1 while frames can come, 0 when the stream is over")
        self._reconnects = self._gauge("vlfau_reconnects", "Times the source was opened again")
        self._dropped = self._gauge("vlfau_dropped_frames", "Dropped so far", "stream", "cause")
        self._queues = self._gauge("vlfau_queue_depth", "Items that wait", "stream", "channel")
        self._state = self._gauge("vlfau_stream_state", "1 for the state it is in", "stream", "state")
        self._info = self._gauge("vlfau_info", "What computes; always 1", "runtime", "device", "model", "detector")
        self._latency = Histogram(
            "vlfau_latency_seconds",
            "Time in a stage, waiting included; total is capture to publish",
            ("stream", "stage"),
            buckets=BUCKETS,
            registry=self.registry,
        )

    def __enter__(self) -> Self:
        try:
            self._server, self._thread = start_http_server(self.port, self.host, self.registry)
        except OSError as error:
            place = f"{self.host}:{self.port}"
            raise UserError(f"Cannot serve metrics at {place}: {error.strerror}. Choose another --metrics.") from None
        self.port = self._server.server_port
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


def parse(address: str) -> tuple[str, int]:
    """`:9100` or `9100` is this machine only; `0.0.0.0:9100` has to be said."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"'{address}' is no address for metrics. Give :PORT or HOST:PORT, for example :9100.")
    return host.strip("[]") or "127.0.0.1", int(port)
