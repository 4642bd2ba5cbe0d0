"""The vocabulary of a captioner; sentences to tokens and back."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .corpus import LENGTH, SLOT, Corpus, tokens_of

PAD, START, END = 0, 1, 2  # the first three entries of every vocabulary
SPECIAL = ("<pad>", "<start>", "<end>")


def build(corpus: Corpus, units: Sequence[str] | None = None, *, subjects: bool = False) -> tuple[str, ...]:
    """The vocabulary of the units' sentences and of the face's: special entries, then words in alphabetical order."""
    chosen = corpus.only(units) if units is not None else corpus
    texts = [text for unit in chosen.units.values() for text in (*unit.active, *unit.inactive, *unit.phrases, unit.tag)]
    texts += [text for group in chosen.face.values() for text in group]
    if subjects:
        texts += [*chosen.subjects, *(text for group in chosen.subject_face.values() for text in group)]
    words = {word for text in texts for word in tokens_of(text.replace(SLOT, " ").replace("{subject}", " "))}
    return (*SPECIAL, *sorted(words | {",", "and"}))


def encode(sentence: str, vocabulary: Sequence[str], length: int = LENGTH) -> NDArray[np.int64]:
    """Sentence -> (T,) tokens, ended by END and padded with PAD."""
    index = index_of(tuple(vocabulary))
    words = tokens_of(sentence)
    if len(words) >= length:
        raise UserError(
            f"Sentence '{sentence}' has {len(words)} tokens, {length - 1} fit. Shorten it or raise the length."
        )
    strange = [word for word in words if word not in index]
    if strange:
        raise UserError(f"Words outside the vocabulary: {', '.join(strange)}. Train with a corpus that has them.")
    tokens = np.zeros(length, np.int64)
    tokens[: len(words) + 1] = [*(index[word] for word in words), END]
    return tokens


def decode(tokens: NDArray[np.integer] | Sequence[int], vocabulary: Sequence[str]) -> str:
    """Tokens up to END -> a sentence with a capital and a full stop."""
    words = itertools.takewhile(lambda token: token != END, map(int, tokens))
    sentence = " ".join(vocabulary[token] for token in words if token not in (PAD, START)).replace(" ,", ",")
    return sentence[:1].upper() + sentence[1:] + "." if sentence else ""


@functools.lru_cache(maxsize=8)
def index_of(vocabulary: tuple[str, ...]) -> dict[str, int]:
    return {word: token for token, word in enumerate(vocabulary)}
