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
        "epochs": 5,
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
    small = data.parent / "small.toml"
    small.write_text("[network]\nhidden = 16\nstem_options = { depths = [1, 1, 1, 1], dims = [8, 8, 16, 16] }\n")
    return [
        *start,
        "--config",
        str(small),
        "--data",
        str(data),
        "--output",
        str(output),
        "--no-pretrained",
        "--hold-out",
        "0.2",
        *flags,
    ]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path / "data", count=96, files=2, people=12)
    began = time.monotonic()
    subprocess.run(command(tmp_path / "data", tmp_path / "whole"), check=True, capture_output=True, timeout=300)
    whole_s = time.monotonic() - began
    total = RunFolder(tmp_path / "whole").rows("epoch")[-1]["step"]
    moments = random.Random()
    killed = RunFolder(tmp_path / "killed")
    steps = []
    for number in range(KILLS):
        target = (number + moments.random()) * total / (KILLS + 1)  # somewhere in the next eleventh of the run
        process = subprocess.Popen(
            command(tmp_path / "data", tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while max([row["step"] for row in killed.rows()], default=0) < target and process.poll() is None:
                time.sleep(0.05)
            time.sleep(moments.uniform(0, 0.5))
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
        steps.append(killed.checkpoints.load()[1]["step"] if killed.checkpoints.exists() else 0)
    print(f"{KILLS} kills, leaving checkpoints of steps {steps} of {total}; the whole run takes {whole_s:.1f} s")
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
