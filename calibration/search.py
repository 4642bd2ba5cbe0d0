"""Which layers must stay in float so that no action unit loses more than allowed.

Each layer is quantised alone and its harm measured; then layers are left in float, most harmful first, until every unit
is within the limit. The steps are kept for the report.
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

Loss = Callable[[onnx.ModelProto], NDArray[np.float64]]  # a graph -> (A,) loss of each unit, larger is worse


@dataclass(frozen=True)
class SearchResult:
    model: onnx.ModelProto
    left: tuple[str, ...]  # layers left in float, in this order
    loss: tuple[float, ...]  # per unit, of `model`
    harm: dict[str, float]  # layer -> loss of the worst unit when only this layer is quantised
    trail: tuple[tuple[str, float], ...]  # layer left in float, and the loss of the worst unit after that


def search(
    model: onnx.ModelProto,
    limits: Mapping[str, float],
    loss: Loss,
    allowed: float,
    *,
    kind: str = "int8",
    leave: Iterable[str] = (),
) -> SearchResult:
    """Leaves as few layers in float as this order permits."""
    left = list(leave)
    quantised = quantise(model, limits, kind=kind, leave=left)
    lost = loss(quantised)
    if lost.max() <= allowed:
        return SearchResult(quantised, tuple(left), tuple(map(float, lost)), {}, ())
    names = [layer.name for layer in layers(model) if layer.name not in left]
    harm = {}
    for name in names:
        alone = quantise(model, limits, kind=kind, leave=[other.name for other in layers(model) if other.name != name])
        harm[name] = float(loss(alone).max())
    trail: list[tuple[str, float]] = []
    for name in sorted(harm, key=lambda layer: -harm[layer]):
        left.append(name)
        quantised = quantise(model, limits, kind=kind, leave=left)
        lost = loss(quantised)
        trail.append((name, float(lost.max())))
        if lost.max() <= allowed:
            return SearchResult(quantised, tuple(left), tuple(map(float, lost)), harm, tuple(trail))
    raise UserError(
        f"Even with all layers in float a unit loses {lost.max():.4f}, more than {allowed:g}: this does "
        "not come from quantisation. Check the labels, or raise the limit."
    )


def probability_loss(reference: NDArray[np.floating], crops: NDArray[np.uint8]) -> Loss:
    """Needs no labels: mean distance of each unit's probability from that of FP32, whose log-odds (N, A) are given."""
    from .quantise import log_odds

    expected = sigmoid(reference).astype(np.float64)
    return lambda model: np.asarray(np.abs(sigmoid(log_odds(model, crops)) - expected).mean(0))
