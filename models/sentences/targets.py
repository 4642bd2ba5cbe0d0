"""Sentences as training targets, and the input states of a conditioned captioner."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError, unknown
from .composing import compose
from .corpus import Corpus, tokens_of
from .vocabulary import END, PAD, encode, index_of


@dataclass(frozen=True)
class Texts:
    """Turns labels into sentences."""

    corpus: Corpus  # of the network's units, in their order
    vocabulary: Sequence[str]
    words: int  # T
    conditioned: bool = False  # the captioner gets the states as input
    noise: float = 0.0  # mean share of input states that are flipped, so that sentences follow the states
    subjects: bool = False  # the face's sentence names the subject, if known

    def targets(
        self, labels: NDArray[np.int8], rng: np.random.Generator, descriptions: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """labels (B, A), descriptions (B) -> local_tokens (B, A, T), global_tokens (B, T), active (B, A) float 0/1."""
        states: NDArray[np.int8] | None = None
        described = labels
        if self.conditioned:
            # From few to many in one face: decisions may be a combination that no data holds, and must be described.
            share = 2 * self.noise * rng.random((len(labels), 1))
            drawn = rng.random(labels.shape)
            known = np.where(drawn < share, 1 - labels, labels)
            states = np.where(labels >= 0, known, drawn < 0.5).astype(np.int8)
            described = np.where(labels >= 0, states, -1).astype(np.int8)
        subjects = descriptions if self.subjects else None
        local, whole = sample_tokens(
            described, self.corpus, self.vocabulary, self.words, rng, states=states, descriptions=subjects
        )
        active = labels.clip(0, 1) if states is None else states
        return {
            "local_tokens": torch.from_numpy(local),
            "global_tokens": torch.from_numpy(whole),
            "active": torch.from_numpy(active.astype(np.float32)),
        }


def check_descriptions(descriptions: Sequence[str], corpus: Corpus) -> None:
    """Refuses subjects for which the corpus has no words, before training begins."""
    if not any(descriptions):
        raise UserError(
            "This data does not describe its subjects, so --subjects has no effect. Leave it out, or add a column "
            "'person' to the CSV."
        )
    for text in descriptions:
        if text and text not in corpus.subjects:
            raise unknown("person in the data (the corpus has no such subject)", text, corpus.subjects)


def sample_tokens(
    labels: NDArray[np.integer],
    corpus: Corpus,
    vocabulary: Sequence[str],
    length: int,
    rng: np.random.Generator,
    *,
    states: NDArray[np.integer] | None = None,
    descriptions: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Targets of a batch: labels (B, A) of -1, 0, 1 in the order of corpus.units -> local (B, A, T), global (B, T).

    An unknown label has no local sentence (all PAD, masked by the loss). A face with an unknown label has no global
    sentence either, since the units to name are not known. If `states` (B, A) of 0/1 gives the input of the decoder,
    the sentence names exactly those units, for every face with at least one known label.
    """
    table, counts = _table(corpus, tuple(vocabulary), length)
    labels = np.asarray(labels)
    state = labels.clip(0, 1).astype(np.int64)  # (B, A)
    unit = np.arange(labels.shape[1])
    drawn = (rng.random(labels.shape) * counts[unit, state]).astype(np.int64)
    local = np.where((labels >= 0)[..., None], table[unit, state, drawn], PAD)
    whole = np.zeros((len(labels), length), np.int64)
    index = index_of(tuple(vocabulary))
    codes = list(corpus.units)
    named = labels if states is None else np.asarray(states)
    described = (labels >= 0).all(1) if states is None else (labels >= 0).any(1)
    for row in np.flatnonzero(described):
        subject = descriptions[int(row)] or None if descriptions is not None else None
        active = [codes[i] for i in np.flatnonzero(named[row] > 0)]
        words = tokens_of(compose(active, rng, corpus=corpus, length=length, subject=subject))
        whole[row, : len(words) + 1] = [*(index[word] for word in words), END]
    return local, whole


@functools.lru_cache(maxsize=8)
def _table(corpus: Corpus, vocabulary: tuple[str, ...], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All sentences of the units as tokens (A, 2, K, T), and their number (A, 2)."""
    sentences = [(unit.inactive, unit.active) for unit in corpus.units.values()]
    counts = np.array([[len(group) for group in pair] for pair in sentences])
    table = np.zeros((len(sentences), 2, int(counts.max()), length), np.int64)
    for i, pair in enumerate(sentences):
        for state, group in enumerate(pair):
            for k, sentence in enumerate(group):
                table[i, state, k] = encode(sentence, vocabulary, length)
    return table, counts
