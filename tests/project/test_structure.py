"""The floor plan: a family is a folder, and what that means for imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import circles, closure, import_graph, top_level_names
from shared_files import ROOT

GRAPH = import_graph()
FAMILIES = ("engine/sinks", "engine/sources", "models/faces", "models/networks", "models/runtimes")
BASES = sorted(file for file in GRAPH if file.endswith("/base.py"))


def test_no_file_imports_itself_by_a_detour() -> None:
    assert circles(GRAPH) == []


def test_a_circle_is_found_also_where_an_import_hides_in_a_function(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "one.py").write_text("from .two import b\n", encoding="utf-8")
    (tmp_path / "engine" / "two.py").write_text("def b():\n    from . import one\n", encoding="utf-8")
    graph = import_graph(tmp_path, ("engine",))
    assert circles(graph) == [["engine/one.py", "engine/two.py"]]


def test_no_file_imports_the_opener_of_its_own_folder() -> None:
    wrong = [
        (file, target)
        for file, targets in GRAPH.items()
        for target in targets
        if target.endswith("__init__.py") and Path(target).parent == Path(file).parent
    ]
    assert wrong == []


def test_every_family_has_an_interface_and_an_opener() -> None:
    for family in FAMILIES:
        assert f"{family}/base.py" in GRAPH
        assert f"{family}/__init__.py" in GRAPH


@pytest.mark.parametrize("base", BASES)
def test_an_interface_knows_no_kind(base: str) -> None:
    """Of its folder it may use parts, such as the pixels of networks; whatever implements the interface is a kind."""
    kinds = {file for file, targets in GRAPH.items() if base in targets and Path(file).parent == Path(base).parent}
    assert closure(GRAPH, base) & kinds == set()


def test_packages_depend_in_one_direction() -> None:
    order = {"models": 0, "engine": 1, "calibration": 1}
    upward = [
        (file, target)
        for file, targets in GRAPH.items()
        for target in targets
        if file.split("/")[0] != target.split("/")[0] and order[target.split("/")[0]] >= order[file.split("/")[0]]
    ]
    assert upward == []


def test_no_bench_imports_another() -> None:
    """Commands stand on top; what they share is in `measuring/`, which imports no command."""
    commands = {path.stem for path in (ROOT / "bench").glob("*.py")}
    wrong = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "bench").rglob("*.py")
        for name in top_level_names(path)
        if name in commands
    ]
    assert wrong == []


IMPORTS = """
import json, sys
from vlfau.models.bundle import open_bundle
from vlfau.models.runtimes import open_runtime
import vlfau.engine.commands.stream, vlfau.engine.app, vlfau.engine.sources, vlfau.engine.sinks
with open_runtime(open_bundle("embedded"), sys.argv[1]):
    print(json.dumps([name for name in ("torch", "timm", "onnx") if name in sys.modules]))
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_streaming_with_a_cpu_runtime_imports_no_torch(runtime: str) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, runtime], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
