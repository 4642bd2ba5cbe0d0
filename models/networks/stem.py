"""The picture side: any timm network with four feature stages, and their multi-scale combination (eq. 1).

Knows no action units. Axes: B faces, S crop side, g grid side, L = g * g places, d channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..faces.align import POINTS
from ..tensors import load_tensors
from .pixels import DEVIATION, MEAN, cell_centres

STAGES = 4


class Stem(nn.Module):
    """uint8 crops (B, S, S, 3) -> the maps of four stages, fine to coarse, each (B, C, side, side)."""

    pixel_mean: Tensor
    pixel_deviation: Tensor

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        try:
            self.body = timm.create_model(name, pretrained=False, features_only=True, **(options or {}))
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"timm cannot make the stem '{name}' with {dict(options or {})}: {error}.") from None
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels()[-STAGES:])
        if len(self.channels) < STAGES:
            raise UserError(f"The stem '{name}' gives {len(self.channels)} feature stages, {STAGES} are needed.")
        self.name = name
        self.depth_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        self.register_buffer("pixel_mean", 255 * torch.tensor(MEAN), persistent=False)
        self.register_buffer("pixel_deviation", 255 * torch.tensor(DEVIATION), persistent=False)

    def forward(self, crops: Tensor) -> list[Tensor]:
        x = ((crops.float() - self.pixel_mean) / self.pixel_deviation).permute(0, 3, 1, 2)
        maps = self.body(x)[-STAGES:]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.depth_last else list(maps)

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        """Weights from a local file, or from timm where it can get them; what was done, in words."""
        if path is not None:
            return self._take(load_tensors(path), str(path))
        if not download:
            return "from scratch, as asked"
        try:
            whole = timm.create_model(self.name, pretrained=True)
        except Exception as error:  # timm lets through whatever its hub, the network or the file raise
            return (
                f"from scratch: no ImageNet weights could be had ({type(error).__name__}); give a file with --weights"
            )
        return self._take(whole.state_dict(), f"timm's {self.name}")

    def _take(self, tensors: Mapping[str, Tensor], source: str) -> str:
        """The tensors whose names and shapes fit; classifiers do not. timm writes stages as layers_0 or layers.0."""
        mine = self.body.state_dict()
        plain = {_plain(name): name for name in mine}
        found = {}
        for name, value in tensors.items():
            own = plain.get(_plain(name))
            if own is not None and mine[own].shape == value.shape:
                found[own] = value
        if len(found) < len(mine) / 2:
            raise UserError(
                f"{source} fits only {len(found)} of {len(mine)} tensors of the stem '{self.name}'. "
                "Give weights of this very timm network."
            )
        self.body.load_state_dict(found, strict=False)
        return f"{len(found)} of {len(mine)} tensors from {source}"


def _plain(name: str) -> str:
    return name.removeprefix("model.").removeprefix("body.").replace(".", "_")


class MultiScale(nn.Module):
    """MSC: one 3x3 convolution per stage to the same width, all brought to g x g, concatenated, mapped to d (eq. 1).

    The maps are pooled before the convolution: a quarter of its cost at each halving, and no worse in training.
    """

    def __init__(self, channels: tuple[int, ...], grid: int, each: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.convolutions = nn.ModuleList(nn.Conv2d(count, each, 3, padding=1) for count in channels)
        self.mix = nn.Linear(each * len(channels), width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """-> (B, d, L)"""
        found = [conv(at_grid(m, self.grid)) for conv, m in zip(self.convolutions, maps)]
        joined = torch.cat(found, 1).flatten(2).transpose(1, 2)  # (B, L, D)
        mixed: Tensor = self.mix(joined)
        return mixed.transpose(1, 2)


class LastStage(nn.Module):
    """In the place of MSC when it is switched off: the last stage alone, mapped to d."""

    def __init__(self, channels: int, grid: int, width: int) -> None:
        super().__init__()
        self.grid, self.mix = grid, nn.Linear(channels, width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        mixed: Tensor = self.mix(at_grid(maps[-1], self.grid).flatten(2).transpose(1, 2))
        return mixed.transpose(1, 2)


class Locator(nn.Module):
    """The face's points as centres of mass of maps, in training alone: what moves is seen where it moves."""

    centres: Tensor

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.maps = nn.Linear(width, POINTS)
        self.register_buffer("centres", cell_centres(grid), persistent=False)

    def forward(self, visual: Tensor) -> Tensor:
        """(B, d, L) -> (B, 68, 2) in crop sides"""
        weights: Tensor = self.maps(visual.transpose(1, 2)).softmax(1)  # (B, L, 68)
        return weights.transpose(1, 2) @ self.centres


def at_grid(x: Tensor, grid: int) -> Tensor:
    """(B, C, h, h) -> (B, C, g, g) by mean pooling of whole cells, or by enlarging."""
    side = x.shape[-1]
    if side == grid:
        return x
    if side % grid == 0:
        return F.avg_pool2d(x, side // grid)
    return F.interpolate(x, size=(grid, grid), mode="bilinear", align_corners=False)
