"""Batch norms of weights that are a mean: nobody trained with those, so the statistics are taken anew.

A mean of weights makes other activations than any of the networks it comes from, and the mean of their statistics fits
none of them (Izmailov et al. 2018). What is counted is what the engine will see, faces as they are: crops that training
disturbed are wider spread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ..data.samples import Augmented
from .prediction import plain_batches

if TYPE_CHECKING:
    from ..networks.base import AUNetwork

PICTURES = 2000  # spread evenly over the data


def renew_statistics(network: AUNetwork, opened: Callable[[], Augmented], *, batch: int, workers: int) -> None:
    """Opens the data only for a network that has batch norms: reading the labels of many renders takes seconds."""
    if not any(isinstance(part, _BatchNorm) for part in network.modules()):
        return
    device = next(network.parameters()).device
    made = plain_batches(opened().plain(), device, batch=batch, workers=workers, limit=PICTURES)
    faces = (part["crops"][part["face"] == 1] for part in made)
    more_than_one = (crops for crops in faces if len(crops) > 1)  # one has no variance
    update_bn(more_than_one, _Encoder(network).train(network.training))


class _Encoder(nn.Module):
    """`encode` as `forward`, which is what torch calls."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        return self.network.encode(crops).log_odds
