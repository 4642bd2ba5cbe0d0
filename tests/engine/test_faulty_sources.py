"""Damage, odd names and odd clocks of one source: a sentence, rising times, and nothing lost of other sources."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from media import number_of, numbered, write_clip
from shared_files import ROOT
from small_bundle import small_bundle

from vlfau.engine.app import Engine, StreamFailed
from vlfau.engine.commands.stream import main
from vlfau.engine.counters import Counters
from vlfau.engine.packets import Ended, Frame
from vlfau.engine.settings import SourceSettings, for_python
from vlfau.engine.sources import open_source, open_sources
from vlfau.engine.sources.base import Context
from vlfau.engine.sources.decoding import SHORTEST_S, Clock, Decoder
from vlfau.engine.sources.live import LiveSource
from vlfau.engine.tracking.find import FaceFinder
from vlfau.engine.wire import End
from vlfau.models.errors import UserError
from vlfau.models.settings import LARGEST_TOML, load_toml

REAL_DAMAGE = ROOT.parent / "shared" / "real" / "faults" / "tables-change.ts"


def frames_of(address: Path | str, **changes: Any) -> tuple[list[Frame], Ended | None]:
    context = Context(str(address), replace(SourceSettings(), **changes), Counters("clip"), threading.Event())
    items = list(open_source(context).frames())
    ended = items[-1] if items and isinstance(items[-1], Ended) else None
    return [item for item in items if isinstance(item, Frame)], ended


def assert_rising(frames: list[Frame]) -> None:
    assert np.diff([frame.stamp.pts for frame in frames]).min() > 0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write_clip(path, (numbered(i) for i in range(50)))
    return path


# Damage


class AppearingStream:
    """Stands in for PyAV's iterator of packets over a transport stream whose tables change: PyAV reads past the list of
    the streams that it knew in the beginning, and ends with an IndexError. Whether it does depends on memory that it
    never wrote, so no file provokes it reliably."""

    def __init__(self, packets: Iterator[Any], good: int) -> None:
        self.packets, self.good = packets, good

    def __next__(self) -> Any:
        if not self.good:
            raise IndexError("list index out of range")
        self.good -= 1
        return next(self.packets)


class Container:
    def __init__(self, container: Any, good: int) -> None:
        self.container, self.good = container, good

    def demux(self, stream: Any) -> AppearingStream:
        return AppearingStream(self.container.demux(stream), self.good)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)


def break_packets(monkeypatch: pytest.MonkeyPatch, good: int, name: str) -> None:
    """After `good` packets the iterator of every file called so fails."""
    intact = Decoder.__iter__

    def iterate(decoder: Decoder) -> Iterator[Any]:
        if name in decoder._container.name:
            decoder._container = Container(decoder._container, good)  # type: ignore[assignment]
        return intact(decoder)

    monkeypatch.setattr(Decoder, "__iter__", iterate)


def test_a_mistake_of_pyav_is_damage_of_the_source(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_packets(monkeypatch, 30, clip.name)
    frames, ended = frames_of(clip)
    assert [number_of(frame.pixels) for frame in frames] == list(range(30))
    assert ended == Ended("clip", "error", "Source 'clip' is damaged after frame 29: its streams change in the middle.")


def test_a_picture_that_cannot_be_converted_is_damage_too(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = Decoder._pixels

    def fails(decoder: Decoder, frame: Any) -> Any:
        if frame.pts and frame.time > 0.9:
            raise MemoryError
        return convert(decoder, frame)

    monkeypatch.setattr(Decoder, "_pixels", fails)
    frames, ended = frames_of(clip)
    assert len(frames) == 23
    assert ended is not None
    assert ended.error == "Source 'clip' is damaged after frame 22: MemoryError."


@pytest.mark.skipif(not REAL_DAMAGE.exists(), reason="the recording is only where this was found")
def test_the_recording_whose_tables_change() -> None:
    frames, ended = frames_of(REAL_DAMAGE)
    assert len(frames) == 30, "all that it holds"
    assert ended is not None
    assert_rising(frames)


# One source among others


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small").folder


class NoFaces:
    threshold, name, reason, landmarks = 0.5, "none", "none", None

    def find(self, pictures: Any) -> list[Any]:
        from vlfau.models.faces.base import Detections

        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
        return [Detections(*nothing) for _ in pictures]

    def locate(self, picture: Any, boxes: Any) -> Any:
        raise AssertionError("there is no face")


def engine(bundle: Path, *sources: Path | str, **settings: Any) -> Engine:
    values = for_python(tuple(map(str, sources)), {"model": str(bundle), "runtime": "openvino", **settings})
    none: Any = NoFaces()
    return Engine(values, open_finder=lambda *_: FaceFinder(values.faces, none, none, 16))


def test_a_source_that_cannot_be_read_ends_itself_and_not_the_others(
    bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picture.png").write_bytes(b"no")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    bad: list[Path | str] = [
        tmp_path / "picture.png",
        tmp_path / "film.mp4",
        Path("/dev/zero"),
        "http://127.0.0.1:9/film.mp4",
    ]
    ends: list[End] = []
    rows: list[str] = []

    def watch() -> None:
        with engine(bundle, *bad, clip, name=["a", "b", "c", "d", "good"]) as running:
            monkeypatch.setattr(running.sinks, "end", ends.append)
            rows.extend(report.stream for report in running)

    with pytest.raises(StreamFailed, match="None of the 1 files of 'a'") as failed:
        watch()
    for name in (
        "'b' cannot be read",
        "'c' cannot be read",
        "'d' cannot be read as video: Connection refused. Is the address right",
    ):
        assert name in str(failed.value)
    assert rows == ["good"] * 50
    assert {end.stream: end.reason for end in ends} == dict.fromkeys("abcd", "error") | {"good": "finished"}


@pytest.mark.parametrize("name", ["picture.png", "film.mp4"])
def test_alone_it_ends_the_run_with_a_sentence(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_bytes(b"no")
    assert main([str(tmp_path / name), "--model", str(bundle), "--bind", "none", "--quiet"]) == 2
    assert "readable image" in (errors := capsys.readouterr().err) or "cannot be read as video" in errors


def test_with_others_the_exit_code_says_so(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    out = tmp_path / "out.jsonl"
    arguments = ["--model", str(bundle), "--runtime", "openvino", "--bind", "none", "--quiet", "--jsonl", str(out)]
    assert main([str(clip), str(tmp_path / "film.mp4"), *arguments]) == 1
    assert len(out.read_text().splitlines()) == 50


# Times


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": "3", "g": "20"}), ("mpeg4", {"bf": "2"})])
def test_times_rise_where_a_container_stores_them_in_decode_order(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    write_clip(tmp_path / "b.avi", (numbered(i) for i in range(60)), codec=codec, options=options)
    frames, _ = frames_of(tmp_path / "b.avi")
    assert [number_of(frame.pixels) for frame in frames] == list(range(60))
    assert np.diff([frame.stamp.pts for frame in frames]) == pytest.approx(0.04, abs=1e-3)


def pieces(folder: Path, count: int) -> Path:
    """A film whose clock starts again with every piece of two seconds."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-MEDIA-SEQUENCE:0"]
    write_clip(folder / "piece.ts", (numbered(i) for i in range(50)), container="mpegts")
    for _ in range(count):
        lines += ["#EXTINF:2.0,", "piece.ts"]
    (folder / "film.m3u8").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    return folder / "film.m3u8"


