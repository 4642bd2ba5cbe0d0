"""The order of samples, and the worker processes that prepare batches.

The order of an epoch is a function of (seed, epoch), so a run that was killed after `start` batches resumes with the
rest. Several training processes see the same batches as one: each takes every world-th sample of a batch.
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

SIGNAL_S = 1.0  # wait after an incomplete batch; the signal comes within milliseconds, later on a busy machine
FILES_AT_ONCE = 16  # large files that are shuffled together, so that the others need not be in memory
Draw = tuple[int, int]  # epoch, index


class Group(Protocol):
    """The processes of one training."""

    rank: int
    world: int

    def wait(self) -> None: ...


class BatchOrder(Sampler[list[Draw]]):
    """Yields one process's share of each batch. Set `epoch` and `start` before iterating."""

    def __init__(
        self, samples: Samples, size: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1
    ) -> None:
        """`size` is the batch over all processes. Shuffled epochs drop an incomplete last batch."""
        if size % world:
            raise UserError(f"A batch of {size} cannot be shared by {world} processes. Choose a multiple of {world}.")
        if shuffle and len(samples) < size:
            raise UserError(f"{len(samples)} samples do not fill a batch of {size}. Choose a smaller batch.")
        self.samples, self.size, self.seed, self.shuffle = samples, size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.start = 0  # batches of this epoch that are done

    @property
    def batches(self) -> int:
        """In a whole epoch."""
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
    """Batches as tensors, prepared by worker processes (0: in this one). Measures the time spent waiting for them."""

    def __init__(self, samples: Samples, order: BatchOrder, *, workers: int = 0, pin: bool = False) -> None:
        self.samples, self.order = samples, order
        self.waited_s = 0.0
        self._loader: DataLoader[object] = DataLoader(
            _Fetch(samples),  # type: ignore[arg-type]
            batch_sampler=order,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_tensors,  # type: ignore[arg-type]
            pin_memory=pin,
            worker_init_fn=_start_worker if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # otherwise each epoch draws from torch's own, and a resumed run differs
        )

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The rest of the epoch. A UserError of a worker is raised here."""
        began = time.perf_counter()
        for part in self._loader:
            if isinstance(part, UserError):
                raise part
            assert isinstance(part, dict)
            self.waited_s += time.perf_counter() - began
            yield part
            began = time.perf_counter()


class _Fetch:
    """Called by torch's loader for each batch. Returns errors, since torch wraps exceptions beyond recognition."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, NDArray[np.generic]] | UserError:
        try:
            return batch(self.samples, [index for _, index in draws], draws[0][0])
        except UserError as error:
            return error


def _tensors(part: dict[str, NDArray[np.generic]] | UserError) -> dict[str, torch.Tensor] | UserError:
    if isinstance(part, UserError):
        return part
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in part.items()}


def _start_worker(_: int) -> None:
    """One thread per worker, since there is a worker per core.

    Each gets its own process group: job schedulers signal the whole group of the training, which still needs its batch
    to end with a checkpoint.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if hasattr(os, "setpgid"):  # Windows has no such groups
        os.setpgid(0, 0)


@contextmanager
def report_dead_workers() -> Iterator[None]:
    """Raises a UserError if a worker dies: torch raises wherever the training is, or a batch arrives incomplete."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = str(error if isinstance(error, RuntimeError) else _signal_after(error)).strip()
        raise UserError(
            f"A process that prepares batches has died ({reason}). The usual cause is a lack of memory: use fewer "
            "--workers. Run the same command again to continue from the last checkpoint."
        ) from None


def _signal_after(incomplete: Exception) -> Exception:
    """An incomplete batch may arrive before the signal of the death, from which torch raises in whatever line comes
    next: wait for it here."""
    try:
        time.sleep(SIGNAL_S)
    except RuntimeError as death:
        return death
    return incomplete
