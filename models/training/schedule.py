"""How far a run is, its learning rate there, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .position import Position
from .recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """A run ends after a number of steps, of minutes or of epochs, as the recipe says."""

    recipe: Recipe

    def finished(self, at: Position) -> bool:
        if self.recipe.steps is not None:
            return at.step >= self.recipe.steps
        if self.recipe.minutes is not None:
            return at.elapsed_s >= self.recipe.minutes * 60
        return at.epoch >= self.recipe.epochs

    def progress(self, at: Position, epochs_done: float) -> float:
        """0..1 over the whole run."""
        if self.recipe.steps is not None:
            return at.step / self.recipe.steps
        if self.recipe.minutes is not None:
            return at.elapsed_s / (self.recipe.minutes * 60)
        return epochs_done / self.recipe.epochs

    def rate(self, at: Position, epochs_done: float) -> float:
        recipe = self.recipe
        return rate_at(
            self.progress(at, epochs_done),
            at.step,
            peak=recipe.learning_rate,
            shape=recipe.schedule,
            warmup_steps=recipe.warmup_steps,
            floor=recipe.floor,
        )


def rate_at(progress: float, step: int, *, peak: float, shape: str, warmup_steps: int, floor: float) -> float:
    """Linear warm-up by steps, then `shape` over the progress of the run; `floor` is a share of the peak."""
    progress = min(max(progress, 0.0), 1.0)
    if shape == "constant":
        fall = 1.0
    elif shape == "linear":
        fall = 1.0 - progress
    else:  # cosine
        fall = cosine(progress)
    return peak * warmup(step, warmup_steps) * (floor + (1 - floor) * fall)


def warmup(step: int, steps: int) -> float:
    """Rises to 1 over the first steps."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def cosine(progress: float) -> float:
    """Falls from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


class RunningMean:
    """An exponential moving average of the weights (and buffers), kept in FP32 on the same device."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        update_mean(self.tensors, module.state_dict(), self.decay, step)


@torch.no_grad()
def update_mean(means: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Moves the means towards the weights, in place; whole numbers, such as counters, are copied."""
    decay = min(decay, (1 + step) / (10 + step))  # a young mean follows the weights quickly
    floats = [name for name, value in weights.items() if value.is_floating_point()]
    torch._foreach_lerp_([means[name] for name in floats], [weights[name].detach() for name in floats], 1 - decay)
    for name in weights.keys() - set(floats):
        means[name].copy_(weights[name])


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and convolutions; none on biases, norms and other vectors."""
    trainable = [p for _, p in named if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
