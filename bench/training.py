"""Figures of training, each printed by one command.

python bench/training.py overfit            tiny learns 64 synthetic pictures by heart: F1, token accuracy, minutes
python bench/training.py speed compact      pictures a second, training and inference
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlfau.models import texts
from vlfau.models.evaluate_run import network_words
from vlfau.models.metrics import counts, f1, mean
from vlfau.models.networks import NetworkChoice, build, configure
from vlfau.models.processes import Processes
from vlfau.models.progress import Display
from vlfau.models.recipe import Recipe
from vlfau.models.run_folder import RunFolder, revision
from vlfau.models.training import Trainer, unit_weights
from vlfau.models.training_texts import Texts

UNITS = tuple(f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43))


class Bars:
    """Pictures that show each active unit as a bright bar; no two alike; the same in every epoch."""

    blocks = None
    subject_names = ("nobody",)

    def __init__(self, count: int, side: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.units, self.side = UNITS, side
        self.labels = (rng.random((count, len(UNITS))) < 0.35).astype(np.int8)
        self.intensity = self.labels.astype(np.float32)
        self.subjects = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def face(self, index: int) -> int:
        return 1

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        rng = np.random.default_rng(index)
        picture = rng.integers(0, 70, (self.side, self.side, 3)).astype(np.uint8)
        cell = self.side // 5
        for unit in np.flatnonzero(self.labels[index]):
            top, left = cell * (unit // 5), cell * (unit % 5)
            picture[top : top + cell, left : left + cell] += np.uint8(150)
        return picture


class OneOf:
    """What `training_data.open_data` gives."""

    files: list[str] | None = None

    def __init__(self, train: Bars) -> None:
        self.train, self.test = train, train

    def open(self, files: list[str] | None = None) -> Bars:
        return self.train


def overfit(minutes: float) -> dict[str, Any]:
    """One sentence per state, so that there is one right answer to learn."""
    whole = texts.load().only(UNITS)
    units = {
        code: dataclasses.replace(unit, active=unit.active[:1], inactive=unit.inactive[:1], phrases=unit.phrases[:1])
        for code, unit in whole.units.items()
    }
    corpus = dataclasses.replace(whole, units=units, face={count: group[:1] for count, group in whole.face.items()})
    config = configure(NetworkChoice(size="tiny"), UNITS, corpus, {"grid": 8, "width": 64, "hidden": 96})
    torch.manual_seed(0)
    network = build(config)
    data = Bars(64, network.side)
    sentences = Texts(corpus, tuple(config["vocabulary"]), network.words)
    began = time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Processes("cpu") as group:
        run = RunFolder(Path(folder))
        run.start({"units": list(UNITS), "network": config})
        steps = 0
        while (time.monotonic() - began) / 60 < minutes:
            steps += 100
            recipe = Recipe(
                steps=steps,
                batch=16,
                learning_rate=3e-3,
                schedule="constant",
                workers=0,
                clip=1.0,
                weight_decay=0.0,
                device="cpu",
            )
            Trainer(network, OneOf(data), sentences, recipe, run, group, Display(None, shown=False)).train()  # type: ignore[arg-type]
            found = _by_heart(network, config, data, sentences) | {"steps": steps}
            found["minutes"] = round((time.monotonic() - began) / 60, 2)
            print(json.dumps(found), flush=True)
            if min(found["f1"], found["token_accuracy"]) >= 0.99:
                break
    return found


@torch.inference_mode()
def _by_heart(network: Any, config: dict[str, Any], data: Bars, sentences: Texts) -> dict[str, Any]:
    network.eval()
    crops = np.stack([data.crop(index) for index in range(len(data))])
    states = (network.encode(torch.from_numpy(crops)).log_odds >= 0).numpy()
    made = {"crops": crops, "labels": data.labels}
    sums = network_words(network, config, made, np.random.default_rng(0), sentences)
    right = sums["local_right"] + sums["global_right"]
    network.train()
    return {
        "f1": round(mean(f1(counts(data.labels, states))), 4),
        "token_accuracy": round(right / (sums["local_words"] + sums["global_words"]), 4),
    }


def speed(size: str, batch: int, seconds: float, device: str) -> dict[str, Any]:
    """Pictures a second of whole training steps and of encoding, on pictures that are ready in memory."""
    corpus = texts.load().only(UNITS)
    config = configure(NetworkChoice(size=size), UNITS, corpus, {})
    network = build(config).to(device).to(memory_format=torch.channels_last)
    sentences = Texts(corpus, tuple(config["vocabulary"]), network.words, bool(config.get("state_conditioned")))
    data = Bars(batch, network.side)
    made = {
        "crops": torch.from_numpy(np.stack([data.crop(index) for index in range(batch)])),
        "labels": torch.from_numpy(data.labels),
        "intensity": torch.from_numpy(data.intensity),
        "unit_weights": torch.from_numpy(unit_weights(data.labels)),
    } | sentences.targets(data.labels, np.random.default_rng(0))
    made = {name: tensor.to(device) for name, tensor in made.items()}
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)

    def train() -> None:
        torch.stack(list(network.losses(made).values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()

    def infer() -> None:
        with torch.inference_mode():
            network.encode(made["crops"])

    result = {"size": size, "device": device, "threads": torch.get_num_threads(), "batch": batch}
    for name, work in (("train_images_s", train), ("infer_images_s", infer)):
        network.train(name.startswith("train"))
        result[name] = round(batch / min(_timed(work, seconds, device)), 1)
    return result


def _timed(work: Any, seconds: float, device: str) -> Iterator[float]:
    """Seconds of each call after the first, for about `seconds` and at least twice."""
    work()
    began = time.perf_counter()
    done = 0
    while done < 2 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        done += 1
        yield time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overfit", "speed"))
    parser.add_argument("size", nargs="?", default="compact")
    parser.add_argument("--minutes", type=float, default=10.0, help="give up the overfit check after this long")
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement of speed")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "overfit":
        result = overfit(options.minutes)
    else:
        result = speed(options.size, options.batch, options.seconds, options.device)
    print(json.dumps({"bench": options.what, "commit": revision(), **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
