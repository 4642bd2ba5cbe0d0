"""The layout of the code: a family is a folder, and what that means for imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from doc_blocks import blocks_of, tree_paths
from import_graph import circles, closure, import_graph, names_used_twice, rooms, top_level_names
from shared_files import ROOT

from vlfau.models.networks import KINDS

GRAPH = import_graph()
FAMILIES = ("engine/sinks", "engine/sources", "models/faces", "models/networks", "models/runtimes")
PARTS = {"engine/sinks/files.py", "engine/sinks/group.py"}  # implement an interface too, for the kinds to use
BASES = sorted(file for file in GRAPH if file.endswith("/base.py"))


def test_no_file_imports_itself_through_others() -> None:
    assert circles(GRAPH) == []


def test_no_folder_imports_itself_through_others() -> None:
    """Files of a package's top floor count as rooms, too."""
    assert circles(rooms(GRAPH)) == []


def test_a_class_name_means_one_thing() -> None:
    assert names_used_twice(ROOT) == {}


def test_a_circle_is_noticed_even_if_an_import_is_inside_a_function(tmp_path: Path) -> None:
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
    """A kind is a file that imports `base.py`, which may itself use parts such as `pixels.py`."""
    kinds = {file for file, targets in GRAPH.items() if base in targets and Path(file).parent == Path(base).parent}
    assert closure(GRAPH, base) & kinds == set()


def kinds_of(family: str) -> set[str]:
    """What the opener opens and what implements the interface."""
    if family == "models/networks":
        return {f"{family}/{kind.module}.py" for kind in KINDS.values()}
    return {file for file in GRAPH[f"{family}/__init__.py"] if f"{family}/base.py" in GRAPH[file]} - PARTS


@pytest.mark.parametrize("family", FAMILIES)
def test_no_kind_imports_another(family: str) -> None:
    """What two kinds share is a part."""
    kinds = kinds_of(family)
    assert len(kinds) > 1
    assert {kind: GRAPH[kind] & kinds for kind in kinds if GRAPH[kind] & kinds} == {}


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


# What the pages about the structure claim

BOTTOM = "models"  # files without a folder
TEMPLATE = ("models/bundle.py", "models/faces/align.py")  # the one import that goes up


def test_folders_of_models_use_only_the_rows_below_them() -> None:
    """The rows are those of the picture in docs/explanation/code-layout.md."""
    spec = spec_from_file_location("diagrams", ROOT / "docs" / "diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    diagrams = module_from_spec(spec)
    spec.loader.exec_module(diagrams)
    rows = {f"models/{name}": row for row, rooms in enumerate(diagrams.FLOORS) for name, _ in rooms}
    rows[BOTTOM] = len(diagrams.FLOORS)
    edges = [(file, target) for file, targets in GRAPH.items() for target in targets if target.startswith("models/")]
    assert {Path(file).parent.as_posix() for file in GRAPH if file.startswith("models/")} == set(rows)
    upward = [
        (file, target)
        for file, target in edges
        if (here := Path(file).parent.as_posix()) in rows
        and here != (there := Path(target).parent.as_posix())
        and rows[here] >= rows[there]
    ]
    assert upward == [TEMPLATE]
    files = {path.stem for path in (ROOT / "models").glob("*.py")}
    assert set(diagrams.GROUND.split(" · ")) <= files


def test_the_tree_in_the_readme_has_every_folder() -> None:
    blocks = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"), "README.md")
    (tree,) = (block for block in blocks if block.language == "text")
    listed = tree_paths(tree.code)
    tracked = ("engine", "models", "calibration", "bench", "tests", "docs", "examples")
    files = [path for name in tracked for path in (ROOT / name).rglob("*") if path.is_file()]
    folders = {path.relative_to(ROOT).parent.as_posix() for path in files if "__pycache__" not in path.parts}
    assert sorted(folders - set(listed)) == []
    assert [path for path in listed if not (ROOT / path).is_dir()] == []
    assert len(set(listed)) == len(listed)


def test_the_page_about_the_code_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "explanation" / "code-layout.md").read_text(encoding="utf-8")
    names = re.findall(r"`([\w./-]+(?:\.(?:py|toml|json|md)|/))`", text)
    paths = {name for name in names if "/" in name}
    assert len(paths) > 30
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    roles = {path.name for path in [*ROOT.glob("*"), *(ROOT / "models").rglob("*.py")]}
    assert set(names) - paths - roles == set(), "a file without its folder"


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
