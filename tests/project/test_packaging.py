"""What gets installed: one copy of every module, and a wheel that holds them all and needs no more than it declares."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from shared_files import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTS = ("engine", "models", "calibration")
BUILD_FILES = {"pyproject.toml", "README.md", "LICENSE"}  # read by a build, besides the packages
NEEDS_EXTRAS = (  # only training, rendering and exporting import these
    "calibration/quantise.py",
    "calibration/report.py",
    "calibration/search.py",
    "models/data/batches.py",
    "models/evaluation/",
    "models/export/",
    "models/face_training/",
    "models/tensors.py",
    "models/networks/",
    "models/runtimes/half_precision.py",
    "models/runtimes/rewriting.py",
    "models/sentences/targets.py",
    "models/synthesis/",
    "models/training/",
)


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def files_of(root: Path) -> set[str]:
    """Everything that belongs into the wheel, relative to the root."""
    paths = [path for part in PARTS for path in (root / part).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix() for path in paths if "__pycache__" not in path.parts}


@pytest.mark.parametrize("folder", [*PARTS, "bench", "tests", "examples"])
def test_no_file_imports_a_part_by_its_folder(folder: str) -> None:
    """`import engine` would load every module a second time, and isinstance would start to lie."""
    wrong = re.compile(rf"^\s*(from|import) ({'|'.join(PARTS)})(\.| |$)", re.MULTILINE)
    assert wrong.search("import engine")
    assert not wrong.search("import vlfau.engine")
    for path in (ROOT / folder).rglob("*.py"):
        assert not wrong.search(path.read_text(encoding="utf-8")), path


def test_every_folder_with_modules_is_listed() -> None:
    """An unlisted package can be imported from an editable install and is missing from the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {str(Path(name).parent) for name in files_of(ROOT) if name.endswith(".py")}
    assert {".".join(("vlfau", *Path(folder).parts)) for folder in folders} - set(settings["packages"]) == set()
    assert all((ROOT / Path(*name.split(".")[1:])).is_dir() for name in settings["packages"])


def test_the_arrows_point_one_way() -> None:
    """bench -> engine -> models <- calibration. Stricter than imports: the name must not occur in the code."""
    for part, forbidden in (("models", ("engine", "calibration")), ("engine", ("calibration",))):
        for path in (ROOT / part).rglob("*.py"):
            for name in forbidden:
                assert f"vlfau.{name}" not in re.sub(r"#.*|\".*?\"", "", path.read_text(encoding="utf-8")), path


def test_the_scripts_exist() -> None:
    scripts = project()["scripts"]
    for target in scripts.values():
        module = target.partition(":")[0].split(".")[1:]
        assert (ROOT / Path(*module)).with_suffix(".py").is_file(), target


# Versions


def test_the_oldest_versions_that_are_promised_are_tested() -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    promised = [
        Requirement(line) for line in [*project()["dependencies"], *project()["optional-dependencies"]["parquet"]]
    ]
    lines = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert set(pins) == {requirement.name for requirement in promised}
    for requirement in promised:
        (bound,) = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
        pin = Version(pins[requirement.name])
        assert pin in requirement.specifier
        assert pin.release[: len(bound.release)] == bound.release, f"{requirement.name} starts at {bound}"
    assert "-c .ci/oldest.txt" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_classifiers_name_only_pythons_of_the_range() -> None:
    from packaging.specifiers import SpecifierSet

    named = [line.rpartition(" ")[2] for line in project()["classifiers"] if "Python :: 3." in line]
    assert named
    assert all(version in SpecifierSet(project()["requires-python"]) for version in named)


# The wheel


def build_wheel(folder: Path, *, without: str = "") -> Path:
    """Of a copy of the packages: a build in the checkout would leave its own folders there."""
    source = folder / "source"
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, source / name)
    settings = source / "pyproject.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace(f'    "{without}",\n', ""), encoding="utf-8")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def missing_from(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("vlfau/") for name in archive.namelist()}
    return files_of(ROOT) - names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77", reason="setuptools 77 builds the wheel")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh environment with the wheel; everything that is not this project is borrowed from the running one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    packages.joinpath("borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    return python


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    assert missing_from(wheel) == set()


def test_a_forgotten_folder_is_missing_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """The control. An editable install would not notice."""
    missing = missing_from(build_wheel(tmp_path, without="vlfau.engine.sinks"))
    assert missing == {name for name in files_of(ROOT) if name.startswith("engine/sinks/")}


IMPORT_ALL = """
import importlib, json, sys
blocked = set(json.loads(sys.argv[1]))

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
outcome = {}
for name in json.loads(sys.argv[2]):
    try:
        outcome[name] = importlib.import_module(name).__file__
    except ModuleNotFoundError as error:
        outcome[name] = f"lacks {error.name.partition('.')[0]}"
print(json.dumps(outcome))
"""


def import_all(python: Path, blocked: set[str]) -> dict[str, str]:
    """File of the tree -> where its module was imported from, or what it lacks."""
    files = sorted(name for name in files_of(ROOT) if name.endswith(".py"))
    modules = {".".join(("vlfau", *Path(name).with_suffix("").parts)).removesuffix(".__init__"): name for name in files}
    command = [str(python), "-I", "-c", IMPORT_ALL, json.dumps(sorted(blocked)), json.dumps(list(modules))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return {modules[name]: where for name, where in outcome.items()}


def lacking_in(outcome: dict[str, str]) -> dict[str, str]:
    """File -> the name that it could not import."""
    return {file: where[6:] for file, where in outcome.items() if where.startswith("lacks ")}


def installed(requirements: list[str]) -> set[str]:
    """The distributions that these requirements bring, as far as they are here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    names: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            waiting += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        names.add(name)
    return names


def foreign_to(requirements: list[str]) -> set[str]:
    """Names that can be imported here and could not be with only these requirements installed."""
    from packaging.utils import canonicalize_name

    there = installed(requirements)
    owners = metadata.packages_distributions()
    return {
        name for name, dists in owners.items() if name != "vlfau" and not there & {canonicalize_name(d) for d in dists}
    }


def test_a_plain_installation_imports_everything_that_streams(python: Path) -> None:
    blocked = foreign_to(project()["dependencies"])
    assert not blocked & {"av", "cv2", "numpy", "openvino", "zmq"}
    lacking = lacking_in(import_all(python, blocked))
    assert {file: what for file, what in lacking.items() if not file.startswith(NEEDS_EXTRAS)} == {}
    assert set(lacking.values()) <= blocked
    assert lacking["models/training/trainer.py"] == "torch", "the control"


def test_an_installation_with_all_extras_imports_every_module(python: Path) -> None:
    """From the wheel alone: nothing comes from the checkout. Extras that are missing here may be missing."""
    extras = project()["optional-dependencies"]
    outcome = import_all(python, set())
    absent = {name.partition(">")[0].partition("!")[0].replace("-", "_") for extra in extras.values() for name in extra}
    assert {file: what for file, what in lacking_in(outcome).items() if what not in absent} == {}
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    elsewhere = {file: where for file, where in outcome.items() if where != str(packages / "vlfau" / file)}
    assert elsewhere == {}
