"""The visual half: any timm network with four feature stages, and their multi-scale combination (eq. 1).

Axes: B faces, S crop side, g grid side, L = g * g places, d channels.
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
from .pixels import Normalise, cell_centres

STAGES = 4


class Stem(nn.Module):
    """uint8 crops (B, S, S, 3) -> the maps of four stages, fine to coarse, each (B, C, side, side)."""

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        try:
            self.body = timm.create_model(name, pretrained=False, features_only=True, **(options or {}))
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"timm cannot build the stem '{name}' with {dict(options or {})}: {error}.") from None
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels()[-STAGES:])
        if len(self.channels) < STAGES:
            raise UserError(f"The stem '{name}' gives {len(self.channels)} feature stages, {STAGES} are needed.")
        self.name = name
        self.depth_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        self.normalise = Normalise()

    def forward(self, crops: Tensor) -> list[Tensor]:
        x = self.normalise(crops)
        precision = next(self.body.parameters()).dtype
        maps = self.body(x if x.dtype == precision else x.to(precision))[-STAGES:]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.depth_last else list(maps)

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        """Weights from a local file, or from timm if it can get them; returns a description of what was loaded."""
        if path is not None:
            return self._take(load_tensors(path), str(path))
        if not download:
            return "random initialisation, as requested"
        try:
            whole = timm.create_model(self.name, pretrained=True)
        except Exception as error:  # timm lets through whatever its hub, the network or the file raise
            return (
                f"random initialisation: no ImageNet weights available ({type(error).__name__}); "
                "give a file with --weights"
            )
        return self._take(whole.state_dict(), f"timm's {self.name}")

    def _take(self, tensors: Mapping[str, Tensor], source: str) -> str:
        """Loads what fits by name and shape, which classifiers do not. timm writes stages as layers_0 or layers.0."""
        current = self.body.state_dict()
        names = {_plain(name): name for name in current}
        fitting = {}
        for source_name, value in tensors.items():
            name = names.get(_plain(source_name))
            if name is not None and current[name].shape == value.shape:
                fitting[name] = value
        if len(fitting) < len(current) / 2:
            raise UserError(
                f"{source} fits only {len(fitting)} of {len(current)} tensors of the stem '{self.name}'. "
                "Give weights of this very timm network."
            )
        self.body.load_state_dict(fitting, strict=False)
        return f"{len(fitting)} of {len(current)} tensors from {source}"


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
        reduced = [conv(at_grid(m, self.grid)) for conv, m in zip(self.convolutions, maps)]
        joined = torch.cat(reduced, 1).flatten(2).transpose(1, 2)  # (B, L, D)
        mixed: Tensor = self.mix(joined)
        return mixed.transpose(1, 2)


class LastStage(nn.Module):
    """Replaces MSC when it is switched off: the last stage alone, mapped to d."""

    def __init__(self, channels: int, grid: int, width: int) -> None:
        super().__init__()
        self.grid, self.mix = grid, nn.Linear(channels, width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        mixed: Tensor = self.mix(at_grid(maps[-1], self.grid).flatten(2).transpose(1, 2))
        return mixed.transpose(1, 2)


class Locator(nn.Module):
    """The face's points as centres of mass of maps, which makes features move with what moves in the face."""

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
