"""A short race between things that are ready to run, fair on a machine that is busy. Knows no runtime.

They take turns in short blocks, and only a block's fastest call counts: load from outside hits all alike and only ever
adds time. Medians of runs one after another once preferred the runtime that is slower when nobody disturbs it. With
none, one, two and four busy neighbours on two cores, 32 of 32 races ended as they do on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 12  # at least, each begun by another one
BLOCK_S = 0.02  # of one turn
PATIENCE = 8  # times the seconds asked for, after which a race of slow runners ends with fewer rounds
CLEARLY = 0.15  # so much faster, or it is noise
OFTEN = 0.8  # in so many rounds, or it is luck
BUSY = 1.5  # rounds of one runner that differ by more were disturbed; undisturbed ones differ by some percent


@dataclass(frozen=True, eq=False)
class Rounds:
    """The fastest call of each round of each runner, in seconds."""

    took: dict[str, NDArray[np.float64]]  # (rounds,)

    def seconds(self, name: str) -> float:
        return float(self.took[name].min())

    def clearly_faster(self, one: str, other: str) -> bool:
        """In the best round and in nearly all of them."""
        a, b = (1 + CLEARLY) * self.took[one], self.took[other]
        return bool(a.min() < b.min() and (a < b).mean() >= OFTEN)

    @property
    def disturbed(self) -> bool:
        """Somebody else took the processor: what is found may be another thing on another day."""
        return any(np.median(rounds) > BUSY * rounds.min() for rounds in self.took.values())


def race(
    runners: Mapping[str, Callable[[], object]], seconds: float = 0.5, clock: Callable[[], float] = time.perf_counter
) -> Rounds:
    """About `seconds` are spent on each."""
    took: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    if not order:
        return Rounds({})
    begun, rounds = clock(), 0
    while rounds < 2 or clock() < begun + seconds * len(order) * (1 if rounds >= ROUNDS else PATIENCE):
        for name in order:
            runners[name]()  # cold caches are the fault of the one before
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
    return Rounds({name: np.array(of) for name, of in took.items()})
