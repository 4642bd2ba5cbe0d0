"""Normalisation of pixels, and the centres of feature-map cells."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_centres(cells: int) -> Tensor:
    """(cells * cells, 2) x, y as fractions of the crop, row by row."""
    along = (torch.arange(cells, dtype=torch.float32) + 0.5) / cells
    return torch.stack([along.repeat(cells), along.repeat_interleave(cells)], 1)


MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for pixels of 0..1
