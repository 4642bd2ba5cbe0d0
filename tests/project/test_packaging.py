"""The fences round the package: one copy of every module, and a wheel that holds them all."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from shared_files import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTS = ("engine", "models", "calibration")


def test_every_folder_with_modules_is_listed() -> None:
    """An unlisted package imports in the editable install and is missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {
        ".".join(("vlfau", *path.parent.relative_to(ROOT).parts))
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
    }
    assert found - set(listed) == set()
    assert all((ROOT / Path(*name.split(".")[1:])).is_dir() for name in listed)


@pytest.mark.parametrize("folder", [*PARTS, "bench", "tests", "examples"])
def test_nobody_imports_a_part_by_its_folder(folder: str) -> None:
    """`import engine` would load every module a second time, and isinstance would start to lie."""
    wrong = re.compile(rf"^\s*(from|import) ({'|'.join(PARTS)})(\.| |$)", re.MULTILINE)
    assert wrong.search("import engine")
    assert not wrong.search("import vlfau.engine")
    for path in (ROOT / folder).rglob("*.py"):
        assert not wrong.search(path.read_text(encoding="utf-8")), path


def test_the_arrows_point_one_way() -> None:
    """bench -> engine -> models <- calibration."""
    for part, forbidden in (("models", ("engine", "calibration")), ("engine", ("calibration",))):
        for path in (ROOT / part).rglob("*.py"):
            for name in forbidden:
                assert f"vlfau.{name}" not in re.sub(r"#.*|\".*?\"", "", path.read_text(encoding="utf-8")), path


def test_the_scripts_exist() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for target in scripts.values():
        module = target.partition(":")[0].split(".")[1:]
        assert (ROOT / Path(*module)).with_suffix(".py").is_file(), target
