"""Renders the missing shards, in one process or several, and shows progress."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..data.shards import shard_path
from ..errors import UserError
from ..sentences.composing import compose
from ..terminal import Progress
from .assets import Assets, load_assets
from .picture import PICTURES_PER_PERSON, LabelledRender, make_picture
from .shard_files import missing_shards, write_shard
from .units import UNITS

RECIPE = "10"  # changes whenever the same seed would give another picture


@dataclass(frozen=True)
class RenderJob:
    """Everything a shard depends on, and the folder for it."""

    assets: Path
    output: Path
    count: int
    seed: int
    shard_size: int

    def __post_init__(self) -> None:
        if self.shard_size < 1 or self.shard_size % PICTURES_PER_PERSON:
            raise UserError(
                f"--shard-size {self.shard_size} would split a person's pictures over two shards. "
                f"Give a multiple of {PICTURES_PER_PERSON}."
            )


def synthesize(job: RenderJob, workers: int = 0) -> None:
    """Renders the missing shards, each in one process: a shard depends on seed and index only."""
    assets = load_assets(job.assets)
    job.output.mkdir(parents=True, exist_ok=True)
    size = job.shard_size
    shards = -(-job.count // size)
    todo = missing_shards(job.output, shards, size, job.seed, RECIPE)
    workers = min(workers or os.cpu_count() or 1, max(len(todo), 1))
    progress = Progress("Rendering", shards * size, (shards - len(todo)) * size)
    if workers == 1:
        cv2.setNumThreads(1)
        for index in todo:
            write_one(assets, job, index, progress)
    else:
        # Spawned, not forked: a fork would copy OpenCV's threads in an undefined state.
        context = multiprocessing.get_context("spawn")
        with context.Pool(workers, _start_worker, (job.assets,)) as pool:
            for _ in pool.imap_unordered(_work, [(job, index) for index in todo]):
                progress.add(size)
    progress.close()


def write_one(assets: Assets, job: RenderJob, index: int, progress: Progress | None = None) -> None:
    pictures: list[LabelledRender] = []
    for number in range(index * job.shard_size, (index + 1) * job.shard_size):
        pictures.append(make_picture(assets, job.seed, number)[0])
        if progress is not None:
            progress.add(1)
    rng = np.random.default_rng([job.seed, 3, index])
    texts = [_sentence(picture, rng) for picture in pictures]
    write_shard(shard_path(job.output, index), pictures, texts, job.seed, RECIPE)


def _sentence(picture: LabelledRender, rng: np.random.Generator) -> str:
    if not picture.face:
        return ""
    return compose([name for name, state in zip(UNITS, picture.presence) if state == 1], rng)


def _start_worker(assets: Path) -> None:
    cv2.setNumThreads(1)
    load_assets(assets)


def _work(part: tuple[RenderJob, int]) -> int:
    job, index = part
    write_one(load_assets(job.assets), job, index)
    return index
