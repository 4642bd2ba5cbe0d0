"""The whole engine on synthetic clips: threads change nothing, several sources, errors, interrupts, and the command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from media import number_of, numbered, write_clip
from neighbours import slowness
from numpy.typing import NDArray
from small_bundle import small_bundle
from walks import FACE, POINTS, Walk, World

from vlfau.engine.app import Engine, StreamFailed
from vlfau.engine.commands.stream import main
from vlfau.engine.settings import for_python
from vlfau.engine.sources.decoding import Damaged, Decoder
from vlfau.engine.tracking.find import FaceFinder
from vlfau.engine.wire import Report
from vlfau.models.bundle import Bundle
from vlfau.models.errors import UserError
from vlfau.models.faces.align import five_points
from vlfau.models.faces.base import Detections, Detector
from vlfau.models.faces.landmarks import Located, box_of
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.base import Runtime

pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")


class NumberFaces:
    """Finds as many faces as the number in the picture says, each at its own place, so that results can be traced."""

    threshold, name, reason, landmarks = 0.5, "numbers", "numbers", None

    @staticmethod
    def points(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = number_of(picture) // 8 % 4
        return np.array([POINTS * FACE * 0.4 + (25 + 35 * k, 60) for k in range(count)], np.float32).reshape(-1, 68, 2)

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        faces = map(self.points, pictures)
        return [Detections(box_of(p), np.full(len(p), 0.9, np.float32), five_points(p)) for p in faces]

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
        truth = self.points(picture)
        points, presence = [], []
        for box in boxes:
            middle = (box[:2] + box[2:]) / 2
            near = [p for p in truth if np.abs(p.mean(0) - middle).max() < 12]
            points.append(near[0] if near else POINTS * FACE * 0.4 + middle)
            presence.append(0.9 if near else 0.1)
        return Located(np.array(points, np.float32).reshape(-1, 68, 2), np.array(presence, np.float32))


def number_finder(bundle: Bundle, engine: Engine) -> FaceFinder:
    known = NumberFaces()
    detector: Detector = known
    return FaceFinder(
        engine.settings.faces,
        detector,
        known,
        bundle.manifest.side,
        stills=[source.origin.stream for source in engine.sources if source.stills],
        keep_pixels=engine.sinks.needs_pixels,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small").folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, (numbered(i) for i in range(80)))
    return path


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vlfau-")] == []


def ready_runtime(bundle: Bundle) -> Runtime:
    """A runtime that is ready to explain, so that the first frame has its sentence."""
    runtime = open_runtime(bundle, "openvino")
    while not runtime.ready_to_explain:
        time.sleep(0.01)
    return runtime


def engine(
    bundle: Path,
    *sources: Path | str,
    threads: bool = True,
    opener: Callable[[Bundle], Runtime] | None = None,
    **settings: Any,
) -> Engine:
    settings = {
        "model": str(bundle),
        "runtime": "openvino",
        "precision": "fp32",
        "min_quality": 0.0,
        "min_face": 5.0,
    } | settings
    engine_settings = for_python(tuple(map(str, sources)), settings)
    return Engine(engine_settings, threads=threads, open_runtime=opener, open_finder=number_finder)


def comparable(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Everything but the clocks."""
    plain = [msgspec.to_builtins(report) for report in reports]
    return [{k: v for k, v in report.items() if k not in ("captured_ns", "latency_ms")} for report in plain]


def test_the_threaded_engine_gives_the_reports_of_the_chain(bundle: Path, clip: Path) -> None:
    with engine(bundle, clip, threads=False, scan=0.1) as reports:
        chain = list(reports)
    for _ in range(3):
        with engine(bundle, clip, scan=0.1) as reports:
            threaded = list(reports)
        assert comparable(threaded) == comparable(chain)
    assert [report.frame for report in chain] == [report.seq for report in chain] == list(range(80))
    assert {len(report.faces) for report in chain} == {0, 1, 2, 3}
    assert any(face.text for report in chain for face in report.faces)
    with engine(bundle, clip, start=0.4, scan=0.1) as reports:
        assert comparable(list(reports)) != comparable(chain), "the comparison can fail"


