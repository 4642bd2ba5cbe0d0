"""Composes the sentence of a face from the phrases of its active units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import UserError, unknown
from .corpus import LENGTH, SLOT, Corpus, tokens_of
from .loading import load


def compose(
    active_units: Iterable[str],
    rng: np.random.Generator,
    *,
    corpus: Corpus | None = None,
    length: int = LENGTH,
    subject: str | None = None,
) -> str:
    """A sentence that names every active unit once, from brow to chin, in at most `length - 1` tokens.

    Phrases are drawn at random if they fit. If not, the longest are replaced by two words, then by single words (from
    the last to the first), then commas are dropped: 18 units fit in 24 tokens.
    """
    corpus = corpus or load()
    codes = set(active_units)
    for unit in codes:
        if unit not in corpus.units:
            raise unknown("action unit (not in the corpus of sentences)", unit, corpus.units)
    units = [corpus.units[code] for code in sorted(codes)]
    if subject is not None and subject not in corpus.subjects:
        raise unknown("subject", subject, corpus.subjects)
    group = ("neutral", "one", "two")[len(units)] if len(units) < 3 else "many"
    templates = (corpus.face if subject is None else corpus.subject_face)[group]
    template = _draw(rng, templates).replace("{subject}", subject or "")
    phrases = [_draw(rng, unit.phrases) for unit in units]
    room = length - 1 - len(tokens_of(template.replace(SLOT, " "))) - max(0, len(units) - 1)  # tokens left for phrases
    if len(units) > 2 and sum(map(_size, phrases)) > room:
        # The shortest template leaves the most words for the actions.
        template = min(templates, key=lambda text: len(tokens_of(text))).replace("{subject}", subject or "")
        room = length - 1 - len(tokens_of(template.replace(SLOT, " "))) - (len(units) - 1)
    for shorter in ([min(unit.phrases, key=_size) for unit in units], [unit.tag for unit in units]):
        for i in sorted(range(len(units)), key=lambda i: (-_size(phrases[i]), -i)):
            if sum(map(_size, phrases)) > room:
                phrases[i] = shorter[i]
    fits = sum(map(_size, phrases)) <= room
    sentence = template.replace(SLOT, _join(phrases, ", " if fits else " "))
    if len(tokens_of(sentence)) >= length:
        if subject is not None:  # actions are more important than the subject
            return compose(codes, rng, corpus=corpus, length=length)
        raise UserError(f"{len(units)} active units do not fit in {length} tokens. Set a length of at least {LENGTH}.")
    return sentence


def _size(phrase: str) -> int:
    return phrase.count(" ") + 1


def _join(phrases: Sequence[str], comma: str) -> str:
    if len(phrases) < 2 or comma == " ":
        return " ".join(phrases)
    return comma.join(phrases[:-1]) + " and " + phrases[-1]


def _draw(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]
