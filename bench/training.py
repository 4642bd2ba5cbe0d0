"""How well and how fast training works.

    python bench/training.py overfit            tiny overfits 64 synthetic images: F1, token accuracy, minutes
    python bench/training.py speed              compact and paper: images/s in training and inference, plain and with
                                                torch.compile, and the share of training that waits for data
    python bench/training.py speed compact --device cuda --workers 8

The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring.facts import about, heading, table
from numpy.typing import NDArray

from vlfau.models.bundle import open_bundle
from vlfau.models.data.augmentation import PAPER
from vlfau.models.data.batches import BatchOrder, Loader
from vlfau.models.data.crop_cache import CropCache
from vlfau.models.data.layouts import open_layout
from vlfau.models.data.samples import UNKNOWN, Crops, Points
from vlfau.models.evaluation.run import network_words
from vlfau.models.faces import align
from vlfau.models.metrics import counts, f1, mean
from vlfau.models.networks import NetworkChoice, build, configure
from vlfau.models.networks.base import cost
from vlfau.models.sentences import loading
from vlfau.models.sentences.targets import Texts
from vlfau.models.training.display import Display
from vlfau.models.training.processes import Processes
from vlfau.models.training.recipe import Recipe
from vlfau.models.training.run_folder import RunFolder
from vlfau.models.training.trainer import Losses, Trainer, unit_weights


class Bars:
    """Images that show each active unit as a bright square; no two alike; the same in every epoch."""

    blocks = None
    subject_names = ("nobody",)

    def __init__(self, count: int, side: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.units, self.side = open_bundle("embedded").manifest.units, side
        self.labels = (rng.random((count, len(self.units))) < 0.35).astype(np.int8)
        self.intensity = self.labels.astype(np.float32)
        self.subjects = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def face(self, index: int) -> int:
        return 1

    def points(self, index: int, epoch: int = 0) -> Points:
        return UNKNOWN

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        rng = np.random.default_rng(index)
        picture = rng.integers(0, 70, (self.side, self.side, 3)).astype(np.uint8)
        cell = self.side // 5
        for unit in np.flatnonzero(self.labels[index]):
            top, left = cell * (unit // 5), cell * (unit % 5)
            picture[top : top + cell, left : left + cell] += np.uint8(150)
        return picture


class SameData:
    """Stands in for what `open_data` returns."""

    files: list[str] | None = None

    def __init__(self, train: Bars) -> None:
        self.train, self.test = train, train

    def open(self, files: list[str] | None = None) -> Bars:
        return self.train


def overfit(minutes: float) -> dict[str, Any]:
    """One sentence per state, so that there is one right answer to learn."""
    whole = loading.load().only(open_bundle("embedded").manifest.units)
    units = {
        code: dataclasses.replace(unit, active=unit.active[:1], inactive=unit.inactive[:1], phrases=unit.phrases[:1])
        for code, unit in whole.units.items()
    }
    corpus = dataclasses.replace(whole, units=units, face={count: group[:1] for count, group in whole.face.items()})
    config = configure(NetworkChoice(size="tiny"), tuple(whole.units), corpus, {"grid": 8, "width": 64, "hidden": 96})
    torch.manual_seed(0)
    network = build(config)
    data = Bars(64, network.side)
    sentences = Texts(corpus, tuple(config["vocabulary"]), network.words)
    began = time.monotonic()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Processes("cpu") as group:
        run = RunFolder(Path(folder))
        run.start({"units": list(whole.units), "network": config})
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
            Trainer(network, SameData(data), sentences, recipe, run, group, Display(None, shown=False)).train()  # type: ignore[arg-type]
            result = _accuracy(network, data, sentences) | {"steps": steps}
            result["minutes"] = round((time.monotonic() - began) / 60, 2)
            print(json.dumps(result), flush=True)
            if min(result["f1"], result["token_accuracy"]) >= 0.99:
                break
    return result


@torch.inference_mode()
def _accuracy(network: Any, data: Bars, sentences: Texts) -> dict[str, Any]:
    network.eval()
    crops = np.stack([data.crop(index) for index in range(len(data))])
    states = (network.encode(torch.from_numpy(crops)).log_odds >= 0).numpy()
    batch = {"crops": crops, "labels": data.labels}
    sums = network_words(network, sentences, batch, np.random.default_rng(0))
    right = sums["local_right"] + sums["global_right"]
    network.train()
    return {
        "f1": round(mean(f1(counts(data.labels, states))), 4),
        "token_accuracy": round(right / (sums["local_words"] + sums["global_words"]), 4),
    }


def speed(size: str, batch: int, seconds: float, device: str, workers: int, compiled: bool) -> dict[str, Any]:
    """Images/s of whole training steps and of encoding, eager and compiled, and the cost of loading images."""
    units = open_bundle("embedded").manifest.units
    corpus = loading.load().only(units)
    config = configure(NetworkChoice(size=size), units, corpus, {})
    torch.manual_seed(0)
    network = build(config).to(device).to(memory_format=torch.channels_last)
    sentences = Texts(corpus, tuple(config["vocabulary"]), network.words, bool(config.get("state_conditioned")))
    rates: dict[str, Any] = {"size": size, "batch": batch, **cost(network.cpu())}
    network.to(device)
    with tempfile.TemporaryDirectory() as folder:
        samples = stored_crops(Path(folder), network.side, max(4 * batch, 64))
        order = BatchOrder(samples, batch, shuffle=False)
        weights = {"unit_weights": torch.from_numpy(unit_weights(samples.labels))}
        rng = np.random.default_rng(0)

        def ready(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            whole = tensors | weights | sentences.targets(tensors["labels"].numpy(), rng)
            return {name: tensor.to(device, non_blocking=True) for name, tensor in whole.items()}

        batches = [ready(tensors) for tensors in Loader(samples, order)]
        step = Step(network, device)
        # Sentences differ in length from batch to batch, as in training, which a compiled step must handle.
        turns = itertools.cycle(batches)
        rates["train_images_s"] = batch / fastest(lambda: step(next(turns)), seconds)
        rates["infer_images_s"] = batch / _encoding(network.encode, batches[0], seconds)
        rates |= _waiting(samples, step, ready, batch, workers, seconds, device)
        if compiled:
            rates |= _compiled(network, step, batches, batch, seconds)
    return rates


class Step:
    """One optimiser step, as in the trainer."""

    def __init__(self, network: Any, device: str) -> None:
        self.network, self.device = network, device
        self.module = Losses(network)
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> None:
        self.network.train()
        torch.stack(list(self.module(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad()
        wait(self.device)


def _encoding(encode: Any, batch: dict[str, torch.Tensor], seconds: float) -> float:
    device = batch["crops"].device.type

    def work() -> None:
        with torch.inference_mode():
            encode(batch["crops"])
        wait(device)

    return fastest(work, seconds)


def _compiled(network: Any, step: Step, batches: list[dict[str, torch.Tensor]], batch: int, seconds: float) -> Any:
    """Images/s with the stem compiled, as in `vlfau-train --compile`, and eager in turns; and seconds to compile."""
    plain, compiled = network.stem, torch.compile(network.stem)
    network.stem = compiled
    network.eval()
    try:
        began = time.perf_counter()
        with torch.inference_mode():
            network.encode(batches[0]["crops"])
        rates = {"infer_compile_s": time.perf_counter() - began}
        began = time.perf_counter()
        step(batches[0])
        rates["train_compile_s"] = time.perf_counter() - began
        turns = itertools.cycle(batches)
        took: dict[str, float] = {}
        for _, (name, stem) in itertools.product(range(3), (("", plain), ("_compiled", compiled))):
            network.stem = stem
            for kind in ("train", "infer"):  # a busy moment affects both, and the fastest of three counts
                network.train(kind == "train")
                one = (
                    fastest(lambda: step(next(turns)), seconds / 3)
                    if kind == "train"
                    else _encoding(network.encode, batches[0], seconds / 3)
                )
                took[f"{kind}{name}_images_s"] = min(one, took.get(f"{kind}{name}_images_s", one))
    except Exception as error:  # a missing C++ compiler, or any other error of torch's compiler
        return {"compile": f"not measured: {type(error).__name__}: {str(error).splitlines()[0]}"}
    finally:
        network.stem = plain
    return rates | {name: batch / seconds for name, seconds in took.items()}


def _waiting(
    samples: Any, step: Step, ready: Any, batch: int, workers: int, seconds: float, device: str
) -> dict[str, Any]:
    """Training from stored crops, as `vlfau-train` reads them, and the share of time spent waiting for them."""
    order = BatchOrder(samples, batch, seed=0)
    loader = Loader(samples, order, workers=workers, pin=device.startswith("cuda"))
    start, images = time.perf_counter(), 0
    while images < 2 * batch or time.perf_counter() - start < seconds:
        for tensors in loader:
            if not images:  # starting the workers does not count as waiting
                start, loader.waited_s = time.perf_counter(), 0.0
            step(ready(tensors))
            images += batch
            if images >= 2 * batch and time.perf_counter() - start > seconds:
                break
        order.epoch += 1
    took = time.perf_counter() - start
    return {"workers": workers, "loaded_images_s": images / took, "wait_share": loader.waited_s / took}


def stored_crops(folder: Path, side: int, count: int) -> Crops:
    """Images of 256 px, aligned and stored as the trainer does, with the paper's augmentation."""
    bars, points = Bars(count, 256), (align.TEMPLATE * 256).astype(np.float32)
    lines = ["path,subject," + ",".join(bars.units)]
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), bars.crop(index))
        lines.append(f"{index}.png,s{index % 8}," + ",".join(map(str, bars.labels[index])))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = open_layout(folder)
    cache = CropCache(folder / "crops", side, lambda picture: points)
    return Crops(cache.prepare(table), cache, augmentation=PAPER)


