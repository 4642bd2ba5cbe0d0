"""kill -9 at random moments: the resumed run ends bit for bit like the uninterrupted one, through the real command."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic_layouts as synthetic
import torch
from safetensors.torch import load_file

from vlfau.models.run_folder import RunFolder

KILLS = 10


def command(data: Path, output: Path, seed: int = 0) -> list[str]:
    settings = {
        "size": "tiny",
        "epochs": 8,
        "batch": 8,
        "learning-rate": 1e-3,
        "mean-decay": 0.9,
        "checkpoint-every": 0.2,
        "log-every": 2,
        "workers": 1,
        "device": "cpu",
        "seed": seed,
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    start = [
        sys.executable,
        "-c",
        "import torch; torch.set_num_threads(1)\nfrom vlfau.models.train_command import main; main()",
    ]
    return [*start, "--data", str(data), "--output", str(output), "--no-pretrained", "--hold-out", "0.2", *flags]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path / "data", count=96, files=2, people=12)
    began = time.monotonic()
    subprocess.run(command(tmp_path / "data", tmp_path / "whole"), check=True, capture_output=True, timeout=300)
    whole_s = time.monotonic() - began
    train_s = RunFolder(tmp_path / "whole").rows("epoch")[-1]["elapsed_s"]
    moments = random.Random()
    kills = 0
    steps = []
    killed = RunFolder(tmp_path / "killed")
    while kills < KILLS:
        process = subprocess.Popen(
            command(tmp_path / "data", tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            # From before the first step to a seventh of the training later, so that ten fit into one run.
            process.wait(timeout=whole_s - train_s * moments.uniform(0.85, 1.15))
            break  # finished before its moment
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            steps.append(killed.checkpoints.load()[1]["step"] if killed.checkpoints.exists() else 0)
    print(f"{kills} kills, at checkpoints of steps {steps}; whole run {whole_s:.1f} s, {train_s} s training")
    subprocess.run(command(tmp_path / "data", tmp_path / "killed"), check=True, capture_output=True, timeout=300)
    assert len(set(steps)) >= 2
    for name in ("last.safetensors", "best.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    lines = [
        [(row["step"], row["loss"]) for row in RunFolder(tmp_path / run).rows("train")] for run in ("whole", "killed")
    ]
    assert lines[0] == lines[1]
    subprocess.run(command(tmp_path / "data", tmp_path / "other", seed=1), check=True, capture_output=True, timeout=300)
    one, other = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "other"))
    assert not all(torch.equal(one[key], other[key]) for key in one)  # the comparison can fail
