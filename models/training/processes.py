"""The processes of one training, started by torchrun: rank, world size, device, and sums over all of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from types import TracebackType

import torch
import torch.distributed as dist

from ..errors import UserError


class Processes:
    """`with Processes(device) as group`; a single process needs no group and pays nothing."""

    def __init__(self, device: str = "auto") -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = _device(device, int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def __enter__(self) -> Processes:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1 and dist.is_initialized():
            if kind is None:
                dist.barrier()  # none leaves while another still waits for it
            # Freeing the group joins gloo's threads; a wrapped network that awaits collection would keep it alive.
            gc.collect()
            dist.destroy_process_group()

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.cpu()]

    def agree(self, value: float) -> float:
        """The first process's value, for decisions by the clock that must be the same everywhere."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor.item())

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"Unknown device '{name}'. Choose auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"Device '{name}' was requested, but torch finds no GPU. Use --device cpu.")
    return torch.device("cuda", local_rank) if name == "cuda" else device
