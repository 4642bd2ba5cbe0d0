"""Files, images and standard input: every frame once, in order, upright, at its time; and error messages."""

from __future__ import annotations

import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import number_of, numbered, write_clip
from neighbours import slowness

from vlfau.engine.counters import Counters
from vlfau.engine.packets import Ended, Frame
from vlfau.engine.settings import SourceSettings
from vlfau.engine.sources import open_source, open_sources
from vlfau.engine.sources.addresses import derived_name, is_live, unique
from vlfau.engine.sources.base import Context
from vlfau.models.errors import UserError

PLAIN = SourceSettings()


def play(address: Path | str, **changes: Any) -> tuple[list[Frame], Ended, Counters]:
    """All that a source delivers, with copies of the pixels, because the decoder may reuse its memory."""
    context = Context(str(address), replace(PLAIN, **changes), Counters("clip"), threading.Event())
    frames, ended = [], None
    for item in open_source(context).frames():
        if isinstance(item, Frame):
            frames.append(Frame(item.stamp, item.pixels.copy()))
        else:
            ended = item
    assert ended is not None
    return frames, ended, context.counters


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.pixels) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("plain.mp4", "libx264", "yuv420p"),
        ("plain.mkv", "libx264", "yuv444p"),
        ("ten-bit.mkv", "libx264", "yuv420p10le"),
        ("full-range.avi", "mjpeg", "yuvj420p"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
        ("alpha.mov", "qtrle", "argb"),
        ("lossless.mkv", "ffv1", "bgr0"),
        ("old.mpg", "mpeg2video", "yuv420p"),
        ("stream.ts", "libx264", "yuv420p"),
        ("loop.gif", "gif", "rgb8"),
    ],
)
def test_every_frame_of_a_file_once_and_in_order(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    write_clip(tmp_path / name, (numbered(i) for i in range(30)), codec=codec, pix_fmt=pix_fmt)
    frames, ended, counters = play(tmp_path / name)
    assert numbers(frames) == list(range(30))
    assert [frame.stamp.index for frame in frames] == list(range(30))
    assert ended.reason == "finished"
    assert counters.dropped == 0
    middle = frames[5].pixels[80, [30, 130]].astype(int)
    assert middle[0, 0] > 150 > middle[0, 2], "red is left and channels are RGB"
    assert middle[1, 2] > 150 > middle[1, 0], "blue is right"
    steps = np.diff([frame.stamp.pts for frame in frames])
    assert steps == pytest.approx(0.04, abs=0.011)  # GIF counts hundredths
    assert frames[0].stamp.pts == pytest.approx(0, abs=0.05)  # even if the container starts elsewhere, as TS does


def test_odd_sizes_keep_every_pixel(tmp_path: Path) -> None:
    write_clip(tmp_path / "odd.mkv", (numbered(i, 161, 97) for i in range(4)), codec="ffv1", pix_fmt="bgr0")
    frames, _, _ = play(tmp_path / "odd.mkv")
    assert frames[3].pixels.shape == (97, 161, 3)
    assert np.abs(frames[3].pixels.astype(int) - numbered(3, 161, 97)).max() <= 2


def test_variable_frame_rate_keeps_the_times_of_the_container(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 520, 1200, 1300]
    write_clip(tmp_path / "vfr.mkv", (numbered(i) for i in range(7)), times=times)
    frames, _, _ = play(tmp_path / "vfr.mkv")
    assert [frame.stamp.pts for frame in frames] == pytest.approx([t / 1000 for t in times], abs=2e-3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int) -> None:
    """A phone held upright stores a rotated picture and a matrix; the test writes such a matrix into the header."""
    path = tmp_path / "turned.mp4"
    write_clip(path, (numbered(i) for i in range(3)))
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, reserved and layer
    data[at : at + 36] = struct.pack(">9i", *(v << 16 for v in (cos, sin, 0, -sin, cos, 0, 0, 0)), 1 << 30)
    path.write_bytes(bytes(data))
    frames, _, _ = play(path)
    upright = numbered(1)
    expected = np.rot90(upright, -degrees // 90)  # a matrix of +90 is shown turned clockwise
    assert frames[1].pixels.shape == expected.shape
    assert np.abs(frames[1].pixels.astype(int) - expected).mean() < 12
    if degrees:
        wrong = np.rot90(upright, degrees // 90 + (degrees == 180))
        assert wrong.shape != expected.shape or np.abs(frames[1].pixels.astype(int) - wrong).mean() > 30


def test_stretched_pixels_become_square(tmp_path: Path) -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = 2

    write_clip(tmp_path / "wide.mkv", (numbered(i) for i in range(3)), prepare=wide)
    frames, _, _ = play(tmp_path / "wide.mkv")
    assert frames[0].pixels.shape == (96, 320, 3)


def test_resolution_change_in_the_middle(tmp_path: Path) -> None:
    parts = []
    for k, (width, height) in enumerate([(160, 96), (320, 192), (96, 160)]):
        part = tmp_path / f"{k}.ts"
        write_clip(part, (numbered(i, width, height) for i in range(10 * k, 10 * k + 10)), container="mpegts")
        parts.append(part.read_bytes())
    (tmp_path / "whole.ts").write_bytes(b"".join(parts))
    frames, ended, _ = play(tmp_path / "whole.ts")
    assert {frame.pixels.shape for frame in frames} == {(96, 160, 3), (192, 320, 3), (160, 96, 3)}
    assert numbers(frames) == list(range(30))
    assert ended.reason == "finished"


def test_start_duration_every_and_max_fps(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, (numbered(i) for i in range(100)))
    frames, _, _ = play(path, start=1.0, duration=0.8)
    assert numbers(frames) == list(range(25, 45))
    assert frames[0].stamp.pts == pytest.approx(1.0)
    assert frames[0].stamp.index == 0
    frames, _, _ = play(path, every=3, duration=1.0)
    assert numbers(frames) == list(range(0, 25, 3))
    assert [frame.stamp.index for frame in frames] == list(range(0, 25, 3))
    frames, _, _ = play(path, max_fps=10)
    assert len(frames) == pytest.approx(40, abs=1)
    assert np.diff([frame.stamp.pts for frame in frames]).min() > 0.07
    frames, ended, _ = play(path, start=100.0)
    assert (frames, ended.reason) == ([], "finished")


def test_realtime_keeps_the_pace_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, (numbered(i) for i in range(20)))
    frames, _, _ = play(path, realtime=True)
    passed = (frames[-1].stamp.monotonic_ns - frames[0].stamp.monotonic_ns) / 1e9
    assert 0.74 < passed < 1.2 * slowness()
    assert numbers(frames) == list(range(20))
    hurried, _, _ = play(path)
    assert (hurried[-1].stamp.monotonic_ns - hurried[0].stamp.monotonic_ns) / 1e9 < 0.6 * slowness()


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has an NVIDIA device")
def test_hardware_decoding_falls_back_or_explains_why(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", (numbered(i) for i in range(5)))
    frames, _, _ = play(tmp_path / "clip.mp4", hwaccel="auto")
    assert numbers(frames) == list(range(5))
    with pytest.raises(UserError, match=r"cuda is not possible here: .*Choose --hwaccel auto or none"):
        play(tmp_path / "clip.mp4", hwaccel="cuda")


@pytest.mark.gpu
def test_hardware_decoding_gives_the_same_pictures(tmp_path: Path) -> None:
    if not os.path.exists("/dev/nvidia0"):
        pytest.skip("no NVIDIA device")
    write_clip(tmp_path / "clip.mp4", (numbered(i, 640, 480) for i in range(50)))
    by_gpu, by_cpu = (play(tmp_path / "clip.mp4", hwaccel=choice)[0] for choice in ("cuda", "none"))
    assert numbers(by_gpu) == numbers(by_cpu) == list(range(50))
    assert all(np.abs(g.pixels.astype(int) - c.pixels).mean() < 3 for g, c in zip(by_gpu, by_cpu))


def test_a_truncated_file_keeps_the_frames_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, (numbered(i) for i in range(60)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, _, _ = play(path)
    assert 15 < len(frames) < 60
    assert numbers(frames)[:15] == list(range(15))


def test_damage_in_the_middle_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    write_clip(path, (numbered(i) for i in range(60)), container="mpegts")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = os.urandom(4000)
    path.write_bytes(bytes(data))
    frames, ended, _ = play(path)
    arrived = numbers(frames)
    assert arrived[:15] == list(range(15))
    assert arrived[-5:] == list(range(55, 60))
    assert ended.reason == "finished"


def empty(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(5000))


def only_sound(path: Path) -> None:
    with av.open(str(path), "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))


@pytest.mark.parametrize("write", [empty, noise, only_sound])
def test_a_file_without_video_is_refused_before_anything_starts(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "clip.mp4"
    write(path)
    with pytest.raises(UserError, match=r"'clip' cannot be read as video: .*complete video file"):
        open_sources([str(path)], PLAIN, threading.Event())


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ([], "No source was given"),
        (["nowhere.mp4"], "'nowhere.mp4' does not exist"),
        (["no*.png"], "Nothing matches"),
        (["."], "holds no images"),
    ],
)
def test_wrong_names_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, addresses: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_sources(addresses, PLAIN, threading.Event())


def test_images_in_natural_order(tmp_path: Path) -> None:
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"p{i}.png"), numbered(i)[..., ::-1])
    (tmp_path / "note.txt").write_text("not a picture")
    for address in (tmp_path, tmp_path / "p*.png"):
        frames, ended, _ = play(address)
        assert numbers(frames) == list(range(12))
        assert ended.reason == "finished"
    assert frames[0].pixels[80, 30, 0] == 200, "channels are RGB"
    single, _, _ = play(tmp_path / "p7.png")
    assert numbers(single) == [7]


def test_an_unreadable_image_is_counted_not_fatal(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), numbered(1))
    (tmp_path / "b.png").write_bytes(b"no")
    (tmp_path / "c.png").write_bytes(b"")
    frames, _, counters = play(tmp_path)
    assert len(frames) == 1
    assert counters.drops == {"unreadable": 2}
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match="None of the 2 files"):
        play(tmp_path)


