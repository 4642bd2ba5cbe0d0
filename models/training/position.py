"""The position of a training, and how it is stored in a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


@dataclass
class Sums:
    """Loss terms summed over steps on the device, since reading a number from a GPU waits for all its queued work."""

    names: list[str] = field(default_factory=list)
    tensor: Tensor | None = None  # (terms,) float32
    steps: float = 0.0

    def add(self, names: list[str], values: Tensor, share: float = 1.0) -> None:
        """`values` may be those of a share of a step."""
        self.names = names
        self.tensor = values if self.tensor is None else self.tensor + values
        self.steps += share

    def extend(self, other: Sums) -> None:
        if other.tensor is not None:
            self.names = other.names
            self.tensor = other.tensor if self.tensor is None else self.tensor + other.tensor
            self.steps += other.steps

    def finite(self) -> bool:
        return self.tensor is None or bool(torch.isfinite(self.tensor).all())

    def table(self) -> dict[str, Any]:
        return {"names": self.names, "sums": [] if self.tensor is None else self.tensor.tolist(), "steps": self.steps}

    @staticmethod
    def from_table(table: dict[str, Any], device: torch.device) -> Sums:
        tensor = torch.tensor(table["sums"], dtype=torch.float32, device=device) if table["steps"] else None
        return Sums(list(table["names"]), tensor, float(table["steps"]))


@dataclass
class Position:
    """Everything except tensors that a run needs to resume exactly."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    images: int = 0
    elapsed_s: float = 0.0
    trained: bool = False  # the epoch is trained and only its test is due
    files: list[str] | None = None  # of a growing data set, when the epoch began
    best_f1: float = -1.0
    best_epoch: int = -1

    def table(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def take(self, table: dict[str, Any]) -> None:
        for one in dataclasses.fields(self):
            setattr(self, one.name, table[one.name])


def pack(network: nn.Module, optimiser: torch.optim.Optimizer, mean: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """All tensors of a training, under flat names."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items()}
    tensors |= {f"mean.{name}": value for name, value in (mean or {}).items()}
    return tensors


def unpack(
    tensors: dict[str, Tensor],
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    mean: dict[str, Tensor] | None,
    path: object,
) -> None:
    """The inverse of `pack`; raises before anything is changed if the checkpoint does not fit."""
    weights = _under(tensors, "network.")
    check_fits(weights, network.state_dict(), path)
    network.load_state_dict(weights)
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in _under(tensors, "optimiser.").items():
        number, key = name.split(".")
        parameter = parameters[int(number)]
        # Fused AdamW ignores strides, so moments need the memory layout of their parameters (channels last).
        placed = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        states.setdefault(int(number), {})[key] = placed
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    if mean is not None:
        stored = _under(tensors, "mean.") or weights  # none if the mean was switched on for the continuation
        for name, value in mean.items():
            value.copy_(stored[name])


def check_fits(weights: dict[str, Tensor], expected: dict[str, Tensor], path: object) -> None:
    missing = [name for name in expected if name not in weights]
    strange = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    if missing or strange or shapes:
        parts = [("lacks", missing), ("has unknown", strange), ("has", shapes)]
        listed = "; ".join(
            f"{verb} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" for verb, names in parts if names
        )
        raise UserError(
            f"{path} does not fit this network: it {listed}. It was trained with other action units, another size "
            "or another version; use the configuration of its own run folder."
        )


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
