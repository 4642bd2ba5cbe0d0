"""All outputs of one real run at once must agree."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from neighbours import slowness
from reports import make_picture
from small_bundle import UNITS, small_bundle

from vlfau.engine import open_engine, wire
from vlfau.engine.sinks.zeromq import Publisher
from vlfau.engine.subscriber import subscribe
from vlfau.models.files import embedded


def an_empty_clip(folder: Path, frames: int) -> Path:
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for frame in range(frames):
            shot = av.VideoFrame.from_ndarray(make_picture(240, 320), format="rgb24")
            shot.pts, shot.time_base = frame, Fraction(1, 25)
            film.mux(video.encode(shot))
        film.mux(video.encode(None))
    return path


def test_all_outputs_agree(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "bundle").mkdir()
    small_bundle(tmp_path / "bundle")
    received: list[wire.AnyMessage] = []
    engine = open_engine(
        str(embedded() / "demo.mp4"),
        name=["cam"],
        duration=1.0,
        model=str(tmp_path / "bundle"),
        runtime="openvino",
        bind="tcp://127.0.0.1:*",
        wait_subscribers=1,
        csv=tmp_path / "o.csv",
        jsonl=tmp_path / "o.jsonl",
        parquet=tmp_path / "o.parquet",
        render=tmp_path / "o.mp4",
        subtitles=tmp_path / "o.vtt",
        metrics=":0",
    )
    publisher = next(sink for sink in engine.sinks.sinks if isinstance(sink, Publisher))

    def listen() -> None:
        while publisher.address.endswith("*"):
            never.wait(0.01)
        with subscribe(publisher.address, ("au/", "text/", "end/"), timeout_s=60) as messages:
            received.extend(messages)

    never = threading.Event()
    listener = threading.Thread(target=listen)
    listener.start()
    with engine as running:
        reports = list(running)
    listener.join(60)
    assert len(reports) >= 24
    assert [message for message in received if isinstance(message, wire.Report)] == reports
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert [wire.decode_payload("au", line) for line in lines] == reports
    with open(tmp_path / "o.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(max(len(report.faces), 1) for report in reports)
    assert parquet.read_table(tmp_path / "o.parquet")["timestamp"].to_pylist() == [
        float(row["timestamp"]) for row in rows
    ]
    for row in rows:
        report = reports[int(row["frame"])]
        for unit, state in report.faces[0].aus.items() if report.faces else ():
            assert row[f"{unit}_c"] == str(int(state.on))
            assert unit in UNITS
    with av.open(str(tmp_path / "o.mp4")) as film:
        times = [frame.time for frame in film.decode(video=0)]
    assert times == pytest.approx([report.pts for report in reports], abs=1e-4)
    sentences = {face.text for report in reports for face in report.faces if face.text}
    captions = (tmp_path / "o.vtt").read_text(encoding="utf-8")
    assert all(text in captions for text in sentences)
    assert {message.text for message in received if isinstance(message, wire.Text)} == sentences
    end = received[-1]
    assert isinstance(end, wire.End)
    assert (end.reason, end.frames_out, end.left) == ("finished", len(reports), 0)


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_finishes_every_file_within_two_seconds(tmp_path: Path, way: signal.Signals) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "bundle").mkdir()
    small_bundle(tmp_path / "bundle")
    command = [sys.executable, "-m", "vlfau.engine.commands.stream", str(an_empty_clip(tmp_path, 750)), "--realtime"]
    command += ["--model", str(tmp_path / "bundle"), "--runtime", "openvino", "--bind", f"ipc://{tmp_path}/s"]
    command += ["--wait-subscribers", "1", "--metrics", ":0"]
    for flag in ("csv", "jsonl", "parquet", "mp4", "vtt"):
        name = {"mp4": "--render", "vtt": "--subtitles"}.get(flag, f"--{flag}")
        command += [name, str(tmp_path / f"o.{flag}")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with subscribe(f"ipc://{tmp_path}/s", ("au/", "end/"), timeout_s=60) as messages:
            for message in messages:
                if isinstance(message, wire.Report) and message.seq == 30:
                    process.send_signal(way)
                    sent = time.monotonic()
            assert isinstance(message, wire.End)
            assert message.reason == "stopped"
        process.wait(30)
        took = time.monotonic() - sent
        assert process.stderr is not None
        stderr = process.stderr.read()
    assert took < 2 * slowness()
    assert process.returncode == 130
    assert "clip: stopped after" in stderr
    assert "Traceback" not in stderr
    count = message.frames_out
    assert count >= 31
    assert len((tmp_path / "o.jsonl").read_bytes().splitlines()) == count
    assert parquet.read_table(tmp_path / "o.parquet").num_rows == count
    with av.open(str(tmp_path / "o.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == count
