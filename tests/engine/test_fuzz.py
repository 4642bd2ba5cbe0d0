"""Damaged clips: no crash and no hang, and the frames before the damage are kept."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media import number_of, numbered, write_clip

from vlfau.engine.counters import Counters
from vlfau.engine.packets import Ended, Frame
from vlfau.engine.settings import SourceSettings
from vlfau.engine.sources import open_source
from vlfau.engine.sources.base import Context
from vlfau.models.errors import UserError

FRAMES = 50
KINDS = ("mp4", "mkv", "ts", "avi")
LONGEST_S = 10.0  # for a clip that decodes in a tenth of a second


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    for kind in KINDS:
        codec = "mpeg4" if kind == "avi" else "libx264"
        write_clip(folder / f"clip.{kind}", (numbered(i) for i in range(FRAMES)), codec=codec)
    return {kind: (folder / f"clip.{kind}").read_bytes() for kind in KINDS}


def mutate(data: bytes, seed: int) -> tuple[bytes, float]:
    """The damaged bytes, and where the damage begins as a fraction of the file."""
    random = np.random.default_rng(seed)
    mutant, begin = bytearray(data), int(random.integers(0, len(data)))
    match seed % 6:
        case 0:  # truncated
            del mutant[begin:]
        case 1:  # a few flipped bits
            places = np.sort(random.integers(begin, len(mutant), 8))
            for place in places:
                mutant[place] ^= 1 << int(random.integers(8))
            begin = int(places[0])
        case 2:  # a stretch of noise
            length = int(random.integers(1, 3000))
            mutant[begin : begin + length] = random.bytes(min(length, len(mutant) - begin))
        case 3:  # a piece missing
            del mutant[begin : begin + int(random.integers(1, 3000))]
        case 4:  # zeros, as a file system leaves them after a crash
            length = int(random.integers(1, 8000))
            mutant[begin : begin + length] = bytes(min(length, len(mutant) - begin))
        case _:  # a piece repeated
            piece = mutant[begin : begin + int(random.integers(1, 3000))]
            mutant[begin:begin] = piece
    return bytes(mutant), begin / len(data)


def play(path: Path) -> tuple[list[int], bool]:
    """Numbers of the frames that were delivered, and whether the source could be opened."""
    settings = replace(SourceSettings(), decode_threads=2)
    numbers: list[int] = []
    try:
        for item in open_source(Context(str(path), settings, Counters("clip"), threading.Event())).frames():
            if isinstance(item, Frame):
                assert item.pixels.ndim == 3
                assert item.pixels.shape[2] == 3
                assert item.stamp.index == len(numbers)
                numbers.append(number_of(item.pixels) if item.pixels.shape == (96, 160, 3) else -1)
            else:
                assert isinstance(item, Ended)
    except UserError:
        return numbers, False
    return numbers, True


def fuzz(clips: dict[str, bytes], folder: Path, seeds: range) -> tuple[int, int]:
    """How many mutants kept all frames before the damage, and how many were checked for that."""
    intact = checked = 0
    for seed in seeds:
        kind = KINDS[seed // 6 % len(KINDS)]
        mutant, begin = mutate(clips[kind], seed)
        path = folder / f"mutant.{kind}"
        path.write_bytes(mutant)
        started = time.monotonic()
        numbers, opened = play(path)
        assert time.monotonic() - started < LONGEST_S, f"seed {seed} took too long"
        if (
            kind in ("mkv", "ts") and opened and begin > 0.3
        ):  # in these the index is not at the end, and bytes follow time
            checked += 1
            safe = int((begin - 0.2) * FRAMES)  # a group of pictures is a fifth of the clip
            intact += numbers[:safe] == list(range(safe))
    return intact, checked


def test_mutated_clips(clips: dict[str, bytes], tmp_path: Path) -> None:
    intact, checked = fuzz(clips, tmp_path, range(96))
    assert checked > 20
    assert intact >= 0.95 * checked


def test_five_hundred_mutated_clips(clips: dict[str, bytes], tmp_path: Path) -> None:
    intact, checked = fuzz(clips, tmp_path, range(1000, 1504))
    assert checked > 100
    assert intact >= 0.95 * checked


def test_the_mutations_do_damage(clips: dict[str, bytes], tmp_path: Path) -> None:
    """The negative control: many mutants play differently from the clip."""
    whole = list(range(FRAMES))
    for kind in KINDS:
        path = tmp_path / f"whole.{kind}"
        path.write_bytes(clips[kind])
        assert play(path) == (whole, True)
    differ = 0
    for seed in range(48):
        kind = KINDS[seed // 6 % len(KINDS)]
        path = tmp_path / f"mutant.{kind}"
        path.write_bytes(mutate(clips[kind], seed)[0])
        differ += play(path) != (whole, True)
    assert differ > 12
