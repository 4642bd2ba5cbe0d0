"""The size of an installation on disk, from the records that pip leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

OWN = "vlfau-stream"


def installed_mb(*requirements: str) -> float:
    """Megabytes of these distributions ("name" or "name[extra]") and their dependencies, as installed here."""
    return sum(map(_size, needed(requirements).values())) / 1e6


def needed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """By normalised name. The requirements must be installed; optional dependencies that are not do not count."""
    distributions: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(one) for one in requirements]
    while todo:
        one = todo.pop()
        name = one.name.lower().replace("_", "-").replace(".", "-")
        extras = {extra for extra in ("", *one.extras) if (name, extra) not in seen}
        seen |= {(name, extra) for extra in extras}
        if not extras:
            continue
        try:
            distributions[name] = distribution(one.name)
        except PackageNotFoundError:
            if any(Requirement(text).name == one.name for text in requirements):
                raise
            continue
        for text in distributions[name].requires or ():
            needs = Requirement(text)
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needs)
    return distributions


def _size(one: Distribution) -> int:
    files = {Path(str(file.locate())) for file in one.files or ()}
    if one.metadata["Name"] == OWN and not any(file.name == "wire.py" for file in files):
        files = set(_own_files())
    return sum(file.stat().st_size for file in files if file.is_file())


def _own_files() -> Iterator[Path]:
    """An editable installation has its packages in the checkout, not in its record."""
    root = Path(__file__).parents[2]
    for package in ("engine", "models", "calibration"):
        yield from (file for file in (root / package).rglob("*") if "__pycache__" not in file.parts)
