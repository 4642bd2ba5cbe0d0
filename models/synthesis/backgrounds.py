"""What is behind a face, or what a picture without a face shows: (S, S, 3) in 0..1."""

from __future__ import annotations

import cv2
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
    # Rooms and streets are mostly dull: colour is taken out of most of it.
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    picture = grey + np.float32(rng.beta(1.2, 2.5)) * (picture - grey)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 6)))
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def _gradient(rng: np.random.Generator, side: int) -> Floats:
    corners = rng.uniform(0, 1, (2, 2, 3)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def clouds(rng: np.random.Generator, side: int) -> Floats:
    """Coloured noise at several scales, its strength falling with frequency as in photographs."""
    base = rng.uniform(0.05, 0.95, 3).astype(np.float32)
    picture = np.tile(base, (side, side, 1))
    fall, strength = rng.uniform(0.5, 1.0), rng.uniform(0.04, 0.25)
    for scale in (3, 6, 12, 24, 48, 96):
        channels = 3 if rng.random() < 0.5 else 1
        grid = rng.normal(0, strength * (3 / scale) ** fall, (scale, scale, channels)).astype(np.float32)
        layer = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        picture += layer.reshape(side, side, channels)
    return picture


def _room(rng: np.random.Generator, side: int) -> Floats:
    """Walls, furniture, windows: rectangles, lines and round things over a gradient, some of them textured."""
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
