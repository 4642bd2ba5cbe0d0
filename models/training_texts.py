"""Sentences as targets of a batch, and the states that a conditioned captioner is told. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .corpus import Corpus
from .errors import UserError, unknown
from .texts import sample_tokens

if TYPE_CHECKING:
    from .training_data import TrainingData


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


def check_people(data: TrainingData, corpus: Corpus) -> None:
    """Refuses data whose people the corpus has no words for, before an hour of training."""
    if not any(data.people):
        raise UserError(
            "Nobody knows who the subjects of this data are, so --subjects has nothing to say. Leave it out, or add a "
            "column 'person' to the CSV."
        )
    for person in data.people:
        if person and person not in corpus.subjects:
            raise unknown("person in the data (the corpus has no such subject)", person, corpus.subjects)
