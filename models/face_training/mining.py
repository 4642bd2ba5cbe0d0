"""`python -m vlfau.models.face_training.mining`: collects what the two networks take for faces and is none.

Scenes hold clutter, painted-over heads, shoulders and clothes of renders, never a face and never a real picture. The
crops go into a folder that `landmark_training` takes among its --data.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .. import settings
from ..bundle import embedded
from ..errors import UserError
from ..faces.embedded import FaceBoxes
from ..faces.landmarks import crop_matrix, cut, open_landmarks
from ..terminal import command
from .crops import RenderedCrops
from .photographs import Backgrounds, Bytes
from .scenes import SCENE, faceless_scene


@dataclass(frozen=True)
class Mining:
    data: tuple[Path, ...] = settings.setting((), "folders of shards written by vlfau-synthesize")
    out: Path | None = settings.setting(None, "folder that gets mistaken-<seed>.safetensors")  # noqa: RUF009
    finder: Path | None = settings.setting(None, "finder to mislead; the package's own by default")  # noqa: RUF009
    landmarks: Path | None = settings.setting(None, "landmark network to mislead; the package's own by default")  # noqa: RUF009
    count: int = settings.setting(4000, "crops to collect")
    scenes: int = settings.setting(40_000, "scenes to look at before giving up")
    presence: float = settings.setting(0.05, "keep crops that the landmark network thinks a face with at least this")
    seed: int = settings.setting(0, "seed of the scenes")


def mine(options: Mining) -> list[Bytes]:
    renders = RenderedCrops(options.data, held_out=False, limit=6000)
    renders.refresh()
    if not renders.faces:
        raise UserError("No renders to make scenes of. Give --data folders that vlfau-synthesize has written.")
    finder, net = FaceBoxes(options.finder or embedded() / "finder.onnx"), open_landmarks(options.landmarks)
    random, backgrounds = np.random.default_rng((options.seed, 99)), Backgrounds(SCENE)
    found: list[Bytes] = []
    for scene in range(options.scenes):
        picture = faceless_scene(renders, backgrounds, random)
        boxes, _ = finder.propose([picture], 0.1)[0]
        if len(boxes):
            presence = net.locate(picture, boxes).presence
            found += [cut(picture, crop_matrix(box)) for box in boxes[presence >= options.presence]]
        if len(found) >= options.count:
            break
        if scene % 1000 == 999:
            print(f"{scene + 1} scenes, {len(found)} crops", flush=True)
    return found


@command("face_training.mining")
def main(arguments: list[str] | None = None) -> None:
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(prog="python -m vlfau.models.face_training.mining", description=__doc__)
    settings.add_flags(parser, Mining)
    options = settings.read(Mining, None, parser.parse_args(arguments))
    cv2.setNumThreads(1)
    if options.out is None:
        raise UserError("Nowhere to write to. Give a folder with --out.")
    crops = mine(options)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"mistaken-{options.seed:05d}.safetensors"
    save_file({"crops": np.array(crops, np.uint8).reshape(-1, *crops[0].shape) if crops else np.empty(0)}, path)
    print(f"{path}: {len(crops)} crops")


if __name__ == "__main__":
    raise SystemExit(main())
