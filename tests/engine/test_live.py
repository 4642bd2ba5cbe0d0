"""Live sources against real servers: RTSP that dies and comes back, HTTP that stalls, UDP, HLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import number_of, numbered, write_clip
from neighbours import slowness
from numpy.typing import NDArray
from servers import free_port, hls, http_server, start, transport_stream
from shared_files import HELPERS
from walks import FACE, POINTS

from vlfau.engine.app import Engine
from vlfau.engine.counters import Counters
from vlfau.engine.packets import Ended, Frame
from vlfau.engine.pipeline import Pipeline, read
from vlfau.engine.settings import SourceSettings, for_python
from vlfau.engine.sources import open_source
from vlfau.engine.sources.addresses import derived_name
from vlfau.engine.sources.base import Context
from vlfau.engine.sources.live import LONGEST_DELAY_S, Backoff, LiveSource, RisingTime
from vlfau.engine.tracking.find import FaceFinder
from vlfau.models.errors import UserError
from vlfau.models.faces.align import five_points
from vlfau.models.faces.base import Detections
from vlfau.models.faces.landmarks import Located, box_of


def context(address: str, **changes: Any) -> Context:
    settings = replace(SourceSettings(open_timeout=3.0, read_timeout=0.6), **changes)
    return Context(address, settings, Counters("live"), threading.Event())


def test_a_stalled_http_stream_is_reopened_and_its_index_and_time_go_on() -> None:
    release = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler)
        handler.wfile.write(transport_stream(100 * connection, 100))
        handler.wfile.flush()
        release.wait(10)  # the connection stays open and silent

    states: list[str] = []
    with http_server(answer) as address:
        source_context = context(f"{address}/live.ts")
        frames: list[tuple[int, float, int]] = []
        for item in open_source(source_context).frames():
            assert isinstance(item, Frame)
            states.append(source_context.counters.state)
            frames.append((item.stamp.index, item.stamp.pts, number_of(item.pixels)))
            if item.stamp.index == 130:
                source_context.stopping.set()
        release.set()
    assert [index for index, _, _ in frames] == list(range(131))
    numbers = [number for _, _, number in frames]
    assert all(b - a == 1 for a, b in pairwise(numbers) if b != numbers[0] + 100)
    assert min(numbers) < 50 < 100 <= max(numbers), "both connections were used"
    times = [pts for _, pts, _ in frames]
    assert times == sorted(times)
    gap = max(b - a for a, b in pairwise(times))
    assert 0.45 < gap < 5, "the missed time is in the timestamps"
    assert source_context.counters.reconnects == 1


class OneFace:
    """A detector and landmark network with one face, always in the same place."""

    threshold, name, reason, landmarks = 0.5, "one", "one", None
    points = (POINTS * FACE * 0.7 + (80, 50)).astype(np.float32)[None]

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [Detections(box_of(self.points), np.ones(1, np.float32), five_points(self.points)) for _ in pictures]

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
        return Located(self.points.repeat(len(boxes), 0), np.full(len(boxes), 0.9, np.float32))


def test_name_index_and_track_outlive_a_connection(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")
    from small_bundle import SIDE, small_bundle

    bundle = small_bundle(tmp_path / "bundle").folder

    def answer(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler)
        data = transport_stream(0, 100)
        for i in range(0, len(data), len(data) // 20):
            handler.wfile.write(data[i : i + len(data) // 20])
            time.sleep(0.04)

    received = []
    with http_server(answer) as address:
        settings = for_python((f"{address}/live.ts",), {"model": str(bundle), "runtime": "openvino", "name": ["door"]})
        engine = Engine(settings, open_finder=lambda *_: FaceFinder(settings.faces, OneFace(), OneFace(), SIDE))
        counters = engine.counters["door"]
        with engine as reports:
            for report in reports:
                received.append(report)
                if counters.reconnects and counters.frames_in > 130:
                    break
    assert [report.seq for report in received] == list(range(len(received)))
    frames = [report.frame for report in received]
    assert frames == sorted(set(frames))
    assert frames[-1] > 100, "both connections delivered"
    times = [report.pts for report in received]
    assert times == sorted(times)
    assert max(b - a for a, b in pairwise(times)) > 0.4, "the outage is in the timestamps"
    assert [[face.track for face in report.faces] for report in received] == [[0]] * len(received)


def test_a_stop_during_a_stall_waits_no_longer_than_the_read_timeout() -> None:
    release = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler)
        handler.wfile.write(transport_stream(0, 100))
        handler.wfile.flush()
        release.wait(10)

    with http_server(answer) as address:
        source_context = context(f"{address}/live.ts", read_timeout=1.5)
        pipeline = Pipeline(source_context.stopping)
        pipeline.add("read", read, open_source(source_context).frames(), lossy=True, capacity=1)
        with pipeline as items:
            next(iter(items))
            time.sleep(0.2)
            began = time.monotonic()
        assert time.monotonic() - began < 1.6 + 0.2 * slowness()
        release.set()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_stop_while_a_server_is_silent_waits_no_longer_than_the_open_timeout(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source_context = context(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/live", open_timeout=1.5)
        pipeline = Pipeline(source_context.stopping)
        pipeline.add("read", read, open_source(source_context).frames(), lossy=True, capacity=1)
        with pipeline:
            time.sleep(0.3)
            began = time.monotonic()
        assert time.monotonic() - began < 1.4 + 0.2 * slowness()
    assert not source_context.counters.frames_in


def test_giving_up_after_the_allowed_attempts() -> None:
    source_context = context(f"http://127.0.0.1:{free_port()}/live.ts", reconnect=2)
    began = time.monotonic()
    [ended] = open_source(source_context).frames()
    assert isinstance(ended, Ended)
    assert ended.reason == "lost"
    assert "refused" in ended.error.lower()
    assert 1.4 < time.monotonic() - began < 6 * slowness(), "0.5 s and 1 s of waiting"
    assert source_context.counters.reconnects == 2


def test_back_off_grows_to_its_cap_and_a_good_connection_resets_it() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay(connected=False) for _ in range(9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, LONGEST_DELAY_S, LONGEST_DELAY_S, LONGEST_DELAY_S]
    assert backoff.next_delay(connected=True) == 0.5


def test_time_rises_through_reconnections_and_jumps() -> None:
    line = RisingTime()
    second = 10**9
    assert [line.at(pts, now) for pts, now in ((50.0, second), (50.5, 2 * second))] == [50.0, 50.5]
    line.reconnected()
    assert line.at(7.0, 5 * second) == pytest.approx(53.5), "three seconds were missed"
    assert line.at(7.5, 6 * second) == pytest.approx(54.0)
    assert line.at(-900.0, 7 * second) == pytest.approx(55.0), "the sender's clock jumped back"
    assert line.at(-899.0, 8 * second) == pytest.approx(56.0)


def test_a_recording_over_http_is_a_file_and_a_stall_counts_as_damage(tmp_path: Path) -> None:
    write_clip(tmp_path / "film.mkv", (numbered(i) for i in range(250)))
    film = (tmp_path / "film.mkv").read_bytes()
    release = threading.Event()

    def whole(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler, len(film))
        handler.wfile.write(film)

    def stalls(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler, len(film))
        handler.wfile.write(film[: len(film) // 2])
        handler.wfile.flush()
        release.wait(10)

    with http_server(whole) as address:
        items = list(open_source(context(f"{address}/film.mkv")).frames())
    assert [item.stamp.index for item in items if isinstance(item, Frame)] == list(range(250))
    assert items[-1] == Ended("live", "finished")
    with http_server(stalls) as address:
        began = time.monotonic()
        items = list(open_source(context(f"{address}/film.mkv")).frames())
        assert time.monotonic() - began < 4 * slowness()
        release.set()
    assert len(items) > 15
    assert isinstance(items[-1], Ended)
    assert (items[-1].reason, "no data arrived in time" in items[-1].error) == ("error", True)


def test_udp_is_read_until_it_falls_silent() -> None:
    port = free_port()
    source_context = context(f"udp://127.0.0.1:{port}", reconnect=0)
    data = transport_stream(0, 100)
    done = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not done.is_set():
                for i in range(0, len(data), 1316):
                    out.sendto(data[i : i + 1316], ("127.0.0.1", port))
                    if i % 6580 == 0:
                        time.sleep(0.003)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    frames, ended = 0, None
    for item in open_source(source_context).frames():
        if isinstance(item, Ended):
            ended = item
            continue
        frames += 1
        if frames == 40:
            done.set()
    done.set()
    sender.join()
    assert ended is not None
    assert ended.reason == "lost"
    assert frames >= 40, ended.error


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted() -> None:
    def answer(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler)
        data = transport_stream(0, 200)
        for i in range(0, len(data), 4096):
            handler.wfile.write(data[i : i + 4096])
            time.sleep(0.04)

    with http_server(answer) as address:
        source_context = context(f"{address}/live.ts", reconnect=0)
        pipeline = Pipeline(source_context.stopping)
        channel = pipeline.add("read", read, open_source(source_context).frames(), lossy=True, capacity=1)
        indices = []
        with pipeline as items:
            for item in items:
                if isinstance(item, Frame):
                    indices.append(item.stamp.index)
                    time.sleep(0.05)
    assert indices == sorted(set(indices))
    assert 5 < len(indices) < 60
    assert source_context.counters.frames_in > 100
    assert channel.dropped == source_context.counters.frames_in - len(indices), "every gap is counted"


def test_a_missing_camera_is_reported() -> None:
    with pytest.raises(UserError, match=r"Camera '/dev/video97' cannot be opened: .* This machine has.*plugged in"):
        open_source(context("/dev/video97"))
    with pytest.raises(UserError, match=r"Camera '97' cannot be opened: there is no such device\."):
        open_source(context("97"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices are named so on Linux")
def test_a_device_that_is_not_a_camera_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "video0").write_bytes(b"no device")
    monkeypatch.setattr(LiveSource, "_camera", lambda _: (str(tmp_path / "video0"), "v4l2", {}))
    with pytest.raises(UserError, match=r"Camera '0' cannot be opened: .*\. This machine has"):
        list(open_source(context("0")).frames())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices are named so on Linux")
def test_numbers_and_names_of_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfau.engine.sources.live.Path.exists", lambda _: True)
    for address, device, name in (
        ("0", "/dev/video0", "camera0"),
        ("/dev/video2", "/dev/video2", "camera2"),
        (
            "/dev/v4l/by-id/usb-046d_Webcam-index0",
            "/dev/v4l/by-id/usb-046d_Webcam-index0",
            "camera-usb-046d_Webcam-index0",
        ),
    ):
        source = open_source(context(address, camera_size="640x480", camera_fps=15.0))
        assert isinstance(source, LiveSource)
        assert source.live
        assert source._camera() == (device, "v4l2", {"framerate": "15", "video_size": "640x480"})
        assert derived_name(address) == name


def test_a_camera_that_is_unplugged_is_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test machines have no camera, so one of FFmpeg's input devices stands in for Video4Linux: it is opened the same
    way, by device and format, delivers frames without a container, and ends after 20 of them."""
    device = "testsrc=size=320x240:rate=25:duration=0.8"
    monkeypatch.setattr("vlfau.engine.sources.live.Path.exists", lambda _: True)
    monkeypatch.setattr(LiveSource, "_camera", lambda _: (device, "lavfi", {}))
    source_context = context("0")
    stamps = []
    for item in open_source(source_context).frames():
        assert isinstance(item, Frame)
        assert item.pixels.shape == (240, 320, 3)
        stamps.append(item.stamp)
        if len(stamps) == 45:
            source_context.stopping.set()
    assert [stamp.index for stamp in stamps] == list(range(45))
    times = [stamp.pts for stamp in stamps]
    assert times == sorted(times)
    assert source_context.counters.reconnects == 2