@pytest.mark.slow  # equal only where the machine keeps the pace of the clip
def test_where_sentences_come_late_threads_change_nothing_either(bundle: Path, clip: Path) -> None:
    """A stream that keeps its own time gets each sentence one report later, so that units never wait."""
    settings: dict[str, Any] = {"scan": 0.1, "realtime": True, "duration": 1.0, "opener": ready_runtime}
    with engine(bundle, clip, threads=False, **settings) as reports:
        chain = list(reports)
    with engine(bundle, clip, **settings) as reports:
        assert comparable(list(reports)) == comparable(chain)
    texts = [
        (report.frame, face.text_frame) for report in chain for face in report.faces if face.text_frame is not None
    ]
    assert texts
    assert all(described < frame for frame, described in texts)


def test_the_number_of_faces_is_followed_from_frame_to_frame(bundle: Path, clip: Path) -> None:
    with engine(bundle, clip, detect_every=1) as reports:
        for report in reports:
            assert len(report.faces) == report.frame // 8 % 4


def test_several_sources_at_once_each_complete_and_in_order(bundle: Path, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mkv"
    write_clip(other, (numbered(i) for i in range(40, 90)))
    with engine(bundle, clip, other, clip, name=["a"]) as running:
        received = list(running)
    for stream, first, count in (("a", 0, 80), ("other", 40, 50), ("clip", 0, 80)):
        own = [report for report in received if report.stream == stream]
        assert [report.seq for report in own] == list(range(count))
        alone_clip = other if first else clip
        with engine(bundle, alone_clip, name=[stream]) as alone:
            assert comparable(own) == comparable(list(alone)), "the other streams change nothing"


@pytest.mark.parametrize("cores", [2, 16])
def test_eight_streams_at_once(bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """With enough cores, several threads find faces."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    with engine(bundle, *[clip] * 8, duration=1.0) as running:
        reports = iter(running)
        received = [next(reports)]
        finders = [thread for thread in threading.enumerate() if thread.name.startswith("vlfau-find-")]
        assert len(finders) == max(1, cores // 4)
        received += reports
        assert threading.active_count() <= 20, "a thread per source and stage, the ticker and the runtime's own"
    streams = {report.stream for report in received}
    assert len(streams) == 8
    for stream in streams:
        assert [report.frame for report in received if report.stream == stream] == list(range(25))


def test_thirty_faces_in_one_frame(bundle: Path, tmp_path: Path) -> None:
    """Each gets its own result back from the batches of the network."""
    walks = [Walk((70 + 110 * (k % 8), 70 + 110 * (k // 8)), (0, 0), k) for k in range(30)]
    world = World(walks, width=950, height=520, miss_rate=0.0)
    write_clip(tmp_path / "crowd.mkv", (world.frame(0.0, i).pixels for i in range(8)), codec="ffv1", pix_fmt="bgr0")

    def finder(bundle: Bundle, engine: Engine) -> FaceFinder:
        return FaceFinder(engine.settings.faces, world, world, bundle.manifest.side)

    settings = for_python(
        (str(tmp_path / "crowd.mkv"),), {"model": str(bundle), "runtime": "openvino", "min_quality": 0.0}
    )
    with Engine(settings, open_finder=finder) as reports:
        received = list(reports)
    assert [len(report.faces) for report in received] == [30] * 8
    assert all(face.valid and face.text for report in received for face in report.faces)
    answers = {tuple(unit.p for unit in face.aus.values()) for face in received[0].faces}
    assert len(answers) > 25


def test_leaving_early_stops_everything_quickly(bundle: Path, clip: Path) -> None:
    with engine(bundle, clip) as reports:
        for report in reports:
            if report.frame == 3:
                break
        began = time.monotonic()
    assert time.monotonic() - began < slowness()


def test_an_error_in_a_network_reaches_the_caller(bundle: Path, clip: Path) -> None:
    class Breaks(NumberFaces):
        def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
            if number_of(picture) == 20:
                raise RuntimeError("device lost")
            return super().locate(picture, boxes)

    def finder(bundle: Bundle, engine: Engine) -> FaceFinder:
        return FaceFinder(engine.settings.faces, Breaks(), Breaks(), bundle.manifest.side)

    broken = Engine(for_python((str(clip),), {"model": str(bundle), "runtime": "openvino"}), open_finder=finder)

    def watch() -> None:
        with broken as reports:
            list(reports)

    with pytest.raises(RuntimeError, match="device lost"):
        watch()
    assert broken.counters["clip"].ended


def test_a_source_that_fails_later_keeps_its_frames_and_is_reported_last(
    bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intact stream runs to its end."""
    whole = Decoder._decoded

    def failing(decoder: Decoder) -> Iterator[Any]:
        for i, frame in enumerate(whole(decoder)):
            if i == 30 and decoder._container.name.endswith("broken.mp4"):
                raise Damaged("the index is damaged")
            yield frame

    broken = clip.with_name("broken.mp4")
    broken.write_bytes(clip.read_bytes())
    monkeypatch.setattr(Decoder, "_decoded", failing)
    received: list[Report] = []

    def watch() -> None:
        with engine(bundle, broken, clip) as reports:
            received.extend(reports)

    with pytest.raises(StreamFailed, match="'broken' is damaged after frame 29: the index is damaged"):
        watch()
    assert sum(report.stream == "broken" for report in received) == 30
    assert sum(report.stream == "clip" for report in received) == 80


def test_a_wall_clock_that_jumps_changes_no_latency(bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter([10**18, 5, 2 * 10**18, 7] * 1000)
    monkeypatch.setattr("vlfau.engine.sources.base.time.time_ns", lambda: next(jumps))
    with engine(bundle, clip, duration=1.0) as reports:
        received = list(reports)
    assert {report.captured_ns for report in received} >= {10**18, 5}, "the clock did jump"
    for report in received:
        parts = report.latency_ms
        assert all(0 <= getattr(parts, name) < 60_000 for name in ("decode", "detect", "align", "predict", "total"))


def test_wrong_settings_are_named(bundle: Path, clip: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown setting 'detect_evry'.*Did you mean 'detect_every'"):
        engine(bundle, clip, detect_evry=3)


def write_out(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_command(*arguments: Path | str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vlfau.engine.commands.stream", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_from_file_to_file(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert (
        main(
            [
                str(clip),
                "--model",
                str(bundle),
                "--runtime",
                "openvino",
                "--bind",
                "none",
                "--quiet",
                "--jsonl",
                str(out),
            ]
        )
        == 0
    )
    assert [row["frame"] for row in write_out(out)] == list(range(80))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_flushes_and_leaves_within_two_seconds(
    bundle: Path, clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out.jsonl"
    running = run_command(
        clip,
        clip,
        "--realtime",
        "--runtime",
        "openvino",
        "--model",
        bundle,
        "--bind",
        "none",
        "--jsonl",
        out,
        "--detector",
        "embedded",
    )
    until = time.monotonic() + 30
    while (not out.exists() or out.stat().st_size == 0) and time.monotonic() < until and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(number)
    began = time.monotonic()
    _, errors = running.communicate(timeout=20)
    took = time.monotonic() - began
    assert took < 2 * slowness()
    assert running.returncode == 130, errors
    rows = write_out(out)
    assert 0 < len(rows) < 160
    assert "stopped" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.mp4"], "does not exist"),
        ([], "No source was given"),
        (["CLIP", "--roi", "1", "2"], "--roi needs four numbers"),
        (["CLIP", "--explain", "sometimes"], "--explain"),
        (["CLIP", "--every", "0"], "--every needs a number above 0"),
    ],
)
def test_the_command_reports_mistakes_without_a_traceback(
    bundle: Path, clip: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    sources = [str(clip) if a == "CLIP" else a for a in arguments]
    assert main([*sources, "--model", str(bundle), "--runtime", "openvino", "--bind", "none", "--quiet"]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_a_configuration_file_sets_the_same_as_flags(bundle: Path, clip: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "engine.toml", tmp_path / "out.jsonl"
    config.write_text(
        f'sources = ["{clip}"]\n[source]\nevery = 4\n[predict]\nruntime = "openvino"\nmodel = "{bundle}"\n'
        f'[publish]\nbind = "none"\n[files]\njsonl = "{out}"\n[screen]\nquiet = true\n'
    )
    assert main(["--config", str(config), "--duration", "2"]) == 0
    assert [row["frame"] for row in write_out(out)] == list(range(0, 50, 4))
    config.write_text("[sources]\n")
    assert main(["--config", str(config)]) == 2


@pytest.mark.parametrize("name", ["clip.mp4", "link.csv", "engine.toml", "pictures/2.png"])
def test_no_output_is_written_over_what_the_run_reads(
    bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shutil.copy(clip, tmp_path / "clip.mp4")
    (tmp_path / "link.csv").symlink_to(tmp_path / "clip.mp4")
    (tmp_path / "engine.toml").write_text('[publish]\nbind = "none"\n')
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), numbered(number))
    before = (tmp_path / name).read_bytes()
    sources = [str(tmp_path / "pictures"), str(tmp_path / "clip.mp4")]
    flags = ["--config", tmp_path / "engine.toml", "--model", bundle, "--quiet", "--csv", tmp_path / name]
    assert main([*sources, *map(str, flags)]) == 2
    assert "--csv would write over" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.slow
def test_the_same_command_goes_on_after_every_kill(bundle: Path, clip: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows, table, whole = tmp_path / "o.jsonl", tmp_path / "o.csv", tmp_path / "o.parquet"
    flags: list[Path | str] = [
        "--model",
        bundle,
        "--runtime",
        "openvino",
        "--precision",
        "fp32",
        "--bind",
        "none",
        "--realtime",
    ]
    before: list[bytes] = []
    for kill in range(5):
        running = run_command(clip, *flags, "--jsonl", rows, "--csv", table, "--parquet", whole)
        until = time.monotonic() + 30
        while (
            (len(rows.read_bytes().splitlines()) if rows.exists() else 0) < len(before) + 3 * (kill + 1)
            and time.monotonic() < until
            and running.poll() is None
        ):
            time.sleep(0.01)
        running.kill()
        errors = running.communicate()[1]
        assert "Traceback" not in errors
        assert errors.count("was left unfinished by an earlier run and is continued") == (3 if kill else 0)
        after = rows.read_bytes().splitlines()
        assert after[: len(before)] == before
        assert len(after) > len(before)
        before = after
    assert main([str(clip), *map(str, flags[:-1]), "--jsonl", str(rows), "--csv", str(table), "--quiet"]) == 0
    lines = rows.read_bytes().splitlines()
    assert lines[: len(before)] == before
    assert len(lines) == len(before) + 80
    with open(table, encoding="utf-8", newline="") as file:
        counted = sum(1 for _ in csv.DictReader(file))
    assert counted >= len(lines)
    assert sorted(path.name for path in tmp_path.glob(".o.*")) == [".o.parquet.unfinished"]
    assert main([str(clip), *map(str, flags[:-1]), "--parquet", str(whole), "--quiet"]) == 0
    assert parquet.read_table(whole).num_rows >= 80
    assert list(tmp_path.glob(".o.*")) == []


def test_check_reports_what_works_and_what_does_not(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlfau.engine.commands.check.RUNTIMES", ("auto", "openvino", "tensorrt"))
    assert main(["--check", "--model", str(bundle), "--runtime", "openvino"]) == 0
    output = capsys.readouterr().out
    for expected in ("openvino: openvino", "self-test: openvino", "embedded detector", "H.264 is written", "all good"):
        assert expected in output
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "encoder.onnx").write_bytes(b"no")
    assert main(["--check", "--model", str(damaged), "--runtime", "openvino"]) == 1
    assert "bundle: FAILED: " in capsys.readouterr().out


def test_the_command_runs_where_importing_torch_raises(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "vlfau.engine.commands.stream",
            clip,
            "--model",
            bundle,
            "--bind",
            "none",
            "--every",
            "10",
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    control = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True)
    assert control.returncode, "importing torch does raise there"


def test_import_is_free() -> None:
    """Neither the package nor --help loads a network library, and nothing loads torch."""
    code = (
        "import sys, vlfau.engine, vlfau.engine.commands.stream as c; c.parser().format_help(); "
        "heavy = {'torch', 'openvino', 'cv2', 'av', 'zmq'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_that_is_stopped_accounts_for_every_frame(bundle: Path, clip: Path) -> None:
    running = engine(bundle, clip)
    (counters,) = running.counters.values()
    with running as reports:
        next(iter(reports))
        until = time.monotonic() + 10
        while counters.frames_in < 10 and time.monotonic() < until:  # reports are not taken, so the queues fill
            time.sleep(0.01)
    assert counters.ended
    assert counters.frames_in > counters.frames_out >= 1, "frames were in flight"
    assert counters.frames_in == counters.frames_out + counters.dropped
    assert set(counters.all_drops()) == {"stopped"}
