"""ME-GraphAU as a second network behind the same interface: a timm stem, the graph head, no sentences.

The proof that trainer, evaluation, export and bundle know networks by their interface. K is 4 on BP4D and 3 on DISFA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor

from .errors import unknown
from .graph_head import GraphHead, asymmetric_loss
from .network import AUNetwork, Encoded

KEYS = ("kind", "units", "stem", "stem_options", "side", "width", "neighbours", "drop_path")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pixels of 0..1
SAFE = 1e-4  # probabilities nearer to 0 or 1 than this have the same log-odds


class GraphAU(AUNetwork):
    has_captions, words = False, 0

    def __init__(
        self,
        units: Sequence[str],
        *,
        stem: str,
        stem_options: Mapping[str, Any] | None = None,
        side: int = 224,
        width: int = 512,
        neighbours: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.units, self.side = tuple(units), side
        options = dict(stem_options or {})
        if drop_path:
            options["drop_path_rate"] = drop_path
        self.stem = timm.create_model(stem, pretrained=False, features_only=True, **options)
        channels = self.stem.feature_info.channels()[-1]
        self.channels_last = getattr(self.stem, "output_fmt", None) == "NHWC"
        self.head = GraphHead(len(self.units), channels, width, neighbours)
        self.register_buffer("pixel_mean", 255 * torch.tensor(MEAN), persistent=False)
        self.register_buffer("pixel_deviation", 255 * torch.tensor(DEVIATION), persistent=False)

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> GraphAU:
        for key in config:
            if key not in KEYS:
                raise unknown("setting of graphau", key, KEYS)
        return GraphAU(config["units"], **{key: value for key, value in config.items() if key not in ("kind", "units")})

    def places(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, L, C)"""
        x = ((crops.float() - self.pixel_mean) / self.pixel_deviation).permute(0, 3, 1, 2)
        last = self.stem(x)[-1]
        return last.flatten(1, 2) if self.channels_last else last.flatten(2).transpose(1, 2)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, A) and the units' vectors (B, A, D)."""
        found: tuple[Tensor, Tensor] = self.head(self.places(crops))
        return found

    def encode(self, crops: Tensor) -> Encoded:
        log_odds = torch.logit(self(crops)[0].float(), eps=SAFE)
        return Encoded(log_odds=log_odds, logits=torch.stack([torch.zeros_like(log_odds), log_odds], 2))

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"au": asymmetric_loss(self(batch["crops"])[0], batch["labels"], batch["unit_weights"])}
