"""The learning curve adds up runs that continue each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench_modules import bench_module

pytest.importorskip("torch", reason="a run folder is read by the trainer's own reader")

from vlfau.models.errors import UserError

bench = bench_module("learning_curve")


def write(folder: Path, *rows: dict[str, Any], seed: int = 0) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"schema": 1, "seed": seed}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def epoch(images: int, elapsed_s: float, **more: float) -> dict[str, Any]:
    return {"kind": "epoch", "images": images, "elapsed_s": elapsed_s, "loss_au": 0.2, **more}


def test_runs_add_up_and_untested_epochs_only_count_images(bench: ModuleType, tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"kind": "train"}, epoch(100, 1800, test_f1=0.2), epoch(200, 3600))
    second = write(tmp_path / "b", epoch(50, 900, test_f1=0.4), seed=1)
    rows, ends = bench.curve([first, second])
    assert [(row["run"], row["images"], row["hours"], row["f1"]) for row in rows] == [
        ("a", 100, 0.5, 0.2),
        ("b", 250, 1.25, 0.4),
    ]
    assert [(end["run"], end["images"]) for end in ends] == [("a", 200), ("b", 250)]


def test_a_copy_made_during_training_is_a_point_of_the_same_run(bench: ModuleType, tmp_path: Path) -> None:
    early = write(tmp_path / "early", epoch(100, 1800, test_f1=0.2))
    whole = write(tmp_path / "whole", epoch(100, 1800, test_f1=0.2), epoch(200, 3600, test_f1=0.3))
    rows, ends = bench.curve([early, whole])
    assert [(row["images"], row["f1"]) for row in rows] == [(100, 0.2), (200, 0.3)]
    assert [(end["run"], end["images"], end["hours"]) for end in ends] == [("early", 100, 0.5), ("whole", 200, 1.0)]


def test_a_folder_that_is_no_run_is_named(bench: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        bench.curve([tmp_path])


def test_weights_are_scored_once(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "a", epoch(100, 1800, test_f1=0.2))
    scored: list[Path] = []

    def judge(run: Path, *_: Any) -> dict[str, float | None]:
        scored.append(run)
        return dict.fromkeys(bench.FIGURES) | {"f1": 0.25}

    monkeypatch.setattr(bench, "judge", judge)
    line = ["learning_curve.py", str(run), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*line, "--plot", str(tmp_path / "curve.png")])
    for _ in range(2):
        assert bench.main() == 0
    output = capsys.readouterr().out
    assert scored == [run]
    assert json.loads(output.splitlines()[-1])["judged"][0]["f1"] == 0.25
    assert (tmp_path / "curve.png").stat().st_size > 10_000
