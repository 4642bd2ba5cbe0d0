"""Linear light and stored values: the plain 2.2 curve both ways, and what a camera makes of light."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)  # sRGB byte -> linear light, with the plain 2.2 curve
STORED = (np.linspace(0, 1, 4096) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)  # and back


@nb.njit(cache=True, fastmath=True, nogil=True)
def develop(picture: Floats, linear: Floats, covered: NDArray[np.bool_], gain: Floats, curve: Floats) -> None:
    """Linear light (H, W, 3), where it is `covered`, into a picture of 0..1 as a camera stores it.

    Gain (3,) for exposure and white, then a curve (N,).
    """
    height, width = covered.shape
    last = curve.shape[0] - 1
    for y in range(height):
        for x in range(width):
            if covered[y, x]:
                for k in range(3):
                    value = min(np.float32(1), max(np.float32(0), linear[y, x, k] * gain[k])) * np.float32(last)
                    i = int(value)
                    j = min(last, i + 1)
                    picture[y, x, k] = curve[i] + (value - np.float32(i)) * (curve[j] - curve[i])
