"""An encoder graph's log-odds for many crops, by ONNX Runtime. Used where a graph is not a bundle yet."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

BATCH = 16


def log_odds(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, S, S, 3) -> (N, A)"""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = [session.run(["log_odds"], {"crops": crops[i : i + BATCH]})[0] for i in range(0, len(crops), BATCH)]
    return np.asarray(np.concatenate(parts), np.float32)
