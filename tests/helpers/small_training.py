"""A training that takes a second: the stand-in for network and data in the tests of the loop.

The network has dropout and batch statistics, which reveal lost random state or buffers; the images show their labels,
which reveals learning; crops differ between epochs, which reveals a wrong index.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vlfau.models.data.samples import UNKNOWN, Points
from vlfau.models.training.display import Display
from vlfau.models.training.position import Position
from vlfau.models.training.processes import Processes
from vlfau.models.training.recipe import Recipe
from vlfau.models.training.run_folder import RunFolder
from vlfau.models.training.trainer import Trainer

UNITS = ("AU01", "AU12")


class Encoded:
    def __init__(self, log_odds: Tensor) -> None:
        self.log_odds = log_odds


class SmallNetwork(nn.Module):
    has_captions, words, side = False, 0, 32

    def __init__(self, dropout: float = 0.1, norm: bool = True) -> None:
        super().__init__()
        self.units = UNITS
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)
        )
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(16 * 8 * 8, len(UNITS))

    def encode(self, crops: Tensor) -> Encoded:
        x = crops.permute(0, 3, 1, 2).float() / 255 - 0.5
        return Encoded(self.head(self.drop(F.relu(self.stem(x)).flatten(1))))

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        log_odds, labels = self.encode(batch["crops"]).log_odds, batch["labels"]
        known = (labels >= 0).float()
        each = F.binary_cross_entropy_with_logits(log_odds.float(), labels.clamp(min=0).float(), reduction="none")
        return {"au": (each * known * batch["unit_weights"]).sum() / known.sum()}


class SmallData:
    def __init__(self, count: int, seed: int = 0, unknown: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.units = UNITS
        self.labels = rng.integers(-1 if unknown else 0, 2, (count, len(UNITS))).astype(np.int8)
        self.intensity = self.labels.astype(np.float32)
        self.subjects = (np.arange(count) % 5).astype(np.int64)
        self.subject_names = tuple("abcde")
        self.descriptions: tuple[str, ...] = ()
        self.blocks = None
        self.files: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def face(self, index: int) -> int:
        return 1

    def plain(self) -> SmallData:
        return self

    def points(self, index: int, epoch: int = 0) -> Points:
        return UNKNOWN

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        crop = np.random.default_rng((epoch, index)).integers(0, 60, (32, 32, 3)).astype(np.uint8)
        crop[:16] += np.uint8(120 * max(int(self.labels[index, 0]), 0))
        crop[16:] += np.uint8(120 * max(int(self.labels[index, 1]), 0))
        return crop


class Opened:
    """What `open_data` returns, without files."""

    def __init__(self, train: Any = None, test: Any = None) -> None:
        self.train = SmallData(120) if train is None else train
        self.test = SmallData(40, seed=1) if test is None else test

    def open(self, files: list[str] | None = None) -> Any:
        return self.train


def recipe(**changes: Any) -> Recipe:
    usual: dict[str, Any] = {
        "epochs": 2,
        "batch": 20,
        "log_every": 2,
        "learning_rate": 3e-3,
        "workers": 0,
        "device": "cpu",
    }
    return Recipe(**(usual | changes))


def run_training(
    folder: Path, how: Recipe, *, network: Any = None, data: Any = None, units: tuple[str, ...] = UNITS
) -> tuple[Any, Position]:
    """Trains the stand-in into `folder`; the network and its final position."""
    torch.manual_seed(how.seed)
    network = SmallNetwork() if network is None else network
    opened: Any = data or Opened()
    run = RunFolder(folder)
    with Processes("cpu") as group:
        if group.first:
            run.start({"units": list(units), "network": {"kind": "small"}})
        group.wait()
        display = Display(None, shown=False)
        return network, Trainer(network, opened, None, how, run, group, display).train()
