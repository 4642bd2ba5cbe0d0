"""The interface of a network: all that trainer, evaluation, export and runtimes know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..bundle import MEMORY
from ..errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

    from .captioner import SentenceDecoder

Batch = Mapping[str, Tensor]
Memory = tuple[Tensor, Tensor, Tensor]  # visual (B, d, L), channel (B, A, d), spatial (B, A, L), as `MEMORY` names them


class Encoded(NamedTuple):
    log_odds: Tensor  # (B, A) z1 - z0, of both classifiers where there are two
    logits: Tensor  # (B, A, 2) by what units look like
    visual: Tensor | None = None  # (B, d, L)
    channel: Tensor | None = None  # (B, A, d)
    spatial: Tensor | None = None  # (B, A, L)
    points: Tensor | None = None  # (B, 68, 2) in crop sides
    point_logits: Tensor | None = None  # (B, A, 2) by where the points lie

    @property
    def memory(self) -> Memory:
        """What sentences are made from."""
        if self.visual is None or self.channel is None or self.spatial is None:
            raise UserError("This network keeps no visual memory, so it has no sentences. Train one with captions.")
        return self.visual, self.channel, self.spatial


class Speaker(NamedTuple):
    """A decoder with what it describes in R rows."""

    decoder: SentenceDecoder
    places: Tensor  # (R, L, d)
    states: Tensor | None  # (R, h) encodes the decided states; None where sentences do not depend on them


class AUNetwork(nn.Module):
    """A network of one kind. Methods about sentences are only called if `has_captions`."""

    # of the kind
    SETTINGS: ClassVar[frozenset[str]] = frozenset()  # the settings that it takes from [network]
    SIDE: ClassVar[int] = 224  # crop side in pixels where no setting says otherwise
    SPEAKS: ClassVar[bool] = False  # can learn sentences
    SENTENCE_PARTS: ClassVar[tuple[str, ...]] = ()  # its children and parameters that only sentences need
    AFTER_ENCODER: ClassVar[tuple[str, ...]] = ()  # those that use the encoder's features and do not change them

    # of one network
    units: tuple[str, ...]
    side: int
    words: int = 0  # T; 0 without captions
    state_conditioned: bool = False  # sentences depend on the decided states
    encoder_held = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AUNetwork:
        """The network of a configuration: "kind", "units", SETTINGS, and "vocabulary" if it SPEAKS."""
        raise NotImplementedError

    @classmethod
    def suited(cls, size: Mapping[str, Any], dataset: str, points: bool) -> dict[str, Any]:
        """A named size, as a data set needs it; `points`: the face's 68 points are known or were learned before."""
        return dict(size)

    @property
    def has_captions(self) -> bool:
        return self.words > 0

    # ---- states

    def encode(self, crops: Tensor) -> Encoded:
        """(B, S, S, 3) uint8 RGB"""
        raise NotImplementedError

    def unit_vectors(self, crops: Tensor) -> Tensor:
        """One feature vector per unit, (B, A, d), for maps of what the network distinguishes."""
        raise NotImplementedError

    # ---- training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Names -> weighted terms, whose sum is the loss. The batch: crops, labels, intensity, unit_weights, and with
        captions local_tokens (B, A, T), global_tokens (B, T), active (B, A)."""
        raise NotImplementedError

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        """Starts from ImageNet weights, of a file or of timm; returns a description of what was loaded."""
        raise NotImplementedError

    def compile_encoder(self) -> None:
        """Compiles, in place, what costs most and has the same shape in every step."""
        raise NotImplementedError

    def hold_encoder(self) -> None:
        """Trains only AFTER_ENCODER from here on: weights and batch-norm statistics of the rest are frozen."""
        self.encoder_held = True
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(self.AFTER_ENCODER))
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError(
                "--hold-encoder trains only what follows the encoder, and this network has nothing there. Leave it out."
            )
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.encoder_held:
            for name, part in self.named_children():
                part.train(mode and name.startswith(self.AFTER_ENCODER))
        return self

    # ---- sentences

    def caption(self, memory: Memory, active: Tensor, rows: Tensor, beam: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Sentences, greedy or the best of a beam: local tokens (R, T), global tokens (B, T), and the global head's
        log-odds (B, A)."""
        raise NotImplementedError

    def speakers(self, memory: Memory, active: Tensor, rows: Tensor) -> dict[str, Speaker]:
        """For "local" tokens (of `rows`) and "global" tokens (of faces) the decoder, if it can be run step by step;
        runtimes get the tokens of other networks from `caption`."""
        return {}

    def word_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Words under teacher forcing: "local" (B, A, T, Voc), "global" (B, T, Voc)."""
        raise NotImplementedError


class EncoderOutputs(nn.Module):
    """`encode` as a module that returns a tuple of tensors, as graphs need it: log-odds, with captions the memory."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    @property
    def names(self) -> tuple[str, ...]:
        return ("log_odds", *(MEMORY if self.network.has_captions else ()))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(crops)
        return (encoded.log_odds.float(), *(encoded.memory if self.network.has_captions else ()))


def cost(network: AUNetwork) -> dict[str, float]:
    """Parameters of the encoder and of the whole, and multiply-adds of encoding one face, in units and in 1e9."""
    from torch.utils.flop_counter import FlopCounterMode

    crops = torch.zeros((1, network.side, network.side, 3), dtype=torch.uint8)
    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.encode(crops)
    network.train(was_training)
    captions = sum(p.numel() for name, p in network.named_parameters() if name.startswith(network.SENTENCE_PARTS))
    whole = sum(p.numel() for p in network.parameters())
    return {
        "parameters": whole - captions,
        "parameters_with_captions": whole,
        "gmac": counter.get_total_flops() / 2e9,
    }
