"""vlfau-synthesize: writes shards of labelled synthetic faces, on all cores, resumable, the same for the same seed."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..settings import add_flags, read, setting
from ..texts import compose
from .assets import SOURCES, Assets, load_assets
from .picture import PICTURES_PER_PERSON, Picture, make_picture
from .shards import missing_shards, shard_path, write_shard
from .sheet import write_sheet
from .units import UNITS

RECIPE = "6"  # changes whenever the same seed would give another picture


@dataclass(frozen=True)
class Settings:
    assets: str = setting("", "folder with the public 3-D assets (see below)", metavar="DIR")
    output: str = setting("", "folder for the shards; complete ones that are there already are kept", metavar="DIR")
    count: int = setting(10_000, "pictures; rounded up to whole shards", metavar="N")
    seed: int = setting(0, "same seed, same pictures; give training and validation different ones", metavar="S")
    workers: int = setting(0, "processes; 0 takes one per core", metavar="W")
    shard_size: int = setting(500, "pictures in a shard; the same at every run into a folder", metavar="N")
    sheet: str = setting("", "write a labelled contact sheet instead: every unit at rising intensity", metavar="PNG")

    def __post_init__(self) -> None:
        if self.count < 1 or self.workers < 0 or self.seed < 0:
            raise UserError("--count must be at least 1, --workers and --seed at least 0.")
        if self.shard_size < 1 or self.shard_size % PICTURES_PER_PERSON:
            raise UserError(
                f"--shard-size {self.shard_size}: a shard holds whole people. Give a multiple of {PICTURES_PER_PERSON}."
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="vlfau-synthesize",
        description=__doc__,
        epilog=SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, Settings)
    flags = parser.parse_args(arguments)
    try:
        settings = read(Settings, None, flags)
        assets = load_assets(Path(_needed("assets", settings.assets)))
        if settings.sheet:
            write_sheet(Path(settings.sheet), assets, settings.seed)
        else:
            synthesize(settings, assets, Path(_needed("output", settings.output)))
    except UserError as error:
        print(f"vlfau-synthesize: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command continues with the shards that are missing.", file=sys.stderr)
        return 130
    return 0


def synthesize(settings: Settings, assets: Assets, folder: Path) -> None:
    """Makes the shards that are missing, each in one process: a shard depends on seed and index only."""
    folder.mkdir(parents=True, exist_ok=True)
    size = settings.shard_size
    shards = -(-settings.count // size)
    todo = missing_shards(folder, shards, size, settings.seed, RECIPE)
    workers = min(settings.workers or os.cpu_count() or 1, max(len(todo), 1))
    bar = Bar(shards * size, (shards - len(todo)) * size)
    if workers == 1:
        cv2.setNumThreads(1)
        for index in todo:
            write_one(assets, folder, index, size, settings.seed, bar)
    else:
        # Spawned, not forked: a fork would copy OpenCV's threads in an undefined state.
        context = multiprocessing.get_context("spawn")
        with context.Pool(workers, _start_worker, (settings.assets,)) as pool:
            for _ in pool.imap_unordered(_work, [(settings.assets, str(folder), i, size, settings.seed) for i in todo]):
                bar.add(size)
    bar.close()


def write_one(assets: Assets, folder: Path, index: int, size: int, seed: int, bar: Bar | None = None) -> None:
    pictures: list[Picture] = []
    for number in range(index * size, (index + 1) * size):
        pictures.append(make_picture(assets, seed, number)[0])
        if bar:
            bar.add(1)
    rng = np.random.default_rng([seed, 3, index])
    texts = [_sentence(picture, rng) for picture in pictures]
    write_shard(shard_path(folder, index), pictures, texts, seed, RECIPE)


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


def _needed(name: str, value: str) -> str:
    if not value:
        raise UserError(f"--{name} is missing. Give --{name} DIR.\n{SOURCES if name == 'assets' else ''}".rstrip())
    return value


def _start_worker(assets: str) -> None:
    cv2.setNumThreads(1)
    load_assets(Path(assets))


def _work(job: tuple[str, str, int, int, int]) -> int:
    assets, folder, index, size, seed = job
    write_one(load_assets(Path(assets)), Path(folder), index, size, seed)
    return index


if __name__ == "__main__":
    sys.exit(main())
