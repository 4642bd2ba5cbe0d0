"""The latency bench: its arithmetic on known values, its verdicts with controls, and a run of the engine."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from bench_modules import BENCH, bench_module
from media import numbered, write_clip
from numpy.typing import NDArray

from vlfau.engine.wire import End, LatencyMs, Report, encode
from vlfau.models.errors import UserError

PACES = ("paced", "unpaced")


bench = bench_module("latency")
streaming = bench_module("measuring.streaming")
clips = bench_module("measuring.clips")
comparison = bench_module("measuring.comparison")


def median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def runs_of(seed: int, runs: int, factor: float = 1.0) -> list[NDArray[np.float64]]:
    """Consecutive frames are alike, and every run has a different level, as on a shared machine."""
    random = np.random.default_rng(seed)
    slow = [np.convolve(random.normal(size=229), np.ones(30) / 30, "valid") for _ in range(runs)]
    return [factor * (10 + random.normal(0, 0.3) + wave + random.exponential(0.5, 200)) for wave in slow]


def test_quantiles_and_jitter_of_known_values(comparison: ModuleType) -> None:
    values = comparison.quantiles(np.arange(101, dtype=float)[::-1])
    assert values == {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "max_ms": 100.0}
    assert comparison.jitter(np.array([5.0, 5.0, 5.0])) == 0
    assert comparison.jitter(np.array([5.0, 7.0, 4.0])) == 2.5
    assert comparison.jitter(np.array([5.0])) == 0


def test_the_same_program_is_inside_the_noise_and_a_slower_one_is_not(comparison: ModuleType) -> None:
    same = [comparison.compare(runs_of(k, 5), runs_of(k + 100, 5), median, draws=200) for k in range(20)]
    assert sum(ratio.verdict == "inside the noise" for ratio in same) >= 15
    slower = comparison.compare(runs_of(1, 5), runs_of(2, 5, 1.3), median, draws=200)
    assert slower.verdict == "more"
    assert slower.low <= slower.ratio <= slower.high
    assert slower.ratio == pytest.approx(1.3, abs=0.1)
    assert comparison.compare(runs_of(1, 5), runs_of(2, 5, 0.7), median, draws=200).verdict == "less"


def test_drawing_single_frames_would_give_too_narrow_an_interval(
    comparison: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = runs_of(3, 5), runs_of(4, 5)
    wide = comparison.compare(a, b, median, draws=300)
    alone = comparison.compare([np.concatenate(a)], [np.concatenate(b)], median, draws=300)
    monkeypatch.setattr(comparison, "BLOCK", 1)
    narrow = comparison.compare([np.concatenate(a)], [np.concatenate(b)], median, draws=300)
    assert wide.high - wide.low > narrow.high - narrow.low
    assert alone.high - alone.low > narrow.high - narrow.low


def test_a_single_run_does_not_generalise(comparison: ModuleType) -> None:
    ratio = comparison.compare(runs_of(1, 1), runs_of(2, 1, 1.5), median, draws=100)
    assert ratio.verdict.startswith("more, in these runs only")


def heard(streaming: ModuleType, count: int, *, missing: int = 0, late_ms: float = 2.0) -> Any:
    """`count` frames as a subscriber receives them, after 8 ms in the engine and `late_ms` on the wire."""
    spent = LatencyMs(decode=4, detect=3, align=1, predict=2, explain=0, total=8)
    began = 1_700_000_000_000_000_000
    messages = []
    for k in range(count - missing):
        captured = began + k * 10_000_000
        report = Report(k, "cam", k, k / 30, captured, 0, spent, [])
        messages.append((captured + int((8 + late_ms) * 1e6), encode(report)))
    end = End(0, "cam", "finished", began, 1.0, count, count, 1.0, 3, {"late": 3}, 0, {})
    return streaming.Heard([*messages, (began, encode(end))], cpu_s=0.5, over_s=1.0, peak_mb=100.0, status=0)


def test_a_run_is_measured_at_receipt(streaming: ModuleType) -> None:
    case = streaming.Case("auto", 1, 1, True)
    run = streaming.measured(heard(streaming, 100, missing=10), case)
    assert run.latencies == pytest.approx(np.full(45, 10.0))  # two seconds, but no more than half
    assert run.stages == pytest.approx({"detect": 3, "align": 1, "predict": 2, "explain": 0, "other": 2, "wire": 2})
    assert run.fps == pytest.approx(100)
    assert (run.dropped, run.lost, run.frames, run.cpu_percent, run.decode_ms) == (3, 10, 90, 50, 4)
    assert streaming.measured(heard(streaming, 100, late_ms=5), case).stages["wire"] == pytest.approx(5)
    long = heard(streaming, 1000)
    at, first = long.messages[10]
    long.messages[10] = (at + 300_000_000, first)
    run = streaming.measured(long, case)
    assert (len(run.latencies), run.warm_ms, run.latencies.max()) == (800, pytest.approx(310), pytest.approx(10))
    with pytest.raises(UserError, match="gave 1 reports"):
        streaming.measured(heard(streaming, 1), case)


def test_a_runtime_that_auto_chose_is_not_run_again(
    bench: ModuleType, streaming: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = streaming.Case("auto", 1, 1, True)
    run = dataclasses.replace(streaming.measured(heard(streaming, 50), auto), runtime="openvino fp16")
    ran = {auto.name: [run]}
    assert bench.same_as_auto(streaming.Case("openvino", 1, 1, True), ran)
    assert not bench.same_as_auto(streaming.Case("onnxruntime", 1, 1, True), ran)
    assert not bench.same_as_auto(streaming.Case("openvino", 1, 1, True), {})
    monkeypatch.setattr(bench, "installed", lambda bundle: ["openvino", "onnxruntime"])
    quick = [case.name for case in bench.planned(bench.parser().parse_args(["--quick"]), None)]
    assert quick[:2] == ["auto, 1 face, paced", "auto, 1 face, unpaced"]  # quoted figures come before time runs out
    assert len([name for name in quick if name.startswith("auto")]) == 12
    assert [name for name in quick if name.startswith("onnx")] == [f"onnxruntime, 1 face, {x}" for x in PACES]
    whole = [case.name for case in bench.planned(bench.parser().parse_args([]), None)]
    assert len([name for name in whole if name.startswith("onnx")]) == 12


def stored(bench: ModuleType, streaming: ModuleType, path: Path, factor: float, repeats: int = 5) -> Path:
    """Written one repeat at a time, as by two checkouts that take turns."""
    case = streaming.Case("auto", 1, 1, True)
    for k in range(repeats):
        run = streaming.measured(heard(streaming, 50), case)
        run = dataclasses.replace(run, latencies=runs_of(k, 1, factor)[0], fps=100 / factor + k * 0.01)
        rows = {case.name: bench.summary([run])}
        facts = {"device": "a processor", "load": 0.0, "commit": "abc", "versions": {}}
        bench.keep(path, {case.name: [run]}, bench.headline(rows, facts, "auto"), append=True)
    return path


def test_stored_runs_are_compared(
    bench: ModuleType, streaming: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (stored(bench, streaming, tmp_path / f"{factor}.json", factor) for factor in (1.0, 1.4))
    assert bench.main(["--compare", str(a), str(b)]) == 0
    ratios = json.loads(capsys.readouterr().out.splitlines()[-1])["ratios"]["auto, 1 face, paced"]
    assert ratios["p50_ms"]["ratio"] == pytest.approx(1.4, abs=0.01)
    assert (ratios["p50_ms"]["verdict"], ratios["fps"]["verdict"]) == ("more", "less")
    assert bench.main(["--compare", str(a), str(a)]) == 0
    ratios = json.loads(capsys.readouterr().out.splitlines()[-1])["ratios"]["auto, 1 face, paced"]
    assert {row["verdict"] for row in ratios.values()} == {"inside the noise"}
    (tmp_path / "c.json").write_text("{}")
    assert bench.main(["--compare", str(a), str(tmp_path / "c.json")]) == 2
    assert "holds no latencies" in capsys.readouterr().err


def test_missing_clips_are_reported(
    bench: ModuleType,
    clips: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bench.main(["--source", str(tmp_path / "none.mp4")]) == 2
    assert "none.mp4" in capsys.readouterr().err
    monkeypatch.setattr(clips, "embedded", lambda: tmp_path)
    assert bench.main([]) == 2
    assert "--source VIDEO" in capsys.readouterr().err


@pytest.mark.parametrize("faces", [1, 2, 8])
def test_clips_hold_the_requested_number_of_faces(clips: ModuleType, tmp_path: Path, faces: int) -> None:
    source, clip = tmp_path / "source.mp4", tmp_path / "clip.mp4"
    write_clip(source, [numbered(3)] * 4)
    clips.write_clip(clip, source, faces, 0.2)
    with av.open(str(clip)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, len(pictures)) == ("h264", 30, 6)
    assert pictures[0].shape == (720, 1280, 3)
    columns, rows = clips.GRIDS[faces]
    lower = pictures[0][500 // rows] if rows > 1 else pictures[0][450]  # through the red and blue halves of a row
    red = (lower[:, 0].astype(int) - lower[:, 2]) > 80
    assert np.count_nonzero(np.diff(red.astype(int)) == 1) + int(red[0]) == columns


def test_the_real_engine_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")
    from small_bundle import small_bundle

    small_bundle(tmp_path / "bundle")
    write_clip(tmp_path / "clip.mp4", [numbered(k) for k in range(20)])
    command = [sys.executable, str(BENCH / "latency.py"), "--model", str(tmp_path / "bundle"), "--quick"]
    command += ["--source", str(tmp_path / "clip.mp4"), "--runtime", "onnxruntime", "--faces", "1", "--streams"]
    command += ["--seconds", "0.7", "--json", str(tmp_path / "kept.json"), "--against", sys.executable]
    if find_spec("matplotlib"):
        command += ["--plots", str(tmp_path / "plots")]
    environment = os.environ | {"VLFAU_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert 0 < last["p50_ms"] <= last["p95_ms"] <= last["p99_ms"]
    assert last["fps"] > 0
    assert last["dropped"] == 0
    assert last["device"]
    assert last["commit"]
    assert last["versions"]["python"]
    paced, unpaced = (last["rows"][f"onnxruntime, 1 face, {how}"] for how in PACES)
    assert paced["lost"] == unpaced["lost"] == 0
    assert paced["frames"] == unpaced["frames"] >= 17  # 0.7 s of 25 frames a second
    assert paced["runtime"] == "onnxruntime fp32"
    assert 0 < paced["start_s"] < 60
    assert set(last["against"]) == set(last["rows"])  # both installations ran every case
    stored = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))["samples"]["onnxruntime, 1 face, paced"]
    assert len(stored["latencies_ms"][0]) == paced["frames"] - paced["frames"] // 2
    if find_spec("matplotlib"):
        names = {path.name for path in (tmp_path / "plots").iterdir()}
        assert names == {"latency.png", "latency.svg", "stages.png", "stages.svg"}
