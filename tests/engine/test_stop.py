"""A stop ends the command within two seconds, whatever it waits for, and every file is complete."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import av
import pytest
from media import numbered, write_clip
from neighbours import slowness
from servers import free_port, hls, http_server, start, transport_stream
from small_bundle import small_bundle

from vlfau.engine.sources.pipe import LOOK_S

pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and named pipes")

STOP_S = 2.0
FLAGS = ["--runtime", "openvino", "--detector", "embedded", "--bind", "none"]


@dataclass
class Silent:
    """A source that sends something or nothing, and then falls silent."""

    address: str
    frames: int = 0  # at least so many rows arrive before the silence
    flags: list[str] = field(default_factory=list)
    stdin: int = subprocess.DEVNULL


Opener = Callable[[Path, ExitStack], Silent]


def standard_input(folder: Path, stack: ExitStack) -> Silent:
    reading, writing = os.pipe()
    stack.callback(os.close, writing)
    stack.callback(os.close, reading)
    return Silent("-", stdin=reading, flags=["--read-timeout", "60"])


def fifo(folder: Path, data: bytes | None, stack: ExitStack) -> Silent:
    """Without a writer if data is None."""
    path = folder / "camera.ts"
    os.mkfifo(path)
    if data is None:
        return Silent(str(path), flags=["--open-timeout", "60"])
    descriptor = os.open(path, os.O_RDWR)
    stack.callback(os.close, descriptor)

    def write() -> None:
        with suppress(OSError), os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return Silent(str(path), frames=10 if data else 0, flags=["--read-timeout", "60", "--open-timeout", "60"])


def fifo_without_writer(folder: Path, stack: ExitStack) -> Silent:
    return fifo(folder, None, stack)


def fifo_with_silent_writer(folder: Path, stack: ExitStack) -> Silent:
    return fifo(folder, b"", stack)


def fifo_that_stalls(folder: Path, stack: ExitStack) -> Silent:
    return fifo(folder, transport_stream(0, 100), stack)


def http(name: str, data: bytes, stack: ExitStack, frames: int) -> Silent:
    release = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, connection: int) -> None:
        start(handler, 10**8 if name.endswith("mkv") else None)
        handler.wfile.write(data)
        handler.wfile.flush()
        release.wait(60)

    address = stack.enter_context(http_server(answer))
    stack.callback(release.set)
    return Silent(f"{address}/{name}", frames, ["--open-timeout", "20", "--read-timeout", "20"])


def http_file_that_stalls(folder: Path, stack: ExitStack) -> Silent:
    write_clip(folder / "film.mkv", (numbered(i) for i in range(250)))
    film = (folder / "film.mkv").read_bytes()
    return http("film.mkv", film[: len(film) // 2], stack, 10)


def http_camera_that_stalls(folder: Path, stack: ExitStack) -> Silent:
    return http("live.ts", transport_stream(0, 100), stack, 1)


def http_without_answer(folder: Path, stack: ExitStack) -> Silent:
    return http("live.ts", b"", stack, 0)


def hls_without_new_pieces(folder: Path, stack: ExitStack) -> Silent:
    address = stack.enter_context(http_server(lambda handler, _: hls(handler, 0, 4, over=False)))
    return Silent(f"{address}/camera.m3u8", 1)


def hls_without_answer(folder: Path, stack: ExitStack) -> Silent:
    """It is opened before anything else, to learn whether it is a recording."""
    return http("camera.m3u8", b"", stack, 0)


def udp(folder: Path, stack: ExitStack) -> Silent:
    return Silent(f"udp://127.0.0.1:{free_port()}", flags=["--open-timeout", "30", "--read-timeout", "30"])


def rtsp_without_answer(folder: Path, stack: ExitStack) -> Silent:
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return Silent(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live", flags=["--open-timeout", "30"])


def playing_file(folder: Path, stack: ExitStack) -> Silent:
    write_clip(folder / "clip.mp4", (numbered(i) for i in range(2000)))
    return Silent(str(folder / "clip.mp4"), 10, ["--realtime"])


OPENERS: list[Opener] = [
    playing_file,
    standard_input,
    fifo_without_writer,
    fifo_with_silent_writer,
    fifo_that_stalls,
    http_file_that_stalls,
    http_camera_that_stalls,
    http_without_answer,
    hls_without_new_pieces,
    hls_without_answer,
    udp,
    rtsp_without_answer,
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small").folder


@contextmanager
def command(source: Silent, bundle: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    errors = folder / "errors.txt"
    outputs = ["--jsonl", "out.jsonl", "--csv", "out.csv", "--render", "out.mp4"]
    arguments = [source.address, "--model", str(bundle), *FLAGS, *source.flags, *outputs]
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vlfau.engine.commands.stream", *arguments],
            cwd=folder,
            stdin=source.stdin,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
        try:
            yield process, errors
        finally:
            process.kill()
            process.wait()


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_for_silence(source: Silent, process: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + 30 * slowness()
    while time.monotonic() < until and process.poll() is None:
        loaded = "faces by" in (folder / "errors.txt").read_text(errors="replace")
        if loaded and len(rows(folder / "out.jsonl")) >= source.frames:
            break
        if source.address.endswith("camera.m3u8") and not source.frames:
            time.sleep(3)  # it says nothing before the address has been looked at
            break
        time.sleep(0.05)
    count = -1
    while source.frames and "--realtime" not in source.flags and count != len(rows(folder / "out.jsonl")):
        count = len(rows(folder / "out.jsonl"))
        time.sleep(0.3)
    time.sleep(0.7 + LOOK_S)


@pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
def test_a_stop_within_two_seconds(bundle: Path, tmp_path: Path, opener: Opener) -> None:
    """`pytest -s` shows how long each took."""
    with ExitStack() as stack:
        source = opener(tmp_path, stack)
        with command(source, bundle, tmp_path) as (process, errors):
            wait_for_silence(source, process, tmp_path)
            assert process.poll() is None, errors.read_text()
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            process.wait(timeout=60)
            took = time.monotonic() - began
    print(f"{opener.__name__}: {took:.2f} s")
    assert took < STOP_S * slowness()
    assert process.returncode == 130, errors.read_text()
    assert "Traceback" not in errors.read_text()
    reports = [json.loads(row) for row in rows(tmp_path / "out.jsonl")]
    assert len(reports) >= source.frames
    if reports:
        assert len(rows(tmp_path / "out.csv")) >= 1
        with av.open(str(tmp_path / "out.mp4")) as video:
            assert len(list(video.decode(video=0))) == len(reports)


def test_the_command_leaves_without_dismantling_python() -> None:
    """Threads of libraries may still run then, and one that asks for Python's lock could abort the process."""
    code = (
        "import atexit, sys, vlfau.engine.commands.stream as s; atexit.register(print, 'dismantled'); "
        "s.main = lambda: print('last words') or 7; s.console()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "last words\n", "")


def test_a_closed_standard_input_is_a_mistake(bundle: Path) -> None:
    command = [sys.executable, "-m", "vlfau.engine.commands.stream", "-", "--model", str(bundle), "--bind", "none"]
    ran = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "standard input, which is closed" in ran.stderr
    assert "Traceback" not in ran.stderr
