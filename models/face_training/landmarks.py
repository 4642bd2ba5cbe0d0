"""`python -m vlfau.models.face_training.landmarks`: trains the landmark and presence network on renders.

The presence threshold is chosen on held-out synthetic pictures, never on real ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.align import LEFT_EYE, POINTS, RIGHT_EYE
from ..faces.landmarks import BOX_GROWTH, CROP_GROWTH, SIDE
from ..metrics import sigmoid
from ..terminal import command
from .crops import RenderedCrops, draw
from .loop import Budget, Cost, Task, run_task
from .networks import LandmarkNetwork

FALSE_FACES = 1e-3  # share of synthetic non-faces that may pass the threshold

# Eyes and lips carry the action units and the alignment; annotators disagree on the jaw line.
_WEIGHTS = torch.ones(POINTS)
_WEIGHTS[:17] = 0.5
_WEIGHTS[36:] = 2.0
_WEIGHTS[[*LEFT_EYE, *RIGHT_EYE]] = 4.0  # they position the crop
# Openings: lids, lips, brow to lid. They have their own loss, because errors of both ends may add up or cancel out.
_PAIRS = torch.tensor(
    [[37, 41], [38, 40], [43, 47], [44, 46], [61, 67], [62, 66], [63, 65], [51, 57], [19, 37], [24, 44], [48, 54]]
)


def loss_of(points: Tensor, presence: Tensor, true_points: Tensor, true_presence: Tensor) -> dict[str, Tensor]:
    """Huber loss on points in percent of the crop, linear from 1 % on; cross-entropy on presence."""
    face = true_presence > 0.5
    predicted, truth = points[face] * 100, true_points[face] * 100
    weights = _WEIGHTS.to(points.device)
    place = F.smooth_l1_loss(predicted, truth, reduction="none").mean((0, 2)) @ weights / weights.sum()
    a, b = _PAIRS.to(points.device).T
    opening = F.smooth_l1_loss(predicted[:, a] - predicted[:, b], truth[:, a] - truth[:, b])
    presence_loss = F.binary_cross_entropy_with_logits(presence, true_presence)
    return {"points": place, "openings": 0.5 * opening, "presence": 2 * presence_loss}


def validate(network: LandmarkNetwork, held_out: RenderedCrops, count: int, device: str = "cpu") -> dict[str, float]:
    """Errors on held-out identities, drawn as in training, in percent of the distance between the eye centres."""
    random = np.random.default_rng(12345)
    errors, scores, truth = [], [], []
    network.eval()
    for start in range(0, count, 250):
        batch = draw(held_out, random, min(250, count - start))
        with torch.no_grad():
            points, presence = network(torch.from_numpy(batch.crops).to(device))
        face = batch.presence > 0.5
        predicted, true = points.cpu().numpy()[face], batch.points[face]
        eyes = np.linalg.norm(true[:, 36:42].mean(1) - true[:, 42:48].mean(1), axis=1)
        width = np.maximum(eyes, 0.35 * np.ptp(true[:, :, 1], axis=1))  # in profile one eye hides the other
        errors.append(np.linalg.norm(predicted - true, axis=2) / width[:, None])
        scores.append(presence.cpu().numpy())
        truth.append(batch.presence)
    error, score, label = np.concatenate(errors) * 100, np.concatenate(scores), np.concatenate(truth) > 0.5
    limit = float(np.quantile(score[~label], 1 - FALSE_FACES))
    return {
        "error_percent_all": float(error.mean()),
        "error_percent_eyes": float(error[:, 36:48].mean()),
        "error_percent_mouth": float(error[:, 48:].mean()),
        "error_percent_brows": float(error[:, 17:27].mean()),
        "error_percent_median": float(np.median(error.mean(1))),
        "presence_accuracy": float(((score > 0) == label).mean()),
        "presence_recall_at_limit": float((score[label] > limit).mean()),
        "presence_limit": float(sigmoid(np.array(limit))),
        "faces": int(label.sum()),
        "non_faces": int((~label).sum()),
    }


def cost(renders: RenderedCrops, budget: Budget) -> Cost[LandmarkNetwork]:
    def of_batch(network: LandmarkNetwork, random: np.random.Generator) -> dict[str, Tensor]:
        batch = draw(renders, random, budget.batch)
        crops, points, presence = (
            torch.from_numpy(array).to(budget.device) for array in (batch.crops, batch.points, batch.presence)
        )
        predicted, log_odds = network(crops)
        return loss_of(predicted, log_odds, points, presence)

    return of_batch


TASK = Task(
    name="landmarks",
    network=LandmarkNetwork,
    cost=cost,
    validate=lambda network, held_out, budget: validate(network, held_out, budget.validation, budget.device),
    threshold=lambda figures: max(0.5, figures["presence_limit"]),
    example=(2, SIDE, SIDE, 3),
    names=(["crops"], ["points", "presence"]),
    shapes=lambda: {"crops": {0: torch.export.Dim("faces", min=1, max=256)}},
    facts={"points": POINTS, "side": SIDE, "box_growth": BOX_GROWTH, "crop_growth": CROP_GROWTH},
)


@command("face_training.landmarks")
def main(arguments: Sequence[str] | None = None) -> None:
    run_task(TASK, arguments, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
