"""A short race between functions that is fair on a busy machine.

They take turns in short blocks, and only the fastest call of a block counts: other load on the machine affects all
alike and only ever adds time. Medians of consecutive runs once preferred the runtime that is slower on an idle machine.
With none, one, two and four busy neighbours on two cores, 32 of 32 races ended as they do on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 12  # at least; the first to run changes in each
BLOCK_S = 0.02  # seconds of one turn
PATIENCE = 8  # times the requested seconds; a race of slow runners then ends with fewer rounds
CLEARLY = 0.15  # minimum lead to count
OFTEN = 0.8  # share of rounds it must win
BUSY = 1.5  # on an idle machine the rounds of a runner differ by some percent; by more than this factor on a busy one


@dataclass(frozen=True, eq=False)
class Rounds:
    """The fastest call of each round of each runner, in seconds."""

    took: dict[str, NDArray[np.float64]]  # (rounds,)

    def seconds(self, name: str) -> float:
        return float(self.took[name].min())

    def clearly_faster(self, one: str, other: str) -> bool:
        """In the best round and in nearly all rounds."""
        a, b = (1 + CLEARLY) * self.took[one], self.took[other]
        return bool(a.min() < b.min() and (a < b).mean() >= OFTEN)

    @property
    def disturbed(self) -> bool:
        """Other programs used the processor: another race may end otherwise."""
        return any(np.median(rounds) > BUSY * rounds.min() for rounds in self.took.values())


def race(
    runners: Mapping[str, Callable[[], object]], seconds: float = 0.5, clock: Callable[[], float] = time.perf_counter
) -> Rounds:
    """Takes about `seconds` per runner."""
    took: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    if not order:
        return Rounds({})
    started, rounds = clock(), 0
    while rounds < 2 or clock() < started + seconds * len(order) * (1 if rounds >= ROUNDS else PATIENCE):
        for name in order:
            runners[name]()  # warms the caches
            until, fastest = clock() + BLOCK_S, float("inf")
            while True:
                start = clock()
                runners[name]()
                fastest = min(fastest, clock() - start)
                if clock() >= until:
                    break
            took[name].append(fastest)
        order = [*order[1:], *order[:1]]
        rounds += 1
    return Rounds({name: np.array(times) for name, times in took.items()})
