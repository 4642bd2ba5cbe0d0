"""Makes the shards that are missing, in one process or several, and shows how far it is. Reads no flags."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..data.shards import shard_path
from ..errors import UserError
from ..sentences.composing import compose
from .assets import Assets, load_assets
from .picture import PICTURES_PER_PERSON, Picture, make_picture
from .shards import missing_shards, write_shard
from .units import UNITS

RECIPE = "10"  # changes whenever the same seed would give another picture


@dataclass(frozen=True)
class Order:
    """What is to be made: everything a shard depends on, and where it goes."""

    assets: Path
    output: Path
    count: int
    seed: int
    shard_size: int

    def __post_init__(self) -> None:
        if self.shard_size < 1 or self.shard_size % PICTURES_PER_PERSON:
            raise UserError(
                f"--shard-size {self.shard_size}: a shard holds whole people. Give a multiple of {PICTURES_PER_PERSON}."
            )


def synthesize(order: Order, workers: int = 0) -> None:
    """Makes the shards that are missing, each in one process: a shard depends on seed and index only."""
    assets = load_assets(order.assets)
    order.output.mkdir(parents=True, exist_ok=True)
    size = order.shard_size
    shards = -(-order.count // size)
    todo = missing_shards(order.output, shards, size, order.seed, RECIPE)
    workers = min(workers or os.cpu_count() or 1, max(len(todo), 1))
    bar = Bar(shards * size, (shards - len(todo)) * size)
    if workers == 1:
        cv2.setNumThreads(1)
        for index in todo:
            write_one(assets, order, index, bar)
    else:
        # Spawned, not forked: a fork would copy OpenCV's threads in an undefined state.
        context = multiprocessing.get_context("spawn")
        with context.Pool(workers, _start_worker, (order.assets,)) as pool:
            for _ in pool.imap_unordered(_work, [(order, index) for index in todo]):
                bar.add(size)
    bar.close()


def write_one(assets: Assets, order: Order, index: int, bar: Bar | None = None) -> None:
    pictures: list[Picture] = []
    for number in range(index * order.shard_size, (index + 1) * order.shard_size):
        pictures.append(make_picture(assets, order.seed, number)[0])
        if bar:
            bar.add(1)
    rng = np.random.default_rng([order.seed, 3, index])
    texts = [_sentence(picture, rng) for picture in pictures]
    write_shard(shard_path(order.output, index), pictures, texts, order.seed, RECIPE)


def _sentence(picture: Picture, rng: np.random.Generator) -> str:
    if not picture.face:
        return ""
    return compose([name for name, state in zip(UNITS, picture.presence) if state == 1], rng)


class Bar:
    """Progress on one line of the terminal; every half minute a line of its own where nobody watches."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.start, self.began = total, done, done, time.monotonic()
        self.shown, self.live = self.began, sys.stderr.isatty()

    def add(self, pictures: int) -> None:
        self.done += pictures
        now = time.monotonic()
        if now - self.shown >= (0.5 if self.live else 30.0):
            self.shown = now
            self._show(now)

    def close(self) -> None:
        self._show(time.monotonic())
        if self.live:
            print(file=sys.stderr)

    def _show(self, now: float) -> None:
        rate = (self.done - self.start) / max(now - self.began, 1e-6)
        left = (self.total - self.done) / rate / 60 if rate > 0 else float("inf")
        filled = round(30 * self.done / max(self.total, 1))
        bar = "#" * filled + "." * (30 - filled)
        line = f"[{bar}] {self.done}/{self.total}  {rate:.1f} pictures/s  {left:.0f} min left"
        print(("\r" if self.live else "") + line, end="" if self.live else "\n", file=sys.stderr, flush=True)


def _start_worker(assets: Path) -> None:
    cv2.setNumThreads(1)
    load_assets(assets)


def _work(job: tuple[Order, int]) -> int:
    order, index = job
    write_one(load_assets(order.assets), order, index)
    return index
