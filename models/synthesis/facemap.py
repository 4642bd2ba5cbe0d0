"""Where on the face each texel of the skins lies, so that lines and patches drawn from the front land on the skin.

The canvas is the neutral face seen straight from the front, in eye distances: x from -1.25 to 1.25, y from 1.3 (hair
line) down to -2.1 (below the chin). Both heads share the skins' texture coordinates, so one map serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .heads import Floats, Head
from .rasteriser import draw, empty_buffers

SIDE = 384  # texels of the map
SCALE = 160  # canvas pixels per eye distance
LEFT, TOP = -1.25, 1.3
WIDTH, HEIGHT = round(2.5 * SCALE), round(3.4 * SCALE)


@dataclass(frozen=True, eq=False)  # compared by identity, because drawings are cached per map
class FaceMap:
    window: Floats  # (4,) first u, first v, extent in u, extent in v of the map in texture coordinates
    x: Floats  # (SIDE, SIDE) eye distances; far outside for texels off the face
    y: Floats
    points: Floats  # (68, 2) eye distances on the neutral face

    def from_canvas(self, canvas: Floats) -> Floats:
        """(HEIGHT, WIDTH) -> (SIDE, SIDE) in the map; zero off the face."""
        return canvas_at(canvas, self.x, self.y)

    def texture_slice(self, side: int) -> tuple[slice, slice]:
        """Rows and columns of a (side, side) texture that the map covers."""
        u, v, w, h = (float(value) for value in self.window)
        return slice(round((1 - v - h) * side), round((1 - v) * side)), slice(round(u * side), round((u + w) * side))

    def texels(self, side: int) -> tuple[Floats, Floats]:
        """x and y of the texels of `texture_slice`."""
        rows, columns = self.texture_slice(side)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        # Not interpolated, because texels next to the face have far-off values.
        x, y = (cv2.resize(place[::-1], size, interpolation=cv2.INTER_NEAREST_EXACT) for place in (self.x, self.y))
        return np.asarray(x, np.float32), np.asarray(y, np.float32)


def canvas_at(canvas: Floats, x: Floats, y: Floats) -> Floats:
    """Values of the canvas (HEIGHT, WIDTH) at positions (...) in eye distances; zero outside."""
    column, row = (x - np.float32(LEFT)) * np.float32(SCALE), (np.float32(TOP) - y) * np.float32(SCALE)
    half = np.float32(0.5)
    return np.asarray(cv2.remap(canvas, column - half, row - half, cv2.INTER_LINEAR, borderValue=0), np.float32)


def canvas_place(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Eye distances (..., 2) -> canvas pixels (..., 2)."""
    return np.stack([(points[..., 0] - LEFT) * SCALE, (TOP - points[..., 1]) * SCALE], -1)


def bake(head: Head) -> FaceMap:
    """Renders the neutral face into its texture, which gives the position of every texel."""
    corners = head.neutral[head.skin]  # (F, 3, 3)
    face = (np.abs(corners[..., 0]).max(1) < 1.2) & (corners[..., 1].min(1) > -2.0) & (corners[..., 1].max(1) < 1.25)
    face &= corners[..., 2].mean(1) > -0.9
    face &= (head.skin_uv[..., 0].min(1) > 0.6) & (head.skin_uv[..., 1].min(1) > 0.3)  # other islands: neck, mouth
    uv = head.skin_uv[face]
    low, high = uv.reshape(-1, 2).min(0) - 0.004, uv.reshape(-1, 2).max(0) + 0.004
    flat = ((uv.reshape(-1, 2) - low) / (high - low) * SIDE).astype(np.float32)
    screen = np.ascontiguousarray(np.concatenate([flat, np.ones((len(flat), 1), np.float32)], 1))
    faces = np.arange(len(flat), dtype=np.int32).reshape(-1, 3)
    depth, visible = empty_buffers(SIDE, SIDE)
    draw(screen, faces, depth, visible)
    places = corners[face].reshape(-1, 3)[:, :2]
    x, y = np.full((SIDE, SIDE), 99, np.float32), np.full((SIDE, SIDE), 99, np.float32)
    rows, columns = np.nonzero(visible >= 0)
    hit = faces[visible[rows, columns]]  # (n, 3)
    a, b, c = (flat[hit[:, k]] for k in range(3))
    p = np.stack([columns + 0.5, rows + 0.5], 1).astype(np.float32) - a
    u, v = b - a, c - a
    area = u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1]
    w1 = (p[:, 0] * v[:, 1] - v[:, 0] * p[:, 1]) / area
    w2 = (u[:, 0] * p[:, 1] - p[:, 0] * u[:, 1]) / area
    weights = np.stack([1 - w1 - w2, w1, w2], 1)[:, :, None]
    place = (places[hit] * weights).sum(1)
    x[rows, columns], y[rows, columns] = place[:, 0], place[:, 1]
    window = np.array([low[0], low[1], high[0] - low[0], high[1] - low[1]], np.float32)
    return FaceMap(window, x, y, head.points.on(head.neutral)[:, :2].copy())
