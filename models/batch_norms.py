"""Batch norms of weights that are a mean: nobody trained with those, so the statistics are taken anew.

A mean of weights makes other activations than any of the networks it comes from, and the mean of their statistics fits
none of them (Izmailov et al. 2018). What is counted is what the engine will see, faces as they are: crops that training
disturbed are wider spread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from .dataset import Samples
from .prediction import plain_batches

if TYPE_CHECKING:
    from .network import AUNetwork

PICTURES = 2000  # spread evenly over the data


def renew_statistics(network: AUNetwork, samples: Samples, *, batch: int, workers: int) -> None:
    """`samples` without augmentation. A network without batch norms stays as it is, at no cost."""
    device = next(network.parameters()).device
    made = plain_batches(samples, device, batch=batch, workers=workers, limit=PICTURES)
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
