"""ME-GraphAU as a second network behind the same interface: a timm stem, the graph head, no sentences.

The proof that trainer, evaluation, export and bundle know networks by their interface. K is 4 on BP4D and 3 on DISFA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import unknown
from .graph_head import GraphHead, asymmetric_loss
from .network import AUNetwork, Batch, Encoded
from .stem import Stem

KEYS = ("kind", "units", "stem", "stem_options", "side", "width", "neighbours")
NEIGHBOURS = {"BP4D": 4, "DISFA": 3}  # K of the paper
SAFE = 1e-4  # probabilities nearer to 0 or 1 than this have the same log-odds


class GraphAU(AUNetwork):
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

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> GraphAU:
        for key in config:
            if key not in KEYS:
                raise unknown("setting of graphau", key, KEYS)
        return GraphAU(config["units"], **{key: value for key, value in config.items() if key not in ("kind", "units")})

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, A) and the units' vectors (B, A, D)."""
        found: tuple[Tensor, Tensor] = self.head(self.stem(crops)[-1].flatten(2).transpose(1, 2))
        return found

    def unit_vectors(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self(crops)[1]
        return vectors

    def encode(self, crops: Tensor) -> Encoded:
        log_odds = torch.logit(self(crops)[0].float(), eps=SAFE)
        return Encoded(log_odds=log_odds, logits=torch.stack([torch.zeros_like(log_odds), log_odds], 2))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"au": asymmetric_loss(self(batch["crops"])[0], batch["labels"], batch["unit_weights"])}
