"""The learning curve counts on over runs that began with each other's weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench_modules import bench_module

bench = bench_module("learning_curve")


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def epoch(images: int, elapsed_s: float, **more: float) -> dict[str, Any]:
    return {"kind": "epoch", "images": images, "elapsed_s": elapsed_s, "loss_au": 0.2, **more}


def test_runs_add_up_and_untested_epochs_only_count(bench: ModuleType, tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"kind": "train"}, epoch(100, 1800, test_f1=0.2), epoch(200, 3600))
    second = write(tmp_path / "b", epoch(50, 900, test_f1=0.4))
    rows = bench.curve([first, second])
    assert [(row["run"], row["images"], row["hours"], row["f1"]) for row in rows] == [
        ("a", 100, 0.5, 0.2),
        ("b", 250, 1.25, 0.4),
    ]


def test_what_is_no_run_is_named(bench: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no run folder"):
        bench.curve([tmp_path])
