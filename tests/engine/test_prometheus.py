"""Prometheus metrics, scraped over HTTP and read with Prometheus' own parser."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from contextlib import ExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families
from reports import make_end, make_report, make_status

from vlfau.engine.sinks import prometheus
from vlfau.engine.sinks.prometheus import CONNECTIONS, Metrics, parse
from vlfau.models.errors import UserError


def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_the_numbers_of_the_run() -> None:
    with Metrics("127.0.0.1:0") as metrics:
        for frame in range(5):
            metrics.write(make_report(frame, faces=2, valid=frame > 0))
        metrics.status(make_status(1))
        seen = scrape(metrics)
        assert seen["vlfau_reports_total", "cam"] == 5
        assert seen["vlfau_faces", "cam"] == 2
        assert seen["vlfau_invalid_faces_total", "cam"] == 2
        assert seen["vlfau_fps_out", "cam"] == 24.9
        assert seen["vlfau_dropped_frames", "late", "cam"] == 3
        assert seen["vlfau_queue_depth", "frames", "cam"] == 2
        assert seen["vlfau_latency_seconds_count", "total", "cam"] == 5
        assert seen["vlfau_latency_seconds_sum", "total", "cam"] == pytest.approx(5 * 0.012346)
        assert seen["vlfau_stream_running", "cam"] == 1
        assert any(name[0] == "vlfau_info" and "openvino" in name for name in seen)
        metrics.end(make_end())
        assert scrape(metrics)["vlfau_stream_running", "cam"] == 0


def test_it_leaves_neither_port_nor_thread() -> None:
    before = threading.active_count()
    with Metrics(":0") as metrics:
        assert threading.active_count() > before
    assert threading.active_count() == before
    with socket.create_server(("127.0.0.1", metrics.port)):
        pass


def test_silent_and_slow_connections_are_few_and_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prometheus, "CONNECTION_S", 1.0)
    before = threading.active_count()
    with Metrics(":0") as metrics, ExitStack() as stack:
        address = ("127.0.0.1", metrics.port)
        peers = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(CONNECTIONS + 4)]
        began_s = time.monotonic()
        while peers and time.monotonic() - began_s < 10:
            assert threading.active_count() <= before + 1 + CONNECTIONS
            peers = [peer for peer in peers if still_open(peer)]
            time.sleep(0.05)
        assert not peers, "even those that send a byte now and then"
        assert scrape(metrics) is not None, "there is room again"
        stack.enter_context(socket.create_connection(address))
        time.sleep(0.1)
    wait_for_threads(before)
    assert capsys.readouterr().err == ""


def still_open(peer: socket.socket) -> bool:
    """Also sends a byte of a request that never ends."""
    try:
        peer.send(b"G")
        peer.setblocking(False)
        return peer.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def wait_for_threads(count: int) -> None:
    began_s = time.monotonic()
    while threading.active_count() > count and time.monotonic() - began_s < 2:
        time.sleep(0.01)
    assert threading.active_count() == count


def test_it_listens_on_this_machine_only_by_default() -> None:
    assert parse(":9100") == ("127.0.0.1", 9100)
    assert parse("9100") == ("127.0.0.1", 9100)
    assert parse("0.0.0.0:9100") == ("0.0.0.0", 9100)
    for wrong in ("", "localhost", "host:", ":99999", ":-1"):
        with pytest.raises(UserError, match="not an address"):
            parse(wrong)


def test_a_taken_port_is_named() -> None:
    with Metrics(":0") as metrics, pytest.raises(UserError, match=f"Cannot serve metrics at 127.0.0.1:{metrics.port}"):
        Metrics(f":{metrics.port}").__enter__()
