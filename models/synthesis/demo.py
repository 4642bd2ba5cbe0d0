"""The demonstration clip of the package: one rendered face whose action units are known in every frame.

`python -m vlfau.models.synthesis.demo --assets DIR` writes `embedded/demo.mp4`, and `demo.json` with the true `states`
(T, A), 1 present, 0 absent, -1 near the threshold, as this person shows them, not as requested.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import embedded
from ..settings import add_flags, read, setting
from ..terminal import command
from .assets import Assets, load_assets
from .heads import ICT
from .sequence import render_sequence, seen_intensities, sequence_person
from .units import INDEX, UNITS, presence

Floats = NDArray[np.float32]

RECIPE = "demo-1"
FPS = 25
SIZE = (480, 360)
SEED, KIND = 31, ICT  # bare forehead, visible brows, and a neutral look at rest
EYE_DISTANCE = 0.21  # the head fills most of the height and stays in the picture when it moves
RAMP = 0.24  # seconds from rest to the expression and back, about as fast as people are


@dataclass(frozen=True)
class Episode:
    """An expression from `start` to `end`, in seconds, with rest in between."""

    name: str
    start: float
    end: float
    units: dict[str, float]


TALK = "talking"  # jaw and lips move by `_syllables`
PARTS = (
    Episode(TALK, 1.0, 3.0, {"AU25": 0.75, "AU26": 0.65}),
    Episode("smile", 3.4, 4.9, {"AU06": 0.85, "AU12": 0.95, "AU25": 0.6}),
    Episode("raised brows", 5.5, 6.7, {"AU01": 0.85, "AU02": 0.85, "AU05": 0.75}),
    Episode("frown", 7.3, 8.1, {"AU04": 0.9}),
    Episode("displeasure", 8.1, 9.1, {"AU04": 0.9, "AU15": 0.85, "AU17": 0.85}),
    Episode("wrinkled nose", 9.6, 10.5, {"AU09": 0.95}),
)
SECONDS = 11.0


def clip_intensities() -> Floats:
    """(T, A) intensities 0..1 in the order of `UNITS`."""
    time = np.arange(round(SECONDS * FPS)) / FPS
    result = np.zeros((len(time), len(UNITS)), np.float32)
    for part in PARTS:
        ramp = _eased((time - part.start) / RAMP) * _eased((part.end + RAMP - time) / RAMP)
        if part.name == TALK:
            ramp = ramp * _syllables(time - part.start)
        for unit, strength in part.units.items():
            column = result[:, INDEX[unit]]
            np.maximum(column, strength * ramp, out=column)
    return result


def clip_pose() -> Floats:
    """(T, 3) yaw, pitch, clockwise roll in degrees: a head is never quite still."""
    time = np.arange(round(SECONDS * FPS)) / FPS
    yaw = 5.0 * np.sin(2 * np.pi * time / 5.5) + 1.5 * np.sin(2 * np.pi * time / 2.3)
    pitch = 2.5 * np.sin(2 * np.pi * time / 4.1 + 1.0)
    roll_clockwise = -2.0 * np.sin(2 * np.pi * time / 6.7 + 2.0)
    return np.stack([yaw, pitch, roll_clockwise], 1).astype(np.float32)


def encode(frames: NDArray[np.uint8], path: Path) -> None:
    """Frames (T, H, W, 3) RGB as H.264 in MP4, the index in front, so that it also plays from a pipe."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow", "g": str(FPS)})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.thread_count = 1  # the same bytes on every machine with the same encoder
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def truth(assets: Assets) -> dict[str, Any]:
    """The content of `demo.json`."""
    seen = seen_intensities(sequence_person(assets, SEED, KIND), clip_intensities())
    return {
        "schema": 1,
        "recipe": RECIPE,
        "seed": SEED,
        "head": KIND,
        "fps": FPS,
        "size": list(SIZE),
        "units": list(UNITS),
        "parts": [{"name": p.name, "start": p.start, "end": p.end, "units": p.units} for p in PARTS],
        "states": presence(seen).tolist(),
    }


def write_demo(assets: Assets, folder: Path) -> None:
    frames = render_sequence(assets, SEED, clip_intensities(), clip_pose(), SIZE, kind=KIND, eye_distance=EYE_DISTANCE)
    folder.mkdir(parents=True, exist_ok=True)
    encode(frames, folder / "demo.mp4")
    (folder / "demo.json").write_text(_lines(truth(assets)))


def _lines(card: dict[str, Any]) -> str:
    """JSON with one frame per line, so that versions can be compared with diff."""
    head = {key: value for key, value in card.items() if key != "states"}
    rows = ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in card["states"])
    return json.dumps(head, indent=1)[:-2] + ',\n "states": [\n' + rows + "\n ]\n}\n"


def _eased(x: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """0 up to 0, 1 from 1 on, smooth in between."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def _syllables(time: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """About three per second, not all equally open."""
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * time * 2.75)
    return np.asarray(beat * (0.8 + 0.2 * np.cos(2 * np.pi * time * 0.9)))


@dataclass(frozen=True)
class DemoSettings:
    assets: str = setting("", "folder with the public 3-D assets, as for vlfau-synthesize", metavar="DIR")
    output: str = setting(str(embedded()), "folder for demo.mp4 and demo.json", metavar="DIR")


@command("demo")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vlfau.models.synthesis.demo", description=__doc__)
    add_flags(parser, DemoSettings)
    settings = read(DemoSettings, None, parser.parse_args(arguments))
    if not settings.assets:
        raise UserError("--assets is missing. Give the folder with the public 3-D assets.")
    write_demo(load_assets(Path(settings.assets)), Path(settings.output))


if __name__ == "__main__":
    sys.exit(main())
