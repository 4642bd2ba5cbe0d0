"""Reads states from sentences.

The words alone determine which states a sentence describes, so the faithfulness of captions can be measured.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from ..errors import unknown
from .corpus import SLOT, Corpus, tokens_of
from .loading import load


def active_units_of(sentence: str, corpus: Corpus | None = None) -> frozenset[str] | None:
    """The units that a face's sentence names, empty for a neutral face; None if it is not a sentence of this corpus."""
    phrases, frames, neutral = _readings(corpus or load())
    words = tokens_of(sentence)
    if tuple(words) in neutral:
        return frozenset()
    units: set[str] = set()
    frame: list[str] = []  # the sentence with its list of phrases replaced by one slot
    i = 0
    while i < len(words):
        size = next((n for n in range(min(5, len(words) - i), 0, -1) if tuple(words[i : i + n]) in phrases), 0)
        if size:
            units.add(phrases[tuple(words[i : i + size])])
            joined = list(itertools.takewhile(lambda word: word in (",", "and"), reversed(frame)))
            if frame[len(frame) - len(joined) - 1 :][:1] == [SLOT] and len(joined) <= 1:
                frame = frame[: len(frame) - len(joined)]
            else:
                frame.append(SLOT)
        else:
            frame.append(words[i])
        i += size or 1
    return frozenset(units) if tuple(frame) in frames else None


@functools.lru_cache(maxsize=8)
def _readings(corpus: Corpus) -> tuple[dict[tuple[str, ...], str], set[tuple[str, ...]], set[tuple[str, ...]]]:
    """Phrases -> unit, sentences with a slot for the actions, and neutral sentences, all as tuples of words."""
    phrases = {tuple(text.split()): code for code, unit in corpus.units.items() for text in (*unit.phrases, unit.tag)}
    texts = {count: list(group) for count, group in corpus.face.items()}
    for count, group in corpus.subject_face.items():
        texts[count] += [text.replace("{subject}", subject) for text in group for subject in corpus.subjects]
    neutral = {tuple(tokens_of(text)) for text in texts.pop("neutral")}
    return phrases, {tuple(tokens_of(text)) for group in texts.values() for text in group}, neutral


def state_of(unit: str, sentence: str, corpus: Corpus | None = None) -> bool | None:
    """Whether a sentence describes the unit as active; None if that is unclear or it describes another unit.

    A sentence of the corpus is looked up. Any other is read by a rule: it must be closer to a sentence of this unit
    than to those of other units (by shared pairs of neighbouring words), and its rest words must agree with it.
    """
    corpus = corpus or load()
    if unit not in corpus.units:
        raise unknown("action unit (not in the corpus of sentences)", unit, corpus.units)
    words = tokens_of(sentence)
    meanings, pairs = _meanings(corpus)
    meaning = meanings.get(" ".join(words))
    if meaning is None:
        meaning = _nearest(words, pairs)
        if meaning is None or meaning[1] != corpus.rest_words.isdisjoint(words):
            return None
    code, active = meaning
    return active if code == unit else None


Meaning = tuple[str, bool]  # unit, active


@functools.lru_cache(maxsize=8)
def _meanings(corpus: Corpus) -> tuple[dict[str, Meaning], list[tuple[frozenset[tuple[str, str]], Meaning]]]:
    meanings: dict[str, Meaning] = {}
    for code, unit in corpus.units.items():
        for sentence in unit.active:
            meanings[" ".join(tokens_of(sentence))] = (code, True)
        for sentence in unit.inactive:
            meanings[" ".join(tokens_of(sentence))] = (code, False)
    return meanings, [(_pairs(text.split()), meaning) for text, meaning in meanings.items()]


def _pairs(words: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(itertools.pairwise(["", *words, ""]))


def _nearest(words: Sequence[str], candidates: list[tuple[frozenset[tuple[str, str]], Meaning]]) -> Meaning | None:
    """The meaning of the sentence that shares most pairs (Jaccard); None if it shares few or two meanings tie."""
    mine = _pairs(words)
    scores = sorted(((len(mine & pairs) / len(mine | pairs), meaning) for pairs, meaning in candidates), reverse=True)
    if scores[0][0] < 0.3:  # fewer are filler such as "the lip"
        return None
    best = {meaning for score, meaning in scores if score == scores[0][0]}
    return scores[0][1] if len(best) == 1 else None
