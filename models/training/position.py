"""Where a training stands, and its way into a checkpoint and back. Knows no loop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


@dataclass
class Sums:
    """Loss terms added up over steps, on the device: asking a GPU for a number waits for everything queued on it."""

    names: list[str] = field(default_factory=list)
    tensor: Tensor | None = None  # (terms,) float32
    steps: float = 0.0

    def add(self, names: list[str], values: Tensor, share: float = 1.0) -> None:
        """`values` may be a share of a step's."""
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
    """Everything beside tensors that a run needs to go on exactly where it was."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    batch: int = 0  # batches of this epoch that were seen
    images: int = 0
    elapsed_s: float = 0.0
    trained: bool = False  # the epoch is over and only its test is due
    files: list[str] | None = None  # the files of a growing data set with which the epoch began
    best_f1: float = -1.0
    best_epoch: int = -1

    def table(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def take(self, table: dict[str, Any]) -> None:
        for one in dataclasses.fields(self):
            setattr(self, one.name, table[one.name])


def pack(network: nn.Module, optimiser: torch.optim.Optimizer, mean: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """All tensors of a training under flat names."""
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
    """The reverse of `pack`; a checkpoint that does not fit is refused before anything is changed."""
    weights = _under(tensors, "network.")
    check_fits(weights, network.state_dict(), path)
    network.load_state_dict(weights)
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in _under(tensors, "optimiser.").items():
        number, key = name.split(".")
        parameter = parameters[int(number)]
        # Fused AdamW reads memory as it lies, so moments must lie as their parameters do (channels last).
        placed = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        states.setdefault(int(number), {})[key] = placed
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    if mean is not None:
        kept = _under(tensors, "mean.") or weights  # switched on for the continuation
        for name, value in mean.items():
            value.copy_(kept[name])


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
            f"{path} does not fit this network: it {listed}. It was made with other action units, another size "
            "or another version; use the configuration of its own run folder."
        )


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
