"""Loads a corpus of sentences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..settings import load_toml
from .corpus import COUNTS, Corpus, UnitSentences
from .validation import check

SHIPPED = Path(__file__).with_name("corpus.toml")


def load(units: Sequence[str] | None = None, path: Path = SHIPPED) -> Corpus:
    """The corpus, whole or of some units in this order. A file with errors is refused."""
    whole = _load(path, path.stat().st_mtime_ns if path.exists() else 0)
    return whole if units is None else _only(whole, tuple(units))


@functools.lru_cache(maxsize=8)
def _load(path: Path, changed_ns: int) -> Corpus:
    problems = check(path)
    if problems:
        raise UserError("\n".join(problems))
    table = load_toml(path)
    subject = dict(table["face"].get("with_subject", {}))
    return Corpus(
        int(table["version"]),
        frozenset(table["rest_words"]),
        {code: _unit(code, entry) for code, entry in table["units"].items()},
        {count: tuple(table["face"][count]) for count in COUNTS},
        {count: tuple(subject.get(count, ())) for count in COUNTS},
        tuple(subject.get("subjects", ())),
    )


@functools.lru_cache(maxsize=32)
def _only(corpus: Corpus, units: tuple[str, ...]) -> Corpus:
    return corpus.only(units)


@functools.cache
def unit_names() -> dict[str, str]:
    """Code -> name of every unit of the shipped corpus, such as AU12 -> lip corner puller."""
    return {code: unit.name for code, unit in load().units.items()}


def _unit(code: str, entry: dict[str, Any]) -> UnitSentences:
    texts = (tuple(entry[key]) for key in ("phrases", "active", "inactive"))
    return UnitSentences(code, entry["name"], entry["muscle"], entry["tag"], *texts)
