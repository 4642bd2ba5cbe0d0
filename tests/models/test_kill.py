"""kill -9 at random moments: the resumed run ends bit for bit like the uninterrupted one, through the real command."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import synthetic_layouts as synthetic
import torch
from safetensors.torch import load_file

from vlfau.models.data.batches import report_dead_workers
from vlfau.models.errors import UserError
from vlfau.models.training.run_folder import RunFolder

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
        "import sys, torch; torch.set_num_threads(1)\nfrom vlfau.models.training.command import main; sys.exit(main())",
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


def begun(data: Path, output: Path) -> subprocess.Popen[str]:
    """A training in its own group of processes, at least one checkpoint after its start."""
    process = subprocess.Popen(
        [*command(data, output), "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not RunFolder(output).checkpoints.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)
    return process


@pytest.mark.timeout(300)
def test_a_job_that_is_ended_stops_with_a_checkpoint(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path / "data", count=96, files=2, people=12)
    process = begun(tmp_path / "data", tmp_path / "run")
    os.killpg(process.pid, signal.SIGTERM)  # all of its processes, as a scheduler does
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "Stopped at step" in output


@pytest.mark.timeout(300)
def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path / "data", count=96, files=2, people=12)
    process = begun(tmp_path / "data", tmp_path / "run")
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2, output
    assert "fewer --workers" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_a_death_that_is_noticed_twice_is_reported_once() -> None:
    """An incomplete batch, and the signal a moment later: raised in the next line, it would be a second error."""

    def alarm(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    @report_dead_workers()
    def incomplete() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        raise EOFError

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        with pytest.raises(UserError, match="pid 7") as caught:
            incomplete()
        time.sleep(0.3)  # nothing strikes here
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "fewer --workers" in str(caught.value)


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