@pytest.mark.parametrize(("kind", "piped"), [("mkv", True), ("ts", True), ("mp4", False)])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, piped: bool) -> None:
    """From a pipe, and redirected from a file, where even an index at the end can be reached."""
    path = tmp_path / f"clip.{kind}"
    write_clip(path, (numbered(i) for i in range(30)))
    with path.open("rb") as file, subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
        monkeypatch.setattr("sys.stdin", cat.stdout if piped else file)
        frames, ended, _ = play("-")
    assert numbers(frames) == list(range(30))
    assert ended.reason == "finished"


def test_an_index_that_a_pipe_cannot_reach_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "clip.mp4", (numbered(i, 640, 480) for i in range(250)))
    with subprocess.Popen(["cat", str(tmp_path / "clip.mp4")], stdout=subprocess.PIPE) as cat:
        monkeypatch.setattr("sys.stdin", cat.stdout)
        with pytest.raises(UserError, match=r"others need the file: < video\.mp4"):
            play("-")


def test_a_silent_standard_input_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb"):
        monkeypatch.setattr("sys.stdin", file)
        context = Context("-", PLAIN, Counters("stdin"), threading.Event())
        source = open_source(context)
        threading.Timer(0.3, context.stopping.set).start()
        began = time.monotonic()
        assert list(source.frames()) == []
        assert time.monotonic() - began < 2 * slowness()


def test_names() -> None:
    assert derived_name("/data/my film.mp4") == "my-film"
    assert derived_name("rtsp://user:secret@host:554/live/one") == "host-one"
    assert derived_name("0") == derived_name("/dev/video0") == "camera0"
    assert derived_name("-") == "stdin"
    assert unique(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]


def test_addresses_that_end_like_files_are_files() -> None:
    assert not is_live("https://host/film.mp4?key=1")
    assert is_live("http://host/live.m3u8")
    assert is_live("rtsp://host/film.mp4")


def test_the_pixels_of_a_queued_frame_do_not_change(tmp_path: Path) -> None:
    """Frames are views into the memory of the decoder, and several wait in channels while it goes on."""
    write_clip(tmp_path / "clip.mp4", (numbered(i) for i in range(60)))
    context = Context(str(tmp_path / "clip.mp4"), PLAIN, Counters("clip"), threading.Event())
    frames = [item for item in open_source(context).frames() if isinstance(item, Frame)]
    assert numbers(frames) == list(range(60))
