"""The clip of the package and `--demo`: known action units go in, the same must come out of the socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vlfau.engine.app import open_engine
from vlfau.engine.commands.stream import main
from vlfau.engine.subscriber import subscribe
from vlfau.engine.wire import Report
from vlfau.models.files import embedded

CLIP, TRUTH = embedded() / "demo.mp4", embedded() / "demo.json"
BYTES = 1_000_000
PATIENCE_S = 60.0
AUC = 0.8
CLEARLY = 1.2  # times the mean probability without the unit: how sure a network is depends on its training


@cache
def truth() -> dict[str, Any]:
    return dict(json.loads(TRUTH.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")
    from small_bundle import small_bundle

    return small_bundle(tmp_path_factory.mktemp("bundle") / "small").folder


def test_the_clip_is_small_and_its_truth_is_of_the_same_length() -> None:
    assert CLIP.stat().st_size < BYTES
    with av.open(str(CLIP)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    states = np.array(truth()["states"])
    assert states.shape == (len(frames), len(truth()["units"]))
    assert rate == truth()["fps"]
    assert {frame.shape for frame in frames} == {(*reversed(truth()["size"]), 3)}
    assert set(np.unique(states)) == {-1, 0, 1}
    still = np.abs(frames[0].astype(int) - frames[1]).mean()
    changed = np.abs(frames[0].astype(int) - frames[len(frames) // 2]).mean()
    assert changed > 2 * still, "it moves"


def test_the_truth_follows_the_parts_it_was_made_of() -> None:
    units, states, fps = truth()["units"], np.array(truth()["states"]), truth()["fps"]
    assert not states[: int(0.9 * fps)].any(), "it begins at rest"
    assert not states[-3:].any(), "it ends at rest"
    for part in truth()["parts"]:
        inside = states[round(part["start"] * fps) : round(part["end"] * fps)]
        for unit in part["units"]:
            assert (inside[:, units.index(unit)] == 1).any(), (part["name"], unit)


@pytest.mark.parametrize("explain", ["change", "never"])
def test_the_demo_prints_without_terminal_display_or_source(
    small: Path, capsys: pytest.CaptureFixture[str], explain: str
) -> None:
    arguments = ["--demo", "--model", str(small), "--runtime", "openvino", "--bind", "none", "--explain", explain]
    assert main([*arguments, "--duration", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0.00", "s", "shown:", "nothing"]
    assert lines[2].split()[0] == "seen:"
    assert max(map(len, lines)) < 120


def test_the_demo_says_what_was_shown_while_it_was_shown(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = next(p["start"] for p in truth()["parts"] if p["name"] == "smile") + 0.5
    arguments = ["--demo", "--model", str(small), "--runtime", "openvino", "--bind", "none"]
    assert main([*arguments, "--start", str(start), "--duration", "0.2"]) == 0
    assert "shown: AU06 AU12 AU25" in capsys.readouterr().out


def test_quiet_is_quiet_and_files_are_written_beside_it(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["--demo", "--quiet", "--model", str(small), "--runtime", "openvino", "--bind", "none"]
    assert main([*arguments, "--jsonl", str(out), "--every", "5"]) == 0
    assert capsys.readouterr().out == ""
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(truth()["states"]) / 5


def test_a_source_beside_the_demo_is_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--demo", "video.mp4", "--model", str(small)]) == 2
    assert "'video.mp4' was given too" in capsys.readouterr().err


def test_the_demo_is_one_face_that_is_never_lost(small: Path) -> None:
    with open_engine(demo=True, model=str(small), runtime="openvino", explain="never") as reports:
        found = [[(face.track, face.valid) for face in report.faces] for report in reports]
    assert len(found) == len(truth()["states"])
    first = found[0]
    assert len(first) == 1
    assert first[0][1]
    assert found == [first] * len(found)


@pytest.fixture(scope="module")
def published() -> list[Report]:
    """What a subscriber hears of the command, run as users run it: in its own process, over TCP."""
    if not (embedded() / "manifest.json").is_file():
        pytest.skip("the package carries no bundle yet (models/embedded/manifest.json)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "vlfau.engine.commands.stream", "--demo", "--runtime", "openvino"]
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    with subscribe(address, "au/", timeout_s=PATIENCE_S) as reports:
        running = subprocess.Popen(
            [*command, "--bind", address, "--wait-subscribers", "1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(running.communicate()))
        reader.start()
        try:
            found = list(reports)
        finally:
            if running.poll() is None and sys.exc_info()[0] is not None:
                running.kill()
            reader.join(PATIENCE_S)
    assert running.returncode == 0, said[1]
    assert "shown: " in said[0]
    return found


@pytest.mark.parametrize("unit", ["AU12", "AU25", "AU26"])
def test_known_units_come_out_of_the_socket(published: list[Report], unit: str) -> None:
    """The control is the same truth run backwards, which must fit worse."""
    states = np.array(truth()["states"])[:, truth()["units"].index(unit)]
    assert [report.frame for report in published] == list(range(len(states)))
    p = np.array([report.faces[0].aus[unit].p for report in published])
    right, wrong = area(p, states), area(p, states[::-1])
    present, absent = p[states == 1].mean(), p[states == 0].mean()
    assert right > AUC, f"{unit}: AUC {right:.3f}, backwards {wrong:.3f}"
    assert present > CLEARLY * absent, f"{unit}: mean {present:.3f} against {absent:.3f}"
    assert wrong < right - 0.2, f"{unit}: AUC {right:.3f}, backwards {wrong:.3f}"


def area(p: NDArray[np.floating[Any]], states: NDArray[np.int_]) -> float:
    """Of all pairs of a frame with and one without the unit, the share that is in the right order."""
    difference = p[states == 1][:, None] - p[states == 0][None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
