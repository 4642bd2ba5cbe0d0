"""Which layers must stay in float so that no action unit loses more than is allowed: the worst layer first.

Each layer is quantised alone once and its damage measured; then layers are left in float, most harmful first, until
every unit is within the allowance. The trail is kept for the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from vlfau.models.errors import UserError
from vlfau.models.metrics import sigmoid

from .quantise import layers, quantise

Loss = Callable[[onnx.ModelProto], NDArray[np.float64]]  # a graph -> (A,) what each unit loses, larger is worse


@dataclass(frozen=True)
class Found:
    model: onnx.ModelProto
    left: tuple[str, ...]  # layers in float, in the order in which they were given up
    loss: tuple[float, ...]  # per unit, of `model`
    harm: dict[str, float]  # layer -> the worst unit's loss when it alone is quantised
    trail: tuple[tuple[str, float], ...]  # after leaving this layer: the worst unit's loss


def search(
    model: onnx.ModelProto,
    limits: Mapping[str, float],
    loss: Loss,
    allowed: float,
    *,
    kind: str = "int8",
    leave: Iterable[str] = (),
) -> Found:
    """Leaves as few layers in float as this order allows."""
    left = list(leave)
    made = quantise(model, limits, kind=kind, leave=left)
    lost = loss(made)
    if lost.max() <= allowed:
        return Found(made, tuple(left), tuple(map(float, lost)), {}, ())
    names = [layer.name for layer in layers(model) if layer.name not in left]
    harm = {}
    for name in names:
        alone = quantise(model, limits, kind=kind, leave=[other.name for other in layers(model) if other.name != name])
        harm[name] = float(loss(alone).max())
    trail: list[tuple[str, float]] = []
    for name in sorted(harm, key=lambda one: -harm[one]):
        left.append(name)
        made = quantise(model, limits, kind=kind, leave=left)
        lost = loss(made)
        trail.append((name, float(lost.max())))
        if lost.max() <= allowed:
            return Found(made, tuple(left), tuple(map(float, lost)), harm, tuple(trail))
    raise UserError(
        f"Even with all layers in float a unit loses {lost.max():.4f}, allowed are {allowed:g}: the loss does not come "
        "from quantisation. Check the labels, or allow more."
    )


def probability_loss(reference: NDArray[np.floating], crops: NDArray[np.uint8]) -> Loss:
    """Without labels: the mean distance of each unit's probability from FP32's log-odds (N, A) on the same crops."""
    from .quantise import log_odds

    expected = sigmoid(reference).astype(np.float64)
    return lambda model: np.asarray(np.abs(sigmoid(log_odds(model, crops)) - expected).mean(0))
