"""Dual-level AU individual refinement (eq. 2-3) and the classifiers, for all action units at once.

V_i = V * channel_i * spatial_i is never stored: pooling and sentences are computed from its three small factors.
Axes: B faces, A units, d channels, L = g * g places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Refinement(nn.Module):
    def __init__(self, units: int, width: int, squeeze: int, *, sigmoid: bool = False) -> None:
        """`sigmoid` puts CBAM's sigmoid on the spatial map; the paper writes none."""
        super().__init__()
        inner = max(4, width // squeeze)
        self.units, self.sigmoid = units, sigmoid
        self.down = nn.Linear(width, units * inner)  # the first layer of all units' MLPs side by side
        self.up = nn.Parameter(torch.empty(units, inner, width))
        self.up_bias = nn.Parameter(torch.zeros(units, 1, width))
        nn.init.normal_(self.up, std=inner**-0.5)
        self.spatial = nn.Conv2d(2 * units, units, 3, padding=1, groups=units)  # (mean, max) of each unit to one map
        if not sigmoid:
            nn.init.constant_(self.spatial.bias, 1.0)  # type: ignore[arg-type]  # starts near "look everywhere"

    def forward(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d, L) -> channel (B, A, d), spatial (B, A, L)"""
        vectors = torch.stack([visual.mean(2), visual.amax(2)])  # (2, B, d)
        inner = F.relu(torch.unflatten(self.down(vectors), 2, (self.units, -1)))
        inner = inner.sum(0)  # the second layer is linear: sum first
        channel = torch.sigmoid((inner.transpose(0, 1) @ self.up + 2 * self.up_bias).transpose(0, 1))  # eq. 2
        mean = channel @ visual / visual.shape[1]  # (B, A, L)
        most = (channel.unsqueeze(3) * visual.unsqueeze(1)).amax(2)
        grid = round(int(visual.shape[2]) ** 0.5)
        pairs = torch.unflatten(torch.stack([mean, most], 2).flatten(1, 2), 2, (grid, grid))  # (B, 2A, g, g)
        spatial = self.spatial(pairs).flatten(2)  # eq. 3
        return channel, torch.sigmoid(spatial) if self.sigmoid else spatial


def unit_vectors(visual: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """The mean of V_i over the places: (B, A, d)."""
    return channel * (spatial @ visual.transpose(1, 2)) / visual.shape[2]


def unit_maps(visual: Tensor, channel: Tensor, spatial: Tensor, rows: Tensor) -> Tensor:
    """V_i of some (face, unit) rows (R, 2): (R, L, d)."""
    face, unit = rows[:, 0], rows[:, 1]
    return visual[face].transpose(1, 2) * channel[face, unit].unsqueeze(1) * spatial[face, unit].unsqueeze(2)


class UnitClassifiers(nn.Module):
    """One fully connected layer per unit."""

    def __init__(self, units: int, width: int, outputs: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(units, width, outputs))
        self.bias = nn.Parameter(torch.zeros(units, outputs))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, A, d) -> (B, A, outputs)"""
        return (vectors.unsqueeze(2) @ self.weight).squeeze(2) + self.bias
