"""Sentences as targets of a batch, and the states that a conditioned captioner is told. Knows no network."""

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
    """What turns labels into sentences."""

    corpus: Corpus  # of the network's units, in their order
    vocabulary: Sequence[str]
    words: int  # T
    conditioned: bool = False  # the captioner is told the decided states
    noise: float = 0.0  # mean share of told states that are wrong on purpose, so that sentences obey
    subjects: bool = False  # the face's sentence says who it is, where that is known

    def targets(
        self, labels: NDArray[np.int8], rng: np.random.Generator, people: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """labels (B, A), people (B) -> local_tokens (B, A, T), global_tokens (B, T), active (B, A) float 0/1."""
        told: NDArray[np.int8] | None = None
        said = labels
        if self.conditioned:
            # From hardly any to many in one face: decided states may be a set that no data holds, and have to be said.
            share = 2 * self.noise * rng.random((len(labels), 1))
            drawn = rng.random(labels.shape)
            known = np.where(drawn < share, 1 - labels, labels)
            told = np.where(labels >= 0, known, drawn < 0.5).astype(np.int8)
            said = np.where(labels >= 0, told, -1).astype(np.int8)
        who = people if self.subjects else None
        local, whole = sample_tokens(said, self.corpus, self.vocabulary, self.words, rng, states=told, people=who)
        active = labels.clip(0, 1) if told is None else told
        return {
            "local_tokens": torch.from_numpy(local),
            "global_tokens": torch.from_numpy(whole),
            "active": torch.from_numpy(active.astype(np.float32)),
        }


def check_people(people: Sequence[str], corpus: Corpus) -> None:
    """Refuses data whose people the corpus has no words for, before an hour of training."""
    if not any(people):
        raise UserError(
            "Nobody knows who the subjects of this data are, so --subjects has nothing to say. Leave it out, or add a "
            "column 'person' to the CSV."
        )
    for person in people:
        if person and person not in corpus.subjects:
            raise unknown("person in the data (the corpus has no such subject)", person, corpus.subjects)


def sample_tokens(
    labels: NDArray[np.integer],
    corpus: Corpus,
    vocabulary: Sequence[str],
    length: int,
    rng: np.random.Generator,
    *,
    states: NDArray[np.integer] | None = None,
    people: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Targets of a batch: labels (B, A) of -1, 0, 1 in the order of corpus.units -> local (B, A, T), global (B, T).

    An unknown label has no local sentence (all PAD, masked by the loss). A face with an unknown label has no global
    sentence either, since nobody knows which units it should name; unless `states` (B, A) of 0/1 says what the
    decoder is told: then the sentence names exactly those units, on every face with at least one known label.
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
    told = labels if states is None else np.asarray(states)
    spoken = (labels >= 0).all(1) if states is None else (labels >= 0).any(1)
    for row in np.flatnonzero(spoken):
        who = people[int(row)] or None if people is not None else None
        active = [codes[i] for i in np.flatnonzero(told[row] > 0)]
        words = tokens_of(compose(active, rng, corpus=corpus, length=length, subject=who))
        whole[row, : len(words) + 1] = [*(index[word] for word in words), END]
    return local, whole


@functools.lru_cache(maxsize=8)
def _table(corpus: Corpus, vocabulary: tuple[str, ...], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All sentences of the units as tokens (A, 2, K, T), and how many there are (A, 2)."""
    sentences = [(unit.inactive, unit.active) for unit in corpus.units.values()]
    counts = np.array([[len(group) for group in pair] for pair in sentences])
    table = np.zeros((len(sentences), 2, int(counts.max()), length), np.int64)
    for i, pair in enumerate(sentences):
        for state, group in enumerate(pair):
            for k, sentence in enumerate(group):
                table[i, state, k] = encode(sentence, vocabulary, length)
    return table, counts
