"""Triangles to pixels: depth, visible triangle, alpha-tested cards, vertex normals.

Screen coordinates are x to the right and y down in pixels, with the centre of the first pixel at 0.5, and depth growing
away from the camera. Only depth and the number of the triangle are stored: the shader recomputes barycentric
weights from the corners, which is cheaper than writing three floats for every overdrawn pixel.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

FAR = np.float32(1e9)
NONE = -1

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def empty_buffers(height: int, width: int) -> tuple[Floats, Ints]:
    """(H, W) depth and visible triangle, nothing drawn yet."""
    return np.full((height, width), FAR, np.float32), np.full((height, width), NONE, np.int32)


@nb.njit(cache=True, fastmath=True, nogil=True)
def draw(screen: Floats, faces: Ints, depth: Floats, visible: Ints, culled: bool = False) -> None:
    """Opaque triangles faces (F, 3) of screen (V, 3) into the buffers; `culled` omits those seen from behind.

    A closed head never shows the back of a triangle, and omitting them halves the time.
    """
    height, width = depth.shape
    one = np.float32(1)
    half = np.float32(0.5)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = screen[a, 0], screen[a, 1], screen[a, 2]
        x1, y1, z1 = screen[b, 0], screen[b, 1], screen[b, 2]
        x2, y2, z2 = screen[c, 0], screen[c, 1], screen[c, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9 or (culled and area > 0):
            continue
        first_x = max(0, math.ceil(min(x0, x1, x2) - half))
        last_x = min(width - 1, math.floor(max(x0, x1, x2) - half))
        first_y = max(0, math.ceil(min(y0, y1, y2) - half))
        last_y = min(height - 1, math.floor(max(y0, y1, y2) - half))
        if first_x > last_x or first_y > last_y:
            continue
        inverse = one / area
        step1 = (y2 - y0) * inverse
        step2 = -(y1 - y0) * inverse
        for y in range(first_y, last_y + 1):
            dy = np.float32(y) + half - y0
            dx = np.float32(first_x) + half - x0
            w1 = dx * step1 - (x2 - x0) * dy * inverse
            w2 = dx * step2 + (x1 - x0) * dy * inverse
            for x in range(first_x, last_x + 1):
                z = z0 + w1 * (z1 - z0) + w2 * (z2 - z0)
                if (min(w1, w2, one - w1 - w2) >= 0) & (z < depth[y, x]):  # one branch, because none is predictable
                    depth[y, x] = z
                    visible[y, x] = f
                w1 += step1
                w2 += step2


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def weights_at(screen: Floats, a: int, b: int, c: int, px: float, py: float) -> tuple[float, float, float]:
    """Barycentric weights of the point (px, py) in the projected triangle a b c, clamped to its inside."""
    x0, y0 = screen[a, 0], screen[a, 1]
    x1, y1 = screen[b, 0] - x0, screen[b, 1] - y0
    x2, y2 = screen[c, 0] - x0, screen[c, 1] - y0
    inverse = np.float32(1) / (x1 * y2 - x2 * y1)
    dx, dy = px - x0, py - y0
    w1 = min(max((dx * y2 - x2 * dy) * inverse, np.float32(0)), np.float32(1))
    w2 = min(max((x1 * dy - dx * y1) * inverse, np.float32(0)), np.float32(1))
    return np.float32(1) - w1 - w2, w1, w2


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def grain(x: int, y: int, seed: int) -> np.float32:
    """A hash of pixel and seed as a number in 0..1: the same noise on every machine, unlike a shared random state."""
    h = (
        np.uint32(x) * np.uint32(374761393)
        + np.uint32(y) * np.uint32(668265263)
        + np.uint32(seed) * np.uint32(974634777)
    )
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    h = h ^ (h >> np.uint32(16))
    return np.float32(h & np.uint32(0xFFFF)) / np.float32(65535.0)


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def sprite_place(u: float, v: float, extent: int) -> tuple[int, int]:
    """Row and column of the texel in a picture of extent x extent."""
    column = min(extent - 1, max(0, int(u * np.float32(extent))))
    row = min(extent - 1, max(0, int((np.float32(1) - v) * np.float32(extent))))
    return row, column


@nb.njit(cache=True, fastmath=True, nogil=True)
def draw_cutout(
    screen: Floats,
    faces: Ints,
    first: int,
    uv: Floats,
    sprite: Ints,
    sprites: NDArray[np.uint8],
    seed: int,
    depth: Floats,
    visible: Ints,
) -> None:
    """Hair cards: triangles faces[first:] drawn where their sprite's alpha passes a threshold that differs by pixel."""
    height, width = depth.shape
    side = sprites.shape[1]
    one, half = np.float32(1), np.float32(0.5)
    for f in range(first, faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0 = screen[a, 0], screen[a, 1]
        x1, y1 = screen[b, 0], screen[b, 1]
        x2, y2 = screen[c, 0], screen[c, 1]
        if abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)) < 1e-9:
            continue
        first_x = max(0, math.ceil(min(x0, x1, x2) - half))
        last_x = min(width - 1, math.floor(max(x0, x1, x2) - half))
        first_y = max(0, math.ceil(min(y0, y1, y2) - half))
        last_y = min(height - 1, math.floor(max(y0, y1, y2) - half))
        inverse = one / ((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
        for y in range(first_y, last_y + 1):
            for x in range(first_x, last_x + 1):
                dx, dy = np.float32(x) + half - x0, np.float32(y) + half - y0
                w1 = (dx * (y2 - y0) - (x2 - x0) * dy) * inverse
                w2 = ((x1 - x0) * dy - dx * (y1 - y0)) * inverse
                w0 = one - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                z = w0 * screen[a, 2] + w1 * screen[b, 2] + w2 * screen[c, 2]
                if z >= depth[y, x]:
                    continue
                u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
                v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
                row, column = sprite_place(u, v, side)
                if sprites[sprite[f], row, column, 3] > np.float32(20) + np.float32(200) * grain(x, y, seed):
                    depth[y, x] = z
                    visible[y, x] = f


@nb.njit(cache=True, fastmath=True, nogil=True)
def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """(V, 3) unit normals, each the area-weighted mean of its triangles'."""
    normals = np.zeros_like(vertices)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for i in range(normals.shape[0]):
        x, y, z = normals[i, 0], normals[i, 1], normals[i, 2]
        inverse = np.float32(1) / (math.sqrt(x * x + y * y + z * z) + np.float32(1e-12))
        normals[i, 0] *= inverse
        normals[i, 1] *= inverse
        normals[i, 2] *= inverse
    return normals
