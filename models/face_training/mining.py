"""`python -m vlfau.models.face_training.mining`: collects false positives of the finder and the landmark network.

Scenes hold clutter, painted-over heads, shoulders and clothes of renders, never a face and never a real picture. Give
the folder with the crops to `face_training.landmarks` as one of its --data.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .. import settings
from ..errors import UserError
from ..faces.embedded import FaceBoxes
from ..faces.landmarks import crop_matrix, cut, open_landmarks
from ..files import embedded
from ..terminal import command
from .crops import RenderedCrops
from .photographs import Backgrounds, Bytes
from .scenes import SCENE, faceless_scene


@dataclass(frozen=True)
class Mining:
    data: tuple[Path, ...] = settings.setting((), "folders of shards written by vlfau-synthesize")
    out: Path | None = settings.setting(None, "folder for mistaken-<seed>.safetensors")  # noqa: RUF009
    finder: Path | None = settings.setting(None, "finder to run; by default the package's")  # noqa: RUF009
    landmarks: Path | None = settings.setting(None, "landmark network to run; by default the package's")  # noqa: RUF009
    count: int = settings.setting(4000, "crops to collect")
    scenes: int = settings.setting(40_000, "scenes to search before giving up")
    presence: float = settings.setting(0.05, "lowest presence, by the landmark network, of a crop to keep")
    seed: int = settings.setting(0, "seed of the scenes")


def mine(options: Mining) -> list[Bytes]:
    renders = RenderedCrops(options.data, held_out=False, limit=6000)
    renders.refresh()
    if not renders.faces:
        raise UserError("No renders to make scenes from. Give --data folders written by vlfau-synthesize.")
    finder, net = FaceBoxes(options.finder or embedded() / "finder.onnx"), open_landmarks(options.landmarks)
    random, backgrounds = np.random.default_rng((options.seed, 99)), Backgrounds(SCENE)
    mistaken: list[Bytes] = []
    for scene in range(options.scenes):
        picture = faceless_scene(renders, backgrounds, random)
        boxes, _ = finder.propose([picture], 0.1)[0]
        if len(boxes):
            presence = net.locate(picture, boxes).presence
            mistaken += [cut(picture, crop_matrix(box)) for box in boxes[presence >= options.presence]]
        if len(mistaken) >= options.count:
            break
        if scene % 1000 == 999:
            print(f"{scene + 1} scenes, {len(mistaken)} crops", flush=True)
    return mistaken


@command("face_training.mining")
def main(arguments: list[str] | None = None) -> None:
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(prog="python -m vlfau.models.face_training.mining", description=__doc__)
    settings.add_flags(parser, Mining)
    options = settings.read(Mining, None, parser.parse_args(arguments))
    cv2.setNumThreads(1)
    if options.out is None:
        raise UserError("No folder to write to. Give a folder with --out.")
    crops = mine(options)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"mistaken-{options.seed:05d}.safetensors"
    save_file({"crops": np.array(crops, np.uint8).reshape(-1, *crops[0].shape) if crops else np.empty(0)}, path)
    print(f"{path}: {len(crops)} crops")


if __name__ == "__main__":
    raise SystemExit(main())
