"""The bench of the first minutes: it runs the right commands, and measures time and size correctly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from shared_files import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    spec = importlib.util.spec_from_file_location("first_minutes", ROOT / "bench" / "first_minutes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "first_minutes", module)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_it_runs_the_two_commands_at_the_top_of_the_readme(bench: ModuleType) -> None:
    first, second = bench.commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert first == "pip install . && vlfau-stream --demo"
    assert second == "pip install -e '.[dev]' && make check"


def test_its_clock_stops_at_the_first_line_with_action_units(bench: ModuleType, tmp_path: Path) -> None:
    command = "echo installing; sleep 0.2; echo '  seen: AU12'; sleep 0.3; echo '  seen: AU25'"
    took = bench.run(command, tmp_path, {"PATH": "/usr/bin:/bin"})
    assert took.code == 0
    assert 0.2 <= took.first_seen_s < 0.45
    assert took.whole_s >= 0.5
    silent = bench.run("echo nothing; exit 3", tmp_path, {"PATH": "/usr/bin:/bin"})
    assert (silent.code, silent.first_seen_s) == (3, None)


def test_sizes_count_files_and_not_the_targets_of_links(bench: ModuleType, tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "one").write_bytes(b"x" * 2_000_000)
    (packages / "two").symlink_to("one")
    assert bench.packages_mb(tmp_path) == pytest.approx(2.0, abs=0.01)


def test_versions_are_those_of_the_measured_environment(bench: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    versions = bench.versions(tmp_path)
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(versions) <= {"python", *bench.PACKAGES}
