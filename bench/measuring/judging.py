"""Turns a run folder into a bundle and scores it on held-out renders and, if present, on the real clips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring.facts import is_json

from vlfau.models.errors import UserError

BENCH = Path(__file__).parents[1]
HELD_OUT = 0.02  # of the subjects
REFERENCE = ("--variants", "openvino:fp32")  # one precision is enough to compare training runs
FIGURES = {
    "f1": "F1 renders",
    "auc": "AUC renders",
    "core_within": "clips within",
    "core_pooled": "clips pooled",
    "core_auc": "clips AUC",
}


def three_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def judge(run: Path, bundle: Path, data: Path, shared: Path | None) -> dict[str, Any]:
    """FIGURES of a run's last weights, exported to `bundle`; those of the clips only if `shared` is given."""
    command("vlfau.models.export.command", run, "--output", bundle)
    command("vlfau.calibration.command", "decisions", bundle, "--data", data, "--hold-out", HELD_OUT, "--count", 1600)
    accuracy = command(
        BENCH / "accuracy.py", bundle, "--data", data, "--hold-out", HELD_OUT, "--caption-images", 0, *REFERENCE
    )
    (measured,) = accuracy["rows"].values()
    figures = dict.fromkeys(FIGURES) | {key: measured[key] for key in ("f1", "auc")}
    if shared is not None:
        clips = command(BENCH / "real_faces.py", "--model", bundle, "--shared", shared, "--brief")["baseline_off"]
        figures |= {key: clips[key] for key in ("core_within", "core_pooled", "core_auc")}
    return figures


def command(what: str | Path, *arguments: object) -> dict[str, Any]:
    """Runs a module or a script of this project on one thread. Returns the JSON of its last line, if it is JSON."""
    last = (output_of(what, *arguments, OMP_NUM_THREADS="1") or [""])[-1]
    facts: dict[str, Any] = json.loads(last) if is_json(last) else {}
    return facts


def output_of(what: str | Path, *arguments: object, **environment: str) -> list[str]:
    """Runs a module or a script of this project. Returns the lines that it prints."""
    runs = ["-m", what] if isinstance(what, str) else [str(what)]
    line = [sys.executable, *runs, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise UserError(f"{' '.join(line)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip().splitlines()
