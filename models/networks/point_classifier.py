"""The point classifier: states from where the face's points lie, not from how the face looks.

Skin, light and wrinkles of renders differ from those of photographs, positions of brows and lips differ little. On real
faces the errors of the two classifiers are nearly independent, and their mean is better than either. Not in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..faces.align import LEFT_EYE, POINTS, RIGHT_EYE

# Added to standardised coordinates in training. Points are less exact on real faces than on renders, and a classifier
# that relied on a single point would repeat its error.
NOISE = 0.5
NARROWEST = 0.1  # crop sides; no face has its eyes closer together


class PointClassifier(nn.Module):
    def __init__(self, units: int, hidden: int) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm1d(2 * POINTS, affine=False)
        self.first = nn.Linear(2 * POINTS, hidden)
        self.last = nn.Linear(hidden, 2 * units)

    def forward(self, points: Tensor) -> Tensor:
        """(B, 68, 2) in crop sides -> logits (B, A, 2)"""
        places: Tensor = self.standardise(upright(points).flatten(1))
        if self.training:
            places = places + NOISE * torch.randn_like(places)
        return torch.unflatten(self.last(F.relu(self.first(places))), 1, (-1, 2))


def upright(points: Tensor) -> Tensor:
    """(B, 68, 2) relative to the midpoint of the eyes, levelled, in distances between the eyes."""
    left, right = points[:, LEFT_EYE].mean(1), points[:, RIGHT_EYE].mean(1)
    across = right - left  # (B, 2)
    apart = across.square().sum(1, keepdim=True).clamp(min=NARROWEST**2).sqrt()
    x_axis = (across / apart).unsqueeze(1)
    y_axis = torch.stack([-x_axis[..., 1], x_axis[..., 0]], 2)
    away = points - ((left + right) / 2).unsqueeze(1)
    return torch.stack([(away * x_axis).sum(2), (away * y_axis).sum(2)], 2) / apart.unsqueeze(1)