def fastest(work: Any, seconds: float) -> float:
    """Seconds of the fastest call after the first, in about `seconds` and at least two calls."""
    work()
    began = time.perf_counter()
    took: list[float] = []
    while len(took) < 2 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def products(device: str, seconds: float) -> float:
    """GMAC/s of a square matrix product: the ceiling of all other rates."""
    a, b = (torch.randn(1024, 1024, device=device) for _ in range(2))

    def work() -> None:
        a @ b
        wait(device)

    return 1024**3 / 1e9 / fastest(work, seconds)


def speed_table(sizes: list[dict[str, Any]], ceiling: float) -> str:
    """One row per size, with compiled figures in brackets."""
    rates = ["training images/s (compiled)", "inference images/s (compiled)", "share of ceiling", "from disk, images/s"]
    rows = [["size", "batch", "GMAC", *rates, "waiting for data"]]
    for one in sizes:
        share = one["infer_images_s"] * one["gmac"] / ceiling
        pairs = [
            f"{one[f'{kind}_images_s']:.3g} ({one[f'{kind}_compiled_images_s']:.3g})"
            if f"{kind}_compiled_images_s" in one
            else f"{one[f'{kind}_images_s']:.3g}"
            for kind in ("train", "infer")
        ]
        loaded = [f"{one['loaded_images_s']:.3g}", f"{one['wait_share']:.0%}"]
        rows.append([one["size"], str(one["batch"]), f"{one['gmac']:.3g}", *pairs, f"{share:.0%}", *loaded])
    return table(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overfit", "speed"))
    parser.add_argument("sizes", nargs="*", default=["compact", "paper"], help="for speed (default: compact paper)")
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit of the overfit check")
    parser.add_argument("--seconds", type=float, default=10.0, help="per speed measurement")
    parser.add_argument("--batch", type=int, help="default: 16, or 4 for size paper on a CPU")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images (default: 2)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="measure torch.compile, too"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = about("timm", "torchvision")
    print(heading(facts), flush=True)
    if options.what == "overfit":
        result: dict[str, Any] = overfit(options.minutes)
        print(table([("F1", "token accuracy", "steps", "minutes"), tuple(str(value) for value in result.values())]))
    else:
        ceiling = products(options.device, 1.0)
        sizes = []
        for size in options.sizes:
            batch = options.batch or (4 if size.startswith("paper") and options.device == "cpu" else 16)
            work = (size, batch, options.seconds, options.device, options.workers, options.compile)
            sizes.append({name: _rounded(value) for name, value in speed(*work).items()})
            print(json.dumps(sizes[-1]), flush=True)
        print(f"\nA matrix product reaches {ceiling:.0f} GMAC/s on {options.threads} threads: the ceiling.\n")
        print(speed_table(sizes, ceiling), "\n")
        result = {"sizes": sizes, "ceiling_gmac_s": round(ceiling, 1), "threads": options.threads}
        if options.device.startswith("cuda"):
            result["gpu"] = torch.cuda.get_device_name(options.device)
    print(json.dumps({"bench": f"training {options.what}", **facts, **result}))
    return 0


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
