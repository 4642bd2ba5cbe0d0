"""How closely a runtime agrees with the stored FP32 answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import UserError
from ..metrics import sigmoid
from ..runtimes.base import Runtime, allowed_error, expected_log_odds


@dataclass(frozen=True)
class Agreement:
    """A runtime against FP32, per unit."""

    difference: NDArray[np.float64]  # (A,) largest difference in probability
    states: NDArray[np.float64]  # (A,) share of equal states
    tokens: float | None  # share of equal tokens
    control: float  # largest difference in probability for other images: must be large


def agreement(bundle: Bundle, runtime: Runtime) -> Agreement:
    """Against the stored FP32 answer; refuses a runtime whose answer does not depend on the image."""
    stored = bundle.selftest()
    expected = sigmoid(stored["log_odds"] / runtime.temperatures)
    prediction = runtime.predict(stored["crops"])
    difference = np.abs(prediction.probabilities - expected)
    control = float(np.abs(runtime.predict(255 - stored["crops"]).probabilities - expected).max())
    worst = float(np.abs(prediction.log_odds - expected_log_odds(stored, runtime.executor.precision)).max())
    if not (worst <= allowed_error(bundle, runtime.executor.precision) and control > difference.max()):
        raise UserError(
            f"{runtime.description} does not agree with FP32: log-odds differ by {worst:.3g}, probabilities by "
            f"{difference.max():.3g}, by {control:.3g} for other images. Nothing was written."
        )
    tokens = None
    if "local_tokens" in stored:
        rows = np.argwhere(np.ones_like(stored["active"])).astype(np.int64)
        same = []
        for face in range(len(stored["crops"])):  # one at a time: a batch may be larger than the runtime takes
            memory = runtime.executor.take(prediction.memory, [face])
            own_rows = rows[rows[:, 0] == face] * [0, 1]
            answer = runtime.executor.caption(memory, stored["active"][[face]], own_rows)
            same.append(answer["local_tokens"] == stored["local_tokens"][rows[:, 0] == face])
        tokens = float(np.concatenate(same).mean())
    states = (prediction.probabilities >= runtime.thresholds) == (expected >= runtime.thresholds)
    return Agreement(difference.max(0).astype(float), states.mean(0), tokens, control)
