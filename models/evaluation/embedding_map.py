"""Many-dimensional features on a plane: principal components, then t-SNE (van der Maaten and Hinton, 2008), exact form.

For up to about two thousand points, which is what a figure can show; needs numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def principal(features: NDArray[np.floating], count: int) -> Floats:
    """(n, d) -> (n, count) along the directions of largest variance."""
    centred = np.asarray(features, np.float64) - features.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((left * size)[:, :count])


def plane(features: NDArray[np.floating], *, perplexity: float = 30.0, steps: int = 600, seed: int = 0) -> Floats:
    """(n, d) -> (n, 2): points that are neighbours in the features are neighbours on the plane."""
    count = len(features)
    if count < 5:
        return np.asarray(np.pad(principal(features, 2), ((0, 0), (0, 2)))[:, :2])
    wanted = _neighbours(principal(features, min(50, count)), min(perplexity, (count - 1) / 3))
    places = principal(features, 2)
    places = 1e-4 * places / (places.std(0) + 1e-12) + 1e-6 * np.random.default_rng(seed).standard_normal((count, 2))
    moved, gains = np.zeros_like(places), np.ones_like(places)
    rate = max(50.0, count / 48)
    for step in range(steps):
        early = step < 250
        near = 1 / (1 + _squares(places))
        np.fill_diagonal(near, 0.0)
        pull = ((12.0 if early else 1.0) * wanted - near / near.sum()) * near
        slope = 4 * (pull.sum(1)[:, None] * places - pull @ places)
        same = np.sign(slope) == np.sign(moved)
        gains = np.maximum(np.where(same, gains * 0.8, gains + 0.2), 0.01)
        moved = (0.5 if early else 0.8) * moved - rate * gains * slope
        places = places + moved
        places -= places.mean(0)
    return np.asarray(places)


def _neighbours(points: Floats, perplexity: float) -> Floats:
    """(n, n) symmetric probabilities; each point's width is found by bisection, for all points at once."""
    squares = _squares(points)
    squares = squares / max(float(np.median(squares)), 1e-12)
    nearest = np.sort(squares, 1)[:, 1:2]
    low, high = np.full(len(points), 1e-6), np.full(len(points), 1e9)
    for _ in range(60):
        beta = np.sqrt(low * high)
        p = np.exp(np.minimum(nearest - squares, 0) * beta[:, None])
        np.fill_diagonal(p, 0.0)
        p /= p.sum(1, keepdims=True)
        entropy = -(p * np.log(p + 1e-30)).sum(1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
    return np.asarray(np.maximum((p + p.T) / (2 * len(points)), 1e-12))


def _squares(points: Floats) -> Floats:
    """(n, n) squared distances."""
    lengths = (points**2).sum(1)
    return np.asarray(np.maximum(lengths[:, None] + lengths - 2 * points @ points.T, 0.0))
