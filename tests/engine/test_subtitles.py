"""Captions: times, both formats, and a real reader of subtitles."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from reports import SENTENCES, make_report

from vlfau.engine.sinks.subtitles import Subtitles
from vlfau.models.errors import UserError


def write(path: Path, *, faces: int = 1, streams: tuple[str, ...] = ("cam",)) -> str:
    with Subtitles(path, streams) as sink:
        for frame in range(75):  # three seconds, one sentence a second, no face in the last 15 frames
            sink.write(make_report(frame, streams[0], faces=faces if frame < 60 else 0, sentence=frame // 25))
    return path.read_text(encoding="utf-8") if path.exists() else ""


def test_a_caption_lasts_as_long_as_its_sentence(tmp_path: Path) -> None:
    text = write(tmp_path / "out.vtt")
    assert text == (
        "WEBVTT\n\n"
        f"00:00:00.000 --> 00:00:01.000\n{SENTENCES[0]}\n\n"
        f"00:00:01.000 --> 00:00:02.000\n{SENTENCES[1]}\n\n"
        f"00:00:02.000 --> 00:00:02.400\n{SENTENCES[2]}\n\n"
    )


def test_subrip_counts_and_uses_commas(tmp_path: Path) -> None:
    text = write(tmp_path / "out.srt")
    assert text.startswith(f"1\n00:00:00,000 --> 00:00:01,000\n{SENTENCES[0]}\n\n2\n")


def test_two_faces_share_a_caption(tmp_path: Path) -> None:
    assert f"0: {SENTENCES[0]}\n1: {SENTENCES[0]}\n" in write(tmp_path / "out.vtt", faces=2)


@pytest.mark.parametrize("suffix", [".vtt", ".srt"])
def test_a_player_reads_them(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as film:
        stream = film.streams.subtitles[0]
        cues = [packet for packet in film.demux(stream) if packet.pts is not None]
        spans = [(float(cue.pts * cue.time_base), float(cue.duration * cue.time_base)) for cue in cues]
        words = [bytes(cue).decode() for cue in cues]
    assert spans == [(0.0, 1.0), (1.0, 1.0), (2.0, 0.4)]
    assert words == list(SENTENCES)


def test_a_clock_that_jumps_leaves_no_caption_over_the_gap(tmp_path: Path) -> None:
    path = tmp_path / "out.vtt"
    with Subtitles(path, ("cam",)) as sink:
        for pts in (0.0, 0.04, 0.08, 500.0, 500.04, 3.0, 3.04):
            sink.write(make_report(int(pts * 25), pts=pts))
    spans = [line for line in path.read_text(encoding="utf-8").splitlines() if "-->" in line]
    assert spans == [
        "00:00:00.000 --> 00:00:00.120",
        "00:08:20.000 --> 00:08:20.080",
        "00:00:03.000 --> 00:00:03.080",
    ]


def test_hours_are_hours(tmp_path: Path) -> None:
    path = tmp_path / "out.srt"
    with Subtitles(path, ("cam",)) as sink:
        for pts in (7322.5, 7322.54):
            sink.write(make_report(int(pts * 25), pts=pts))
    assert "02:02:02,500 --> 02:02:02,580" in path.read_text(encoding="utf-8")


def test_streams_get_a_file_each_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "out.vtt", streams=("a", "b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.a.vtt", "out.b.vtt"]
    assert (tmp_path / "out.b.vtt").read_text(encoding="utf-8") == "WEBVTT\n\n"
    with pytest.raises(UserError, match=r"\.vtt or \.srt"):
        Subtitles(tmp_path / "out.txt", ())
