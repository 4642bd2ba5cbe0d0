"""A network of size `tiny` with four units, and batches that it can be trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vlfau.models.networks import NetworkChoice, build, configure
from vlfau.models.networks.base import AUNetwork
from vlfau.models.sentences import loading
from vlfau.models.sentences.targets import Texts

UNITS = ("AU01", "AU04", "AU12", "AU25")


def tiny(size: str = "tiny", **changes: Any) -> tuple[AUNetwork, dict[str, Any]]:
    corpus = loading.load().only(UNITS)
    config = configure(NetworkChoice(size=size), UNITS, corpus, changes)
    torch.manual_seed(0)
    return build(config), config


def batch(config: dict[str, Any], network: AUNetwork, count: int = 4, unknown: bool = True) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1 if unknown else 0, 2, (count, len(UNITS))).astype(np.int8)
    tensors = {
        "crops": torch.from_numpy(rng.integers(0, 256, (count, network.side, network.side, 3)).astype(np.uint8)),
        "labels": torch.from_numpy(labels),
        "intensity": torch.from_numpy(np.where(labels < 0, np.nan, labels).astype(np.float32)),
        "points": torch.from_numpy(rng.uniform(0.1, 0.9, (count, 68, 2)).astype(np.float32)),
        "unit_weights": torch.full((len(UNITS),), 1 / len(UNITS)),
    }
    if network.has_captions:
        sentences = Texts(loading.load().only(UNITS), config["vocabulary"], network.words, network.state_conditioned)
        tensors |= sentences.targets(labels, rng)
    return tensors
