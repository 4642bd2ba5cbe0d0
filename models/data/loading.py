"""The order in which samples are seen and the processes that make them. Knows no network and no file format.

The order of an epoch is a function of (seed, epoch); a run that was killed after `start` batches asks for the rest.
Several processes of one training see the same batches as one process: each takes every world-th sample of a batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from ..errors import UserError
from .samples import Samples, batch

ALARM_S = 1.0  # after a torn batch; the signal comes within milliseconds, later on a busy machine

FILES_AT_ONCE = 16  # of a data set in many large files, so many are shuffled together: the rest need not be in memory
Draw = tuple[int, int]  # epoch, index


class Group(Protocol):
    """The processes of one training."""

    rank: int
    world: int

    def wait(self) -> None: ...


class BatchOrder(Sampler[list[Draw]]):
    """Yields one process's share of every batch. Set `epoch` and `start` before iterating."""

    def __init__(
        self, samples: Samples, size: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1
    ) -> None:
        """`size` is the batch of all processes together. Shuffled epochs leave out an incomplete last batch."""
        if size % world:
            raise UserError(f"A batch of {size} cannot be shared by {world} processes. Choose a multiple of {world}.")
        if shuffle and len(samples) < size:
            raise UserError(f"{len(samples)} samples do not fill a batch of {size}. Choose a smaller batch.")
        self.samples, self.size, self.seed, self.shuffle = samples, size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.start = 0  # batches of this epoch that were already seen

    @property
    def batches(self) -> int:
        """Batches of a whole epoch."""
        count = len(self.samples)
        return count // self.size if self.shuffle else -(-count // self.size)

    def __len__(self) -> int:
        return self.batches - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self.indices()
        for number in range(self.start, self.batches):
            whole = order[number * self.size : (number + 1) * self.size]
            yield [(self.epoch, int(index)) for index in whole[self.rank :: self.world]]

    def indices(self) -> NDArray[np.int64]:
        """All samples in the order of the epoch."""
        count = len(self.samples)
        if not self.shuffle:
            return np.arange(count)
        rng = np.random.default_rng((self.seed, self.epoch))
        blocks = self.samples.blocks
        if blocks is None or len(blocks) - 1 <= FILES_AT_ONCE:
            return rng.permutation(count)
        files = rng.permutation(len(blocks) - 1)
        groups = [files[i : i + FILES_AT_ONCE] for i in range(0, len(files), FILES_AT_ONCE)]
        parts = (np.concatenate([np.arange(blocks[file], blocks[file + 1]) for file in group]) for group in groups)
        return np.concatenate([rng.permutation(part) for part in parts])


class Loader:
    """Batches as tensors, made by worker processes (0: in this one). Counts the seconds spent waiting for them."""

    def __init__(self, samples: Samples, order: BatchOrder, *, workers: int = 0, pin: bool = False) -> None:
        self.samples, self.order = samples, order
        self.waited_s = 0.0
        self._loader: DataLoader[object] = DataLoader(
            _Fetch(samples),  # type: ignore[arg-type]
            batch_sampler=order,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_tensors,  # type: ignore[arg-type]
            pin_memory=pin,
            worker_init_fn=_calm if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # otherwise every epoch would draw from torch's own, and resuming would differ
        )

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The rest of the order's epoch. A fault in the data is raised here, in the data set's own words."""
        began = time.perf_counter()
        for made in self._loader:
            if isinstance(made, UserError):
                raise made
            assert isinstance(made, dict)
            self.waited_s += time.perf_counter() - began
            yield made
            began = time.perf_counter()


class _Fetch:
    """What torch's loader calls, once a batch: it knows `__getitems__`, and wraps exceptions beyond recognition."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, NDArray[np.generic]] | UserError:
        try:
            return batch(self.samples, [index for _, index in draws], draws[0][0])
        except UserError as error:
            return error


def _tensors(made: dict[str, NDArray[np.generic]] | UserError) -> dict[str, torch.Tensor] | UserError:
    if isinstance(made, UserError):
        return made
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in made.items()}


def _calm(_: int) -> None:
    """One thread per worker: there is a worker per core already.

    In a group of its own: whoever ends a job signals its whole group, and the training that then ends with a checkpoint
    needs its batch.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if hasattr(os, "setpgid"):  # Windows has no such groups
        os.setpgid(0, 0)


@contextmanager
def _dead_workers_told() -> Iterator[None]:
    """A process that makes batches dies: torch raises wherever the training is, or a batch is torn on its way."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = str(error if isinstance(error, RuntimeError) else _alarm_after(error)).strip()
        raise UserError(
            f"A process that makes batches has died ({reason}). Mostly memory ran out: give fewer --workers. Run the "
            "same command again: it goes on from the last checkpoint."
        ) from None


def _alarm_after(torn: Exception) -> Exception:
    """A torn batch may be seen before the signal that tells of the death, which torch raises in whatever line is next:
    let it be this one."""
    try:
        time.sleep(ALARM_S)
    except RuntimeError as alarm:
        return alarm
    return torn
