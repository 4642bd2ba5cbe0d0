"""How much an installation weighs, from the records that pip leaves. Installs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

OWN = "vlfau-stream"


def installed_mb(*wanted: str) -> float:
    """Megabytes of these distributions ("name" or "name[extra]") and all that they need, as installed here."""
    return sum(map(_size, needed(wanted).values())) / 1e6


def needed(wanted: Iterable[str]) -> dict[str, Distribution]:
    """By normal name. What is asked for must be there; what it would like but is not installed does not count."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(one) for one in wanted]
    while todo:
        one = todo.pop()
        name = one.name.lower().replace("_", "-").replace(".", "-")
        extras = {extra for extra in ("", *one.extras) if (name, extra) not in seen}
        seen |= {(name, extra) for extra in extras}
        if not extras:
            continue
        try:
            found[name] = distribution(one.name)
        except PackageNotFoundError:
            if any(Requirement(asked).name == one.name for asked in wanted):
                raise
            continue
        for text in found[name].requires or ():
            needs = Requirement(text)
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needs)
    return found


def _size(one: Distribution) -> int:
    files = {Path(str(file.locate())) for file in one.files or ()}
    if one.metadata["Name"] == OWN and not any(file.name == "wire.py" for file in files):
        files = set(_own_files())
    return sum(file.stat().st_size for file in files if file.is_file())


def _own_files() -> Iterator[Path]:
    """An editable installation has its packages in its checkout and not in its record."""
    root = Path(__file__).parents[2]
    for package in ("engine", "models", "calibration"):
        yield from (file for file in (root / package).rglob("*") if "__pycache__" not in file.parts)