def test_a_clock_that_starts_again_with_every_piece_still_reaches_the_duration(tmp_path: Path) -> None:
    frames, ended = frames_of(pieces(tmp_path, 4), duration=5.0)
    assert len(frames) == pytest.approx(125, abs=2)
    assert ended == Ended("clip", "finished")
    assert_rising(frames)


def test_joined_recordings_have_rising_times(tmp_path: Path) -> None:
    write_clip(tmp_path / "part.ts", (numbered(i) for i in range(60)), container="mpegts")
    (tmp_path / "whole.ts").write_bytes((tmp_path / "part.ts").read_bytes() * 3)
    frames, _ = frames_of(tmp_path / "whole.ts")
    assert len(frames) == 180
    assert_rising(frames)
    assert frames[-1].stamp.pts == pytest.approx(7.2, abs=0.2)


@pytest.mark.parametrize("second", [0.4, 0.4 - 1e-16, 0.4 + 1e-16, 0.4 + 1e-6])
def test_times_that_are_equal_when_published_rise(clip: Path, second: float) -> None:
    with Decoder(str(clip)) as decoder:
        clock = Clock(decoder)
        times = [clock.at(SimpleNamespace(pts=pts, dts=None, time_base=1.0)) for pts in (0.4, second)]
    assert times[1] - times[0] >= SHORTEST_S


# Names


