"""Log-odds of many samples by a torch network, in batches. Scores nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.loading import BatchOrder, Loader
from ..data.samples import Samples, Some

if TYPE_CHECKING:
    from ..networks.base import AUNetwork


def plain_batches(
    samples: Samples, device: torch.device, *, batch: int = 64, workers: int = 0, limit: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """In the order of the data set; with a limit, the same evenly spread pictures every time."""
    if limit is not None and limit < len(samples):
        samples = Some(samples, np.linspace(0, len(samples) - 1, limit).astype(np.int64))
    order = BatchOrder(samples, batch, shuffle=False)
    for made in Loader(samples, order, workers=workers, pin=device.type == "cuda"):
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in made.items()}


@torch.inference_mode()
def predict_log_odds(
    network: AUNetwork, samples: Samples, *, batch: int = 64, workers: int = 0, limit: int | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int64]]:
    """Labels (N, A), log-odds (N, A) and subjects (N,)."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    labels, log_odds, subjects = [], [], []
    for made in plain_batches(samples, device, batch=batch, workers=workers, limit=limit):
        log_odds.append(network.encode(made["crops"]).log_odds.float().cpu().numpy())
        labels.append(made["labels"].cpu().numpy())
        subjects.append(made["subject"].cpu().numpy())
    network.train(was_training)
    return np.concatenate(labels), np.concatenate(log_odds), np.concatenate(subjects)
