"""The interface that every AU network offers to trainer, evaluation and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from .stem import Stem

if TYPE_CHECKING:
    from typing_extensions import Self


SENTENCES = ("describe_unit", "describe_face", "judge_face", "unit_state", "face_state")


AFTER = (*SENTENCES, "judge_points")  # what stands on the encoder's features and leaves them alone


Batch = Mapping[str, Tensor]


Memory = tuple[Tensor, Tensor, Tensor]  # visual (B, d, L), channel (B, A, d), spatial (B, A, L)


class Encoded(NamedTuple):
    log_odds: Tensor  # (B, A) z1 - z0, of both classifiers where there are two
    logits: Tensor  # (B, A, 2) by what units look like
    visual: Tensor | None = None  # (B, d, L)
    channel: Tensor | None = None  # (B, A, d)
    spatial: Tensor | None = None  # (B, A, L)
    points: Tensor | None = None  # (B, 68, 2) in crop sides
    judged: Tensor | None = None  # (B, A, 2) by where the points lie

    @property
    def memory(self) -> Memory:
        """What sentences are made from."""
        if self.visual is None or self.channel is None or self.spatial is None:
            raise UserError("This network keeps no visual memory, so it has no sentences. Train one with captions.")
        return self.visual, self.channel, self.spatial


class AUNetwork(nn.Module):
    """What trainer, evaluation and export know of a network. Without captions nobody calls the methods of words."""

    units: tuple[str, ...]
    side: int
    words: int = 0  # T; 0 without captions
    stem: Stem
    encoder_held = False

    def hold_encoder(self) -> None:
        """From now on only what follows learns: the encoder keeps its weights and the statistics of its norms."""
        self.encoder_held = True
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(AFTER))
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError("--hold-encoder trains what follows the encoder, and here nothing does. Leave it away.")
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.encoder_held:
            for name, part in self.named_children():
                part.train(mode and name.startswith(AFTER))
        return self

    @property
    def has_captions(self) -> bool:
        return self.words > 0

    def encode(self, crops: Tensor) -> Encoded:
        """(B, S, S, 3) uint8 RGB"""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Names -> weighted terms, whose sum is the loss. The batch: crops, labels, intensity, unit_weights, and with
        captions local_tokens (B, A, T), global_tokens (B, T), active (B, A)."""
        raise NotImplementedError

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        """ImageNet weights for the stem, from a file or from timm; what was done, in words."""
        return self.stem.load_imagenet(path, download)

    def unit_vectors(self, crops: Tensor) -> Tensor:
        """One feature vector per unit, (B, A, d), for maps of what the network tells apart."""
        raise NotImplementedError

    def caption(self, memory: Memory, active: Tensor, rows: Tensor, beam: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Sentences, greedy or the best of a beam: local tokens (R, T), global tokens (B, T), and the global head's
        log-odds (B, A)."""
        raise NotImplementedError

    def word_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Words under teacher forcing: "local" (B, A, T, Voc), "global" (B, T, Voc)."""
        raise NotImplementedError


def cost(network: AUNetwork) -> dict[str, float]:
    """Parameters of the encoder and of the whole, and multiply-adds of encoding one face, in units and in 1e9."""
    from torch.utils.flop_counter import FlopCounterMode

    crops = torch.zeros((1, network.side, network.side, 3), dtype=torch.uint8)
    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.encode(crops)
    network.train(was_training)
    captions = sum(p.numel() for name, p in network.named_parameters() if name.startswith(SENTENCES))
    whole = sum(p.numel() for p in network.parameters())
    return {
        "parameters": whole - captions,
        "parameters_with_captions": whole,
        "gmac": counter.get_total_flops() / 2e9,
    }
