"""`python -m vlfau.models.face_training.finder`: trains the embedded detector's network on renders in cluttered scenes.

Its threshold is chosen on held-out synthetic scenes, never on real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.boxes import iou
from ..faces.embedded import decode
from ..terminal import command
from .crops import RenderedCrops
from .loop import Budget, Cost, Task, run_task
from .networks import FinderNetwork
from .photographs import Backgrounds
from .scenes import SCENE, draw_scenes, scene_boxes

FALSE_BOXES = 0.5  # per scene: the landmark network rejects one in a millisecond, while a missed face is lost


def loss_of(maps: Tensor, heat: Tensor, size: Tensor, offset: Tensor, near: Tensor) -> dict[str, Tensor]:
    """Focal loss on the centres (Law and Deng 2018, eq. 1), Huber on size and offset where a face is near."""
    log_odds, faces = maps[:, 0], (heat > 0.999).sum().clamp(min=1)
    yes, no = F.logsigmoid(log_odds), F.logsigmoid(-log_odds)
    sure = torch.sigmoid(log_odds)
    centres = (heat > 0.999) * (1 - sure) ** 2 * yes
    quiet = (heat <= 0.999) * (1 - heat) ** 4 * sure**2 * no
    weight = near / near.sum().clamp(min=1)
    side = (F.smooth_l1_loss(maps[:, 1], size, reduction="none", beta=0.1) * weight).sum()
    place = (F.smooth_l1_loss(maps[:, 2:], offset, reduction="none", beta=0.3).sum(1) * weight).sum()
    return {"centres": -(centres + quiet).sum() / faces, "sides": side, "offsets": 0.5 * place}


def validate(network: FinderNetwork, held_out: RenderedCrops, count: int) -> dict[str, float]:
    """Recall and false boxes per scene on held-out identities; at the threshold there are FALSE_BOXES per scene."""
    random = np.random.default_rng(54321)
    backgrounds = Backgrounds(SCENE, 200)
    scores: list[float] = []
    hits: list[bool] = []
    overlaps: list[float] = []
    faces = 0
    network.eval()
    for _ in range(count):
        picture, boxes = scene_boxes(held_out, backgrounds, random)
        with torch.no_grad():
            maps = network(torch.from_numpy(picture[None]))[0].numpy()
        proposed, proposed_scores = decode(maps, 0.02)
        faces += len(boxes)
        taken = np.zeros(len(boxes), bool)
        for box, score in zip(proposed, proposed_scores):
            overlap = np.where(taken, 0, iou(box, boxes)) if len(boxes) else np.zeros(1)
            hit = bool(overlap.max() > 0.4)
            if hit:
                taken[int(overlap.argmax())] = True
                overlaps.append(float(overlap.max()))
            scores.append(float(score))
            hits.append(hit)
    order = np.argsort(-np.array(scores))
    right = np.array(hits, bool)[order]
    within = np.flatnonzero(np.cumsum(~right) <= FALSE_BOXES * count)
    threshold = float(np.array(scores)[order][within[-1]]) if len(within) else 0.5
    return {
        "threshold": threshold,
        "recall": float(right[within].sum() / max(1, faces)),
        "false_boxes_a_scene": float((~right[within]).sum() / count),
        "recall_at_any_score": float(right.sum() / max(1, faces)),
        "mean_overlap": float(np.mean(overlaps)) if overlaps else 0.0,
        "faces": faces,
        "scenes": count,
    }


def cost(renders: RenderedCrops, budget: Budget) -> Cost[FinderNetwork]:
    backgrounds = Backgrounds(SCENE)

    def of_batch(network: FinderNetwork, random: np.random.Generator) -> dict[str, Tensor]:
        scenes = draw_scenes(renders, backgrounds, random, budget.batch)
        pictures, *targets = (
            torch.from_numpy(array).to(budget.device)
            for array in (scenes.pictures, scenes.heat, scenes.size, scenes.offset, scenes.near)
        )
        heat, size, offset, near = targets
        return loss_of(network(pictures), heat, size, offset, near)

    return of_batch


def shapes() -> dict[str, dict[int, Any]]:
    """Any number of pictures; sides in multiples of 32."""
    sides = {1: 32 * torch.export.Dim("h", min=2, max=64), 2: 32 * torch.export.Dim("w", min=2, max=64)}
    return {"pictures": {0: torch.export.Dim("n", max=64), **sides}}


TASK = Task(
    name="finder",
    network=FinderNetwork,
    cost=cost,
    validate=lambda network, held_out, budget: validate(network.cpu(), held_out, budget.validation),
    threshold=lambda figures: figures["threshold"],
    example=(2, 256, 320, 3),
    names=(["pictures"], ["maps"]),
    shapes=shapes,
)


@command("face_training.finder")
def main(arguments: Sequence[str] | None = None) -> None:
    run_task(TASK, arguments, __doc__, batch=24, validation=1500)


if __name__ == "__main__":
    raise SystemExit(main())
