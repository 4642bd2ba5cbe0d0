"""Recomputes batch-norm statistics for averaged weights.

Averaged weights produce other activations than any of the networks they come from, and no average of statistics fits
them (Izmailov et al. 2018). The statistics are taken from plain faces, as the engine sees them: augmented crops have a
larger spread.
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

IMAGES = 2000  # evenly spread over the data


def renew_statistics(network: AUNetwork, open_samples: Callable[[], Augmented], *, batch: int, workers: int) -> None:
    """Opens the samples only if the network has batch norms: reading the labels of many renders takes seconds."""
    if not any(isinstance(part, _BatchNorm) for part in network.modules()):
        return
    device = next(network.parameters()).device
    batches = plain_batches(open_samples().plain(), device, batch=batch, workers=workers, limit=IMAGES)
    faces = (part["crops"][part["face"] == 1] for part in batches)
    several = (crops for crops in faces if len(crops) > 1)  # a single one has no variance
    update_bn(several, _Encoder(network).train(network.training))


class _Encoder(nn.Module):
    """`encode` as `forward`, which torch calls."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        return self.network.encode(crops).log_odds
