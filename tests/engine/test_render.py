"""Rendering: real encodes that are decoded again."""

from __future__ import annotations

import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from reports import make_picture, make_report
from shared_files import HELPERS

from vlfau.engine.packets import Origin
from vlfau.engine.sinks.drawing import draw, text_mask, wrap
from vlfau.engine.sinks.render import Render
from vlfau.models.errors import UserError


def render(path: Path, times: list[float], *, source: Path | None = None, stream: str = "cam") -> None:
    picture = make_picture()
    with Render(path, [Origin(stream, source)]) as sink:
        for frame, pts in enumerate(times):
            sink.write(make_report(frame, stream, pts=pts), picture)


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as film:
        return [frame.time for frame in film.decode(video=0)]


def make_source(path: Path, seconds: float = 2.0, codec: str = "aac", title: str = "") -> Path:
    """A video with a beep that starts after one second."""
    with av.open(str(path), "w") as film:
        film.metadata["title"] = title
        video = film.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        audio = film.add_stream(codec, rate=48000, layout="mono")
        for frame in range(int(seconds * 25)):
            shot = av.VideoFrame.from_ndarray(make_picture(240, 320), format="rgb24")
            shot.pts, shot.time_base = frame, Fraction(1, 25)
            film.mux(video.encode(shot))
        form = audio.codec_context.format.name
        size = audio.codec_context.frame_size or 1024
        for start in range(0, int(seconds * 48000), size):
            moment = (np.arange(size) + start) / 48000
            wave = 0.5 * np.sin(2 * np.pi * 440 * moment) * (moment >= 1.0)
            samples = wave.astype(np.float32) if form.startswith("flt") else (wave * 32767).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(samples[None], format=form, layout="mono")
            sound.pts, sound.sample_rate, sound.time_base = start, 48000, Fraction(1, 48000)
            film.mux(audio.encode(sound))
        film.mux(video.encode(None))
        film.mux(audio.encode(None))
    return path


