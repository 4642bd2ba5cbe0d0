"""The stored crops and answers of a bundle's self-test."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..networks.base import AUNetwork

CROPS = 8  # of the self-test


def structured_crops(count: int, side: int) -> NDArray[np.uint8]:
    """(count, S, S, 3): noise, edges, gradients, flat black and white, and face-like ovals. Always the same."""
    rng = np.random.default_rng(20240)
    y, x = np.mgrid[0:side, 0:side] / side
    crops = []
    for number in range(count):
        kind = number % 5
        if kind == 0:
            small = rng.integers(0, 256, (7, 7, 3)).astype(np.uint8)
            image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        elif kind == 1:
            image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        elif kind == 2:
            bars = np.sign(np.sin((x * rng.uniform(5, 30) + y * rng.uniform(-20, 20)) * 2))
            image = np.repeat((127.5 + 127.5 * bars)[..., None], 3, 2).astype(np.uint8)
        elif kind == 3:
            ramp = np.stack([x, y, (x + y) / 2], 2) * rng.uniform(100, 255)
            image = ramp.astype(np.uint8)
        else:
            image = np.full((side, side, 3), 90, np.uint8)
            centre = (side // 2, side // 2)
            cv2.ellipse(image, centre, (int(side * 0.36), int(side * 0.46)), 0, 0, 360, (205, 160, 140), -1)
            for place in (0.33, 0.67):
                cv2.circle(image, (int(side * place), int(side * 0.42)), max(1, side // 16), (40, 30, 30), -1)
            cv2.ellipse(image, (side // 2, int(side * 0.7)), (side // 6, side // 14), 0, 0, 180, (150, 50, 60), -1)
        crops.append(image)
    return np.stack(crops)


def selftest(network: AUNetwork) -> dict[str, NDArray[Any]]:
    """crops, log_odds; with captions active, and the tokens of all units of all faces in order."""
    crops = structured_crops(CROPS, network.side)
    with torch.inference_mode():
        encoded = network.encode(torch.from_numpy(crops))
        stored = {"crops": crops, "log_odds": encoded.log_odds.float().numpy()}
        if network.has_captions:
            active = (encoded.log_odds >= 0).float()
            rows = torch.ones_like(active).nonzero()
            local, whole, _ = network.caption(encoded.memory, active, rows)
            stored |= {"active": active.numpy(), "local_tokens": local.numpy(), "global_tokens": whole.numpy()}
    return stored