def test_a_recording_in_hls_is_played_to_its_end() -> None:
    """Nothing is dropped from a recording."""
    with http_server(lambda handler, _: hls(handler, 0, 8, over=True)) as address:
        source = open_source(context(f"{address}/film.m3u8"))
        assert not source.live
        items = list(source.frames())
    assert [number_of(item.pixels) for item in items if isinstance(item, Frame)] == list(range(200))
    assert items[-1] == Ended("live", "finished")


def test_live_hls_continues_with_segments_that_are_added_to_the_list() -> None:
    """Segments appear two at a time, after a pause that would count as a stall elsewhere, and old ones disappear."""
    began = time.monotonic()

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        there = min(8, 4 + 2 * int((time.monotonic() - began) / 1.5))
        hls(handler, max(0, there - 5), there, over=there == 8)

    with http_server(answer) as address:
        source_context = context(f"{address}/camera.m3u8")
        source = open_source(source_context)
        assert source.live
        items = list(source.frames())
    assert items[-1] == Ended("live", "finished")
    frames = [item for item in items if isinstance(item, Frame)]
    numbers = [number_of(frame.pixels) for frame in frames]
    assert numbers == list(range(200 - len(numbers), 200)), "nothing missing, nothing repeated"
    assert len(numbers) >= 150
    assert [frame.stamp.index for frame in frames] == list(range(len(frames)))
    assert source_context.counters.reconnects == 0


