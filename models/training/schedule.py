"""The learning rate over a run, and the running mean of the weights. They know only how far the run is."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def rate_at(progress: float, step: int, *, peak: float, shape: str, warmup_steps: int, floor: float) -> float:
    """Linear warm-up by steps, then `shape` over the progress of the run; `floor` is a share of the peak."""
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    progress = min(max(progress, 0.0), 1.0)
    if shape == "constant":
        fall = 1.0
    elif shape == "linear":
        fall = 1.0 - progress
    else:  # cosine
        fall = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * warm * (floor + (1 - floor) * fall)


class RunningMean:
    """An exponential moving average of the weights (and buffers), kept in FP32 on the same device."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # a young mean follows the weights quickly
        means, values = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                means.append(self.tensors[name])
                values.append(value.detach())
            else:
                self.tensors[name].copy_(value)
        torch._foreach_lerp_(means, values, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, value in self.tensors.items():
            value.copy_(tensors[name])


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and convolutions; none on biases, norms and other vectors."""
    trainable = [p for _, p in named if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
