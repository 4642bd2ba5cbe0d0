"""Backgrounds behind a face, or of pictures without one: (S, S, 3) in 0..1."""

from __future__ import annotations

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def draw_background(rng: np.random.Generator, side: int) -> Floats:
    kind = rng.choice(["plain", "gradient", "clouds", "room"], p=[0.15, 0.2, 0.35, 0.3])
    if kind == "plain":
        picture = np.ones((side, side, 3), np.float32) * rng.uniform(0, 1, 3).astype(np.float32)
    elif kind == "gradient":
        picture = _gradient(rng, side)
    elif kind == "clouds":
        picture = clouds(rng, side)
    else:
        picture = _room(rng, side)
    # Rooms and streets are mostly dull, so most colours are desaturated.
    _dull(picture, float(rng.beta(1.2, 2.5)))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 6)))
    return np.asarray(picture, np.float32)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _dull(picture: Floats, colour: float) -> None:
    """Scales the saturation by this share; the result stays within 0..1."""
    share, zero, one = np.float32(colour), np.float32(0), np.float32(1)
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            r, g, b = picture[y, x, 0], picture[y, x, 1], picture[y, x, 2]
            grey = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            for k in range(3):
                picture[y, x, k] = min(max(grey + share * (picture[y, x, k] - grey), zero), one)


def _gradient(rng: np.random.Generator, side: int) -> Floats:
    corners = rng.uniform(0, 1, (2, 2, 3)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def clouds(rng: np.random.Generator, side: int) -> Floats:
    """Coloured noise at several scales, its strength falling with frequency as in photographs.

    Each scale is added to the coarser ones at its own size; only the last is enlarged to the size of the picture.
    """
    picture = rng.uniform(0.05, 0.95, (1, 1, 3)).astype(np.float32)
    fall, strength = rng.uniform(0.5, 1.0), rng.uniform(0.04, 0.25)
    for scale in (3, 6, 12, 24, 48, 96):
        channels = 3 if rng.random() < 0.5 else 1
        grid = np.float32(strength * (3 / scale) ** fall) * rng.standard_normal((scale, scale, channels), np.float32)
        picture = cv2.resize(picture, (scale, scale), interpolation=cv2.INTER_CUBIC) + grid
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def _room(rng: np.random.Generator, side: int) -> Floats:
    """Walls, furniture, windows: rectangles, lines and ellipses over a gradient, some of them textured."""
    picture = _gradient(rng, side) * np.float32(0.6) + np.float32(rng.uniform(0, 0.4))
    for _ in range(int(rng.integers(3, 14))):
        colour = tuple(float(c) for c in np.clip(rng.uniform(0, 1) + rng.normal(0, 0.15, 3), 0, 1))
        x, y = (int(v) for v in rng.integers(-20, side + 20, 2))
        w, h = (int(v) for v in rng.integers(4, side // 2, 2))
        what = rng.random()
        if what < 0.55:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        elif what < 0.75:
            cv2.line(picture, (x, y), (x + w, y + h * 2), colour, int(rng.integers(1, 8)))
        else:
            cv2.ellipse(picture, (x, y), (w, h), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return picture + (clouds(rng, side) - np.float32(0.5)) * np.float32(rng.uniform(0, 0.25))