def test_a_local_name_is_never_an_address(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:__x.mkv", "tcp:x.mkv", "a:b.mkv"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        frames, _ = frames_of(name)
        assert len(frames) == 50


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_that_is_no_utf8_can_be_written(clip: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mkv")
    Path(path).write_bytes(clip.read_bytes())
    [source] = open_sources([path], SourceSettings(), threading.Event())
    assert source.context.stream == "caf"
    assert len([item for item in source.frames() if isinstance(item, Frame)]) == 50


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is empty"):
        open_sources([name], SourceSettings(), threading.Event())


@pytest.fixture
def _ordinary_user() -> Iterator[None]:
    """Root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of Unix")
def test_what_may_not_be_read_is_said_in_a_sentence(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "clip.mp4").write_bytes(b"")
    (tmp_path / "engine.toml").write_text("")
    (tmp_path / "engine.toml").chmod(0)
    (tmp_path / "closed").chmod(0)
    request.getfixturevalue("_ordinary_user")
    try:
        for name in ("closed", "closed/clip.mp4", "closed/below/clip.mp4"):
            with pytest.raises(UserError, match="cannot be opened: Permission denied"):
                open_sources([str(tmp_path / name)], SourceSettings(), threading.Event())
        assert main(["--config", str(tmp_path / "engine.toml")]) == 2
    finally:
        if not os.getuid():
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o700)


def test_a_name_that_is_too_long_is_reported() -> None:
    with pytest.raises(UserError, match="cannot be opened: File name too long"):
        open_sources(["a" * 5000], SourceSettings(), threading.Event())


def test_the_name_of_a_picture_forges_no_line(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), numbered(1))
    (tmp_path / "b\nvlfau-stream: forged\x1b[2J.png").write_bytes(b"no")
    context = Context(str(tmp_path), SourceSettings(), Counters("clip"), threading.Event())
    assert len(list(open_source(context).frames())) == 2
    assert "forged" in context.counters.note
    assert context.counters.note.isprintable()


# Flags and configuration


@pytest.mark.parametrize(
    "flags",
    [
        ["--start", "inf"],
        ["--start", "1e308"],
        ["--start", "1e20"],
        ["--start", "nan"],
        ["--duration", "nan"],
        ["--duration", "inf"],
        ["--max-fps", "nan"],
        ["--decode-threads", str(2**31)],
        ["--read-timeout", "inf"],
        ["--image-fps", "nan"],
        ["--image-fps", "1e300"],
        ["--roi", "nan", "0", "1", "1"],
        ["--roi", "0", "0", "inf", "1"],
        ["--min-quality", "nan"],
        ["--memory", "inf"],
        ["--smooth", "nan"],
        ["--hysteresis", "nan"],
        ["--baseline", "inf"],
        ["--scan", "inf"],
        ["--explain", "interval:inf"],
    ],
)
def test_a_number_that_means_nothing_is_refused(
    bundle: Path, clip: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert main([str(clip), "--model", str(bundle), "--bind", "none", "--quiet", *flags]) == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "--timeout", "nan"],
        ["calibrate", "decisions", "bundle", "--precision-wanted", "inf"],
        ["calibrate", "decisions", "bundle", "--prior", "0.2", "nan"],
        ["calibrate", "int8", "bundle", "--pictures", "x", "--allow", "nan"],
    ],
)
def test_other_commands_refuse_it_too(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    from vlfau.calibration.command import main as calibrate
    from vlfau.engine.commands.watch import main as watch

    with pytest.raises(SystemExit) as left:
        (watch if arguments[0] == "watch" else calibrate)(arguments[1:])
    assert left.value.code == 2
    assert "a number is needed, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [("start", float("nan")), ("memory", float("inf")), ("roi", (0.0, 0.0, float("nan"), 1.0)), ("scan", float("nan"))],
)
def test_from_python_too(clip: Path, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"--{name}"):
        for_python((str(clip),), {name: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[faces]\nroi = ['a', 'b', 'c', 'd']\n", "Setting 'roi' cannot be"),
        ("sources = 5\n", "'sources' in"),
        ("[source]\nstart = nan\n", "--start needs a number, got nan"),
        ("x = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_a_configuration_file_that_means_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "engine.toml").write_text(text)
    assert main(["--config", str(tmp_path / "engine.toml")]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_is_no_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["/dev/full", "/dev/zero", "pipe", "large"])
def test_a_configuration_file_has_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (LARGEST_TOML + 1))
    if name == "/dev/full" and not Path(name).exists():
        pytest.skip("this system has no /dev/full")
    assert main(["--config", str(tmp_path / name)]) == 2
    assert re.search("is a device or a pipe|is larger than 1 MiB", capsys.readouterr().err)


def test_a_configuration_can_come_from_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"sources = ['a.mp4']\n")
    os.close(writer)
    assert load_toml(Path(f"/dev/fd/{reader}")) == {"sources": ["a.mp4"]}
    os.close(reader)


def test_a_closed_standard_input_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input, which is closed"):
        open_sources(["-"], SourceSettings(), threading.Event())


# Connections


def test_short_connections_are_no_failures(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends every connection after two seconds of video is opened again at once, each time."""
    film = clip.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(film)

        def log_message(self, format: str, *args: object) -> None: ...

    delays: list[float] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/live"
        context = Context(address, SourceSettings(reconnect=1), Counters("live"), threading.Event())
        source = open_source(context)
        assert isinstance(source, LiveSource)
        monkeypatch.setattr(context.stopping, "wait", delays.append)
        for _ in source.frames():
            if context.counters.reconnects == 6:
                break
        server.shutdown()
    assert delays == [0.5] * 6


def test_the_note_on_an_address_does_not_ask_for_a_file() -> None:
    with pytest.raises(UserError, match=r"Connection refused\. Is the address right"):
        frames_of("http://127.0.0.1:9/film.mp4")
