"""Normalisation of pixels, and the centres of feature-map cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for pixels of 0..1


class Normalise(nn.Module):
    """(B, H, W, 3) RGB of 0..255 -> (B, 3, H, W) by ImageNet's mean and deviation. FP32 in networks of any precision:
    in half precision neighbouring grey values would become one."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.deviation).permute(0, 3, 1, 2)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What `to(device)` and `half()` call: only the device changes."""
        exact = self.mean, self.deviation
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mean, self.deviation = (constant.to(self.mean.device) for constant in exact)
        return self


def cell_centres(cells: int) -> Tensor:
    """(cells * cells, 2) x, y as fractions of the crop, row by row."""
    along = (torch.arange(cells, dtype=torch.float32) + 0.5) / cells
    return torch.stack([along.repeat(cells), along.repeat_interleave(cells)], 1)