def beep_begins(path: Path) -> float:
    with av.open(str(path)) as film:
        for frame in film.decode(audio=0):
            loud = np.abs(frame.to_ndarray().astype(np.float64)).max()
            if loud > (0.1 if frame.format.name.startswith("flt") else 3000):
                return float(frame.time)
    raise AssertionError("no sound")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_timestamps_are_those_of_the_source_even_if_uneven(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    uneven = [0.0, 0.04, 0.12, 0.16, 0.5, 0.533, 1.2, 1.24]
    render(path, uneven)
    assert times_of(path) == pytest.approx(uneven, abs=0.0006)  # Matroska counts milliseconds
    with av.open(str(path)) as film:
        assert film.streams.video[0].codec_context.name == "h264"


def test_a_live_stream_begins_at_zero(tmp_path: Path) -> None:
    render(tmp_path / "out.mp4", [5000.0, 5000.04, 5000.2])
    assert times_of(tmp_path / "out.mp4") == pytest.approx([0, 0.04, 0.2], abs=1e-4)


def test_a_clock_that_is_set_back_continues(tmp_path: Path) -> None:
    render(tmp_path / "out.mp4", [9.0, 9.04, 2.0, 2.04, 2.04])
    times = times_of(tmp_path / "out.mp4")
    assert len(times) == 5
    assert (np.diff(times) > 0).all()
    assert times[-1] < 0.2


@pytest.mark.parametrize(("name", "codec"), [("in.mp4", "aac"), ("in.mkv", "pcm_s16le")])
def test_sound_is_kept_and_in_time(tmp_path: Path, name: str, codec: str) -> None:
    source = make_source(tmp_path / name, codec=codec)
    path = tmp_path / "out.mp4"
    render(path, [frame / 25 for frame in range(50)], source=source)
    assert beep_begins(path) == pytest.approx(beep_begins(source), abs=0.05)
    with av.open(str(path)) as film:
        assert film.streams.audio[0].codec_context.name == "aac"
        assert float(film.streams.audio[0].duration * film.streams.audio[0].time_base) == pytest.approx(2.0, abs=0.1)


def test_sound_of_joined_recordings_goes_on(tmp_path: Path) -> None:
    """The clock of the second starts again, and that of neither begins at zero."""
    part = make_source(tmp_path / "part.ts")
    whole = tmp_path / "whole.ts"
    whole.write_bytes(part.read_bytes() * 2)
    for path in (tmp_path / "copied.mp4", tmp_path / "copied.mkv"):
        render(path, [frame / 25 for frame in range(100)], source=whole)
        assert beep_begins(path) == pytest.approx(1.0, abs=0.1)
        with av.open(str(path)) as film:
            times = [frame.time for frame in film.decode(audio=0)]
        assert times[-1] == pytest.approx(4.0, abs=0.2)
        assert np.diff(times).min() > 0


def test_a_title_that_is_no_utf8_costs_no_sound(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mkv", title="QQQQ")
    source.write_bytes(source.read_bytes().replace(b"QQQQ", b"\xe9\xff\xe9\xe9"))
    render(tmp_path / "out.mp4", [frame / 25 for frame in range(50)], source=source)
    assert beep_begins(tmp_path / "out.mp4") == pytest.approx(1.0, abs=0.1)


def test_sound_in_an_unknown_codec_is_left_out_and_the_user_is_told(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4")
    source.write_bytes(source.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    lines: list[str] = []
    with Render(tmp_path / "out.mp4", [Origin("cam", source)], lines.append) as sink:
        for frame in range(10):
            sink.write(make_report(frame, pts=frame / 25), make_picture())
    assert len(times_of(tmp_path / "out.mp4")) == 10
    assert len(lines) == 1
    assert "cannot decode the sound of" in lines[0]


def test_sound_follows_a_start_in_the_middle(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", seconds=3.0)
    render(tmp_path / "out.mp4", [1.5 + frame / 25 for frame in range(30)], source=source)
    with av.open(str(tmp_path / "out.mp4")) as film:
        first = next(film.decode(audio=0))
        assert first.time == pytest.approx(0, abs=0.1)
    assert beep_begins(tmp_path / "out.mp4") < 0.15, "the beep began half a second before"


def test_the_drawing_is_in_a_copy_and_the_original_is_untouched() -> None:
    picture = make_picture()
    before = picture.copy()
    drawn = draw(picture, make_report(3))
    assert np.array_equal(picture, before)
    assert drawn.shape == picture.shape
    x0, y0 = (round(side) for side in make_report(3).faces[0].box[:2])
    changed = (drawn != picture).any(axis=2)
    assert changed[y0, x0 : x0 + 10].all(), "the corner mark"
    assert changed[-10:].mean() > 0.9, "the caption"
    assert not changed[:20].any()
    assert np.array_equal(draw(picture, make_report(3, faces=0)), picture), "without faces nothing is drawn"


def test_more_probable_means_a_longer_bar() -> None:
    """Twenty pictures of different probabilities: the coloured area grows with their sum."""
    areas, sums = [], []
    for frame in range(20):
        report = make_report(frame)
        drawn = draw(make_picture(), report)
        areas.append(np.count_nonzero((np.abs(drawn.astype(int) - (94, 234, 212)).sum(axis=2)) < 12))
        sums.append(sum(unit.p for unit in report.faces[0].aus.values() if unit.on))
    assert np.corrcoef(areas, sums)[0, 1] > 0.9


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (101, 77), (2160, 3840)])
def test_drawing_survives_every_size_and_faces_outside(size: tuple[int, int]) -> None:
    for faces in (0, 1, 5):
        assert draw(make_picture(*size), make_report(0, faces=faces)).shape == (*size, 3)


def test_words_wrap_at_the_width() -> None:
    lines = wrap("one two three four five six seven eight nine ten", 20, 120)
    assert len(lines) > 2
    assert all(text_mask(line, 20).shape[1] <= 121 for line in lines)
    assert " ".join(lines) == "one two three four five six seven eight nine ten"


def test_odd_sides_and_a_change_of_resolution(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Render(path, [Origin("cam")]) as sink:
        for frame, size in enumerate([(121, 161), (121, 161), (240, 160), (121, 161)]):
            sink.write(make_report(frame), make_picture(*size))
    with av.open(str(path)) as film:
        shots = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert [shot.shape for shot in shots] == [(122, 162, 3)] * 4
    assert shots[2][:, :10].max() < 40, "a tall picture stands between bars"
    assert shots[0][60, :10].max() > 40


def test_streams_get_a_file_each(tmp_path: Path) -> None:
    with Render(tmp_path / "out.mp4", [Origin("a"), Origin("b")]) as sink:
        for stream in ("a", "b"):
            sink.write(make_report(0, stream), make_picture())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.a.mp4", "out.b.mp4"]


def test_a_kill_leaves_a_video_that_plays(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from reports import make_picture, make_report\n"
        "from vlfau.engine.sinks.render import Render\n"
        "from vlfau.engine.sinks import Origin\n"
        "with Render(Path(sys.argv[2]), [Origin('cam')]) as sink:\n"
        "    for frame in range(300):\n"
        "        sink.write(make_report(frame), make_picture(120, 160))\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(HELPERS), str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert len(times_of(path)) >= 200


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    link = tmp_path / "out.mp4"
    link.symlink_to("/dev/full")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"The disk is full: .*out\.mp4"):
        render(link, [frame / 25 for frame in range(100)])
    assert time.monotonic() - started < 20


def test_a_name_without_a_known_format_is_refused() -> None:
    with pytest.raises(UserError, match=r"\.mp4"):
        Render(Path("out.gif"), [])
