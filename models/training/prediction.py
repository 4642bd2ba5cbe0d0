"""Log-odds of many samples, predicted by a torch network in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.batches import BatchOrder, Loader
from ..data.samples import Samples, spread

if TYPE_CHECKING:
    from ..networks.base import AUNetwork


def plain_batches(
    samples: Samples, device: torch.device, *, batch: int = 64, workers: int = 0, limit: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """In the order of the data set; with a limit, the same evenly spread images every time."""
    samples = spread(samples, limit)
    order = BatchOrder(samples, batch, shuffle=False)
    for part in Loader(samples, order, workers=workers, pin=device.type == "cuda"):
        yield {name: tensor.to(device, non_blocking=True) for name, tensor in part.items()}


@torch.inference_mode()
def predict_log_odds(
    network: AUNetwork, samples: Samples, *, batch: int = 64, workers: int = 0, limit: int | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int64]]:
    """Labels (N, A), log-odds (N, A) and subjects (N,)."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    labels, log_odds, subjects = [], [], []
    for part in plain_batches(samples, device, batch=batch, workers=workers, limit=limit):
        log_odds.append(network.encode(part["crops"]).log_odds.float().cpu().numpy())
        labels.append(part["labels"].cpu().numpy())
        subjects.append(part["subject"].cpu().numpy())
    network.train(was_training)
    return np.concatenate(labels), np.concatenate(log_odds), np.concatenate(subjects)
