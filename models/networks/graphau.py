"""ME-GraphAU: a timm stem and the graph head, no sentences. K is 4 on BP4D and 3 on DISFA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import unknown
from .base import AUNetwork, Batch, Encoded
from .stem import Stem

KEYS = ("kind", "units", "stem", "stem_options", "side", "width", "neighbours")
NEIGHBOURS = {"BP4D": 4, "DISFA": 3}  # K of the paper
SAFE = 1e-4  # probabilities are clamped to this distance from 0 and 1


class GraphAU(AUNetwork):
    SETTINGS: ClassVar[frozenset[str]] = frozenset(KEYS) - {"kind", "units"}

    def __init__(
        self,
        units: Sequence[str],
        *,
        stem: str = "swin_base_patch4_window7_224",
        stem_options: Mapping[str, Any] | None = None,
        side: int = 224,
        width: int = 512,
        neighbours: int = 4,
    ) -> None:
        super().__init__()
        self.units, self.side = tuple(units), side
        self.stem = Stem(stem, stem_options)
        self.head = GraphHead(len(self.units), self.stem.channels[-1], width, neighbours)

    @classmethod
    def suited(cls, size: Mapping[str, Any], dataset: str, points: bool) -> dict[str, Any]:
        return {"neighbours": NEIGHBOURS[dataset], **size} if dataset in NEIGHBOURS else dict(size)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GraphAU:
        for key in config:
            if key not in KEYS:
                raise unknown("setting of graphau", key, KEYS)
        return GraphAU(config["units"], **{key: value for key, value in config.items() if key not in ("kind", "units")})

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, A) and the units' vectors (B, A, D)."""
        outputs: tuple[Tensor, Tensor] = self.head(self.stem(crops)[-1].flatten(2).transpose(1, 2))
        return outputs

    def unit_vectors(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self(crops)[1]
        return vectors

    def encode(self, crops: Tensor) -> Encoded:
        log_odds = torch.logit(self(crops)[0].float(), eps=SAFE)
        return Encoded(log_odds=log_odds, logits=torch.stack([torch.zeros_like(log_odds), log_odds], 2))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"au": asymmetric_loss(self(batch["crops"])[0], batch["labels"], batch["unit_weights"])}

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        return self.stem.load_imagenet(path, download)

    def compile_encoder(self) -> None:
        self.stem.compile()


class UnitBlocks(nn.Module):
    """One linear layer, batch norm and ReLU per unit, as one grouped operation; then the mean over the places."""

    def __init__(self, units: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(units, width, width))
        self.norm = nn.BatchNorm1d(units * width)
        nn.init.normal_(self.weight, std=(2.0 / width) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, A, D)"""
        units, width = self.weight.shape[:2]
        weight = self.weight.permute(2, 0, 1).reshape(width, units * width)  # no bias: the norm would remove it
        y = F.relu(self.norm((x @ weight).transpose(1, 2)))  # (B, A * D, L)
        return y.mean(2).view(-1, units, width)


class NearestUnits(nn.Module):
    """One graph layer over the units of a face: each is joined to the K units whose vectors are most similar to its."""

    def __init__(self, units: int, width: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = min(neighbours, units)
        self.own, self.other = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(units)

    def forward(self, x: Tensor) -> Tensor:
        """(B, A, D) -> the same"""
        scores = x @ x.transpose(1, 2)  # (B, A, A)
        least = scores.topk(self.neighbours, dim=2).values[:, :, -1:]
        edges = (scores >= least).to(x.dtype)
        degree = edges.sum(2).rsqrt()  # at least K edges, so never zero
        edges = degree.unsqueeze(2) * edges * degree.unsqueeze(1)
        return F.relu(x + self.norm(edges @ self.other(x) + self.own(x)))


class GraphHead(nn.Module):
    def __init__(self, units: int, inside: int, width: int, neighbours: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(inside, width)
        self.reduce_norm = nn.BatchNorm1d(width)
        self.blocks = UnitBlocks(units, width)
        self.graph = NearestUnits(units, width, neighbours)
        self.centres = nn.Parameter(torch.empty(units, width))
        nn.init.xavier_uniform_(self.centres)

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, C) -> probabilities (B, A), vectors of the units (B, A, D)"""
        x = F.relu(self.reduce_norm(self.reduce(places).transpose(1, 2))).transpose(1, 2)
        vectors = self.graph(self.blocks(x))
        # Neither side is negative, so the cosine lies in 0..1 and serves as the probability.
        centres = F.normalize(F.relu(self.centres), dim=1, eps=1e-6)
        return (F.normalize(vectors, dim=2, eps=1e-6) * centres).sum(2), vectors


def asymmetric_loss(probabilities: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The weighted asymmetric loss: negatives count in proportion to p; labels (B, A) of -1 are ignored.

    `weights` (A,) sum to one; the paper's w_i are A times that.
    """
    p = probabilities.float().clamp(1e-6, 1 - 1e-6)
    yes = (labels == 1).float() * p.log()
    no = (labels == 0).float() * p * (1 - p).log()
    known = (labels >= 0).sum().clamp(min=1)
    return -((yes + no) * weights * labels.shape[1]).sum() / known