def test_https(tmp_path: Path) -> None:
    """With a self-signed certificate, as cameras have and FFmpeg accepts."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(
        [openssl, "req", "-x509", *key, "-days", "1", "-subj", "/CN=127.0.0.1"], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        start(handler)
        handler.wfile.write(transport_stream(0, 100))

    with http_server(answer, tls) as address:
        assert address.startswith("https://")
        items = list(open_source(context(f"{address}/live.ts", live=False)).frames())
    assert [number_of(item.pixels) for item in items if isinstance(item, Frame)] == list(range(100))


def python_with_gstreamer() -> str | None:
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    for name in ("/usr/bin/python3", shutil.which("python3")):
        if name and Path(name).exists() and not subprocess.run([name, "-c", code], capture_output=True).returncode:
            return name
    return None


class RtspServer:
    def __init__(self, python: str) -> None:
        self.python, self.port = python, free_port()
        self.address = f"rtsp://127.0.0.1:{self.port}/live"
        self.start()

    def start(self) -> None:
        script = HELPERS / "rtsp_server.py"
        self.process = subprocess.Popen([self.python, str(script), str(self.port)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def rtsp() -> Iterator[RtspServer]:
    python = python_with_gstreamer()
    if python is None:
        pytest.skip("no Python with GStreamer's RTSP server (apt install gir1.2-gst-rtsp-server-1.0 python3-gi)")
    server = RtspServer(python)
    yield server
    server.kill()


def test_an_rtsp_server_that_is_killed_and_restarted(rtsp: RtspServer) -> None:
    source_context = context(rtsp.address, read_timeout=1.0, open_timeout=5.0)
    restarted = threading.Event()
    stamps = []

    def restart() -> None:
        time.sleep(1.0)
        rtsp.start()
        restarted.set()

    after = 0
    deadline = time.monotonic() + 40
    for item in open_source(source_context).frames():
        assert isinstance(item, Frame)
        assert item.pixels.shape == (240, 320, 3)
        stamps.append(item.stamp)
        if len(stamps) == 20:
            rtsp.kill()
            threading.Thread(target=restart).start()
        after += restarted.is_set()
        if after == 20 or time.monotonic() > deadline:
            source_context.stopping.set()
    assert after >= 20, source_context.counters.note
    assert [stamp.index for stamp in stamps] == list(range(len(stamps)))
    times = [stamp.pts for stamp in stamps]
    assert times == sorted(times)
    outage = max(b - a for a, b in pairwise(times))
    assert 1.0 < outage < 20
    assert source_context.counters.reconnects >= 1
    assert source_context.counters.state == "playing"


def test_the_delay_of_an_rtsp_stream_stays_flat(rtsp: RtspServer) -> None:
    """The delay does not grow, so nothing queues up before the reader."""
    source_context = context(rtsp.address, read_timeout=2.0, open_timeout=5.0, duration=3.0)
    delays = []
    for item in open_source(source_context).frames():
        if isinstance(item, Frame):
            delays.append(item.stamp.monotonic_ns / 1e9 - item.stamp.pts)
    assert len(delays) > 50
    half = len(delays) // 2
    assert min(delays[half:]) - min(delays[:half]) < 0.1
