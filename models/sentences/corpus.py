"""A corpus: which sentences and phrases describe which action unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import unknown

COUNTS = ("neutral", "one", "two", "many")
LENGTH = 24  # T of the compact size: tokens of a sentence, including its end
SLOT = "{actions}"


@dataclass(frozen=True, slots=True)
class UnitSentences:
    """The words for one action unit."""

    code: str  # "AU12"
    name: str  # "lip corner puller"
    muscle: str
    tag: str  # one word, for faces with many actions
    phrases: tuple[str, ...]  # two to five words, for the face's sentence
    active: tuple[str, ...]
    inactive: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Compared and hashed by identity, since it is loaded once and derived tables are cached."""

    version: int
    rest_words: frozenset[str]
    units: dict[str, UnitSentences]  # in the order of the labels' columns
    face: dict[str, tuple[str, ...]]  # "neutral", "one", "two", "many" -> templates
    subject_face: dict[str, tuple[str, ...]]  # the same with {subject}
    subjects: tuple[str, ...]

    def only(self, units: Sequence[str]) -> Corpus:
        """The corpus of some units, in this order."""
        for unit in units:
            if unit not in self.units:
                raise unknown("action unit (not in the corpus of sentences)", unit, self.units)
        return replace(self, units={unit: self.units[unit] for unit in units})


def tokens_of(sentence: str) -> list[str]:
    """Words and commas, lower case, without the full stop."""
    return sentence.lower().rstrip(". ").replace(",", " , ").split()
