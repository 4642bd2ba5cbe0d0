"""What every bench prints with its figures: Markdown tables, machine and versions, and facts about processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bench_modules import bench_module

facts = bench_module("measuring.facts")


def test_a_table_is_markdown_with_figures_to_the_right(facts: ModuleType) -> None:
    assert facts.table([["case", "ms"], ["one face", "8.5"], ["two", "10.25"]]).splitlines() == [
        "| case     |    ms |",
        "|----------|------:|",
        "| one face |   8.5 |",
        "| two      | 10.25 |",
    ]
    assert facts.table([["alone"], ["a"]]).splitlines() == ["| alone |", "|-------|", "| a     |"]


def test_device_commit_and_versions_are_facts_and_text(facts: ModuleType) -> None:
    about = facts.about("msgspec", "no-such-distribution")
    text = facts.heading(about)
    assert {"python", "numpy", "msgspec"} <= set(about["versions"])
    assert "no-such-distribution" not in about["versions"]
    for part in (about["device"], about["date"], f"commit {about['commit']}", f"numpy {about['versions']['numpy']}"):
        assert part in text
    assert str(os.cpu_count()) in about["device"]


def test_a_changed_file_shows_in_the_commit(facts: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    bench = tmp_path / "bench"
    (bench / "measuring").mkdir(parents=True)
    for name in ("measuring/facts.py", "RESULTS.md"):
        (bench / name).write_text("a\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(facts, "__file__", str(bench / "measuring" / "facts.py"))
    clean = facts.commit()
    assert clean.isalnum()
    (bench / "RESULTS.md").write_text("what a bench wrote does not change what it measures\n")
    assert facts.commit() == clean
    (bench / "measuring" / "facts.py").write_text("b\n")
    assert facts.commit() == f"{clean}+"
    monkeypatch.setenv("PATH", "/nowhere")
    assert facts.commit() == "unknown"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_and_time_of_another_process(facts: ModuleType) -> None:
    work = "import sys; b = bytearray(b'x') * (80 << 20); print(sum(range(3_000_000)), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 80 < facts.peak_mb(process.pid) < 200
        assert 80 < facts.resident_mb(process.pid) <= facts.peak_mb(process.pid) + 1
        assert facts.cpu_s(process.pid) > 0.02
        process.communicate()
    held = np.ones(1 << 20)
    assert facts.peak_mb() > held.nbytes / 2**20
    assert (facts.peak_mb(2**30), facts.cpu_s(2**30)) == (0.0, 0.0), "no such process"
