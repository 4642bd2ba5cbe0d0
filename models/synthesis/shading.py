"""Colour for visible triangles: light (spherical harmonics, lamps, one shadow map) on skin, eyes, teeth, hair, cloth.

All light is linear (`tone.py` turns it into a picture). Knows no faces: what a triangle is made of comes as a number.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from .heads import CLOTH, EYE, HAIR, PLAIN, SKIN
from .rasteriser import draw, empty_buffers, weights_at

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]

SHADOW_SIDE = 192


def shadow_map(space: Floats, faces: Ints, direction: Floats) -> tuple[Floats, Floats]:
    """Depth seen from a lamp (S, S) and the (3, 4) matrix from camera space to its pixels."""
    z = direction / np.linalg.norm(direction)
    x = np.cross(np.array([0.0, 1.0, 0.0]), z)
    x /= np.linalg.norm(x) + 1e-9
    axes = np.stack([x, -np.cross(z, x), -z]).astype(np.float32)
    turned = np.ascontiguousarray(axes @ space.T)  # (3, V): minima along the long axis are fast
    near = turned[:, (np.abs(space[:, 0]) < 2.5) & (space[:, 1] > -2.5)]  # eye distances: the head, not the shoulders
    low, high = near.min(1), near.max(1)
    scale = SHADOW_SIDE / max(high[0] - low[0], high[1] - low[1])
    matrix = np.zeros((3, 4), np.float32)
    matrix[0, :3], matrix[0, 3] = axes[0] * scale, -low[0] * scale
    matrix[1, :3], matrix[1, 3] = axes[1] * scale, -low[1] * scale
    matrix[2, :3], matrix[2, 3] = axes[2], -low[2]
    screen = np.stack([(turned[0] - low[0]) * scale, (turned[1] - low[1]) * scale, turned[2] - low[2]], 1)
    depth, visible = empty_buffers(SHADOW_SIDE, SHADOW_SIDE)
    draw(np.ascontiguousarray(screen, np.float32), faces, depth, visible, True)
    return depth, matrix


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def _texel(texture: Bytes, lut: Floats, u: float, v: float) -> tuple[float, float, float]:
    """Bilinear in linear light."""
    rows, columns = texture.shape[0], texture.shape[1]
    one = np.float32(1)
    x = u * np.float32(columns) - np.float32(0.5)
    y = (one - v) * np.float32(rows) - np.float32(0.5)
    x0, y0 = min(columns - 1, max(0, int(x))), min(rows - 1, max(0, int(y)))
    ax, ay = x - np.float32(x0), y - np.float32(y0)
    x1, y1 = min(columns - 1, x0 + 1), min(rows - 1, y0 + 1)
    w00, w10, w01, w11 = (one - ax) * (one - ay), ax * (one - ay), (one - ax) * ay, ax * ay
    r = w00 * lut[texture[y0, x0, 0]] + w10 * lut[texture[y0, x1, 0]]
    g = w00 * lut[texture[y0, x0, 1]] + w10 * lut[texture[y0, x1, 1]]
    b = w00 * lut[texture[y0, x0, 2]] + w10 * lut[texture[y0, x1, 2]]
    r += w01 * lut[texture[y1, x0, 0]] + w11 * lut[texture[y1, x1, 0]]
    g += w01 * lut[texture[y1, x0, 1]] + w11 * lut[texture[y1, x1, 1]]
    b += w01 * lut[texture[y1, x0, 2]] + w11 * lut[texture[y1, x1, 2]]
    return r, g, b


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def _lit_by_shadow(matrix: Floats, shadow: Floats, bias: float, px: float, py: float, pz: float) -> np.float32:
    """The share of five taps around the point that the first lamp reaches."""
    side = shadow.shape[0]
    x = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]
    y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]
    z = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3] - bias
    column, row = int(x), int(y)
    if column < 2 or row < 2 or column >= side - 2 or row >= side - 2:
        return np.float32(1)
    lit = np.float32(0)
    if z < shadow[row, column]:
        lit += np.float32(0.2)
    if z < shadow[row - 2, column - 2]:
        lit += np.float32(0.2)
    if z < shadow[row - 2, column + 2]:
        lit += np.float32(0.2)
    if z < shadow[row + 2, column - 2]:
        lit += np.float32(0.2)
    if z < shadow[row + 2, column + 2]:
        lit += np.float32(0.2)
    return lit


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")  # a call would push some 150 words per pixel
def _shade_pixel(
    f: int, w0: float, w1: float, w2: float, faces: Ints, uv: Floats, material: Bytes, sprite: Ints, colour: Floats,
    openness: Floats, space: Floats, normals: Floats, texture: Bytes, lut: Floats, sprites: Bytes,
    shine: float, gloss: float, relief: Floats, window: Floats, cloth: Floats, harmonics: Floats, lamps: Floats,
    lamp_colours: Floats, shadow: Floats, matrix: Floats, bias: float, out: Floats,
) -> None:  # fmt: skip
    """Light from triangle f at the given weights towards the camera, into out (3,)."""
    one, zero = np.float32(1), np.float32(0)
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
    ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
    nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
    u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
    v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
    open_to = w0 * openness[a] + w1 * openness[b] + w2 * openness[c]
    kind = material[f]
    ux, uy, uz = space[b, 0] - space[a, 0], space[b, 1] - space[a, 1], space[b, 2] - space[a, 2]
    vx, vy, vz = space[c, 0] - space[a, 0], space[c, 1] - space[a, 1], space[c, 2] - space[a, 2]
    if kind == SKIN:
        r, g, bl = _texel(texture, lut, u, v)
        side = relief.shape[0]
        across, along = np.float32(side) / window[2], np.float32(side) / window[3]  # map texels per texture unit
        column, row = (u - window[0]) * across, (v - window[1]) * along
        if 1 <= column < side - 2 and 1 <= row < side - 2:
            # Bump mapping: the gradient of the height along the triangle bends the normal.
            i, j = int(row), int(column)
            ay, ax = row - np.float32(i), column - np.float32(j)
            h00, h01, h10, h11 = relief[i, j, 0], relief[i, j + 1, 0], relief[i + 1, j, 0], relief[i + 1, j + 1, 0]
            hu = ((one - ay) * (h01 - h00) + ay * (h11 - h10)) * across
            hv = ((one - ax) * (h10 - h00) + ax * (h11 - h01)) * along
            d1 = hu * (uv[f, 1, 0] - uv[f, 0, 0]) + hv * (uv[f, 1, 1] - uv[f, 0, 1])
            d2 = hu * (uv[f, 2, 0] - uv[f, 0, 0]) + hv * (uv[f, 2, 1] - uv[f, 0, 1])
            mx, my, mz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            inverse = one / (mx * mx + my * my + mz * mz + np.float32(1e-20))
            gx = (d2 * (my * uz - mz * uy) - d1 * (my * vz - mz * vy)) * inverse
            gy = (d2 * (mz * ux - mx * uz) - d1 * (mz * vx - mx * vz)) * inverse
            gz = (d2 * (mx * uy - my * ux) - d1 * (mx * vy - my * vx)) * inverse
            steep = gx * gx + gy * gy + gz * gz
            limit = one / math.sqrt(steep) if steep > one else one
            nx, ny, nz = nx - gx * limit, ny - gy * limit, nz - gz * limit
            open_to *= (one - ay) * ((one - ax) * relief[i, j, 1] + ax * relief[i, j + 1, 1]) + ay * (
                (one - ax) * relief[i + 1, j, 1] + ax * relief[i + 1, j + 1, 1]
            )
    elif kind == PLAIN:
        r = w0 * colour[a, 0] + w1 * colour[b, 0] + w2 * colour[c, 0]
        g = w0 * colour[a, 1] + w1 * colour[b, 1] + w2 * colour[c, 1]
        bl = w0 * colour[a, 2] + w1 * colour[b, 2] + w2 * colour[c, 2]
        r, g, bl = r * r, g * g, bl * bl
    elif kind == CLOTH:
        r, g, bl = cloth[0], cloth[1], cloth[2]
    else:
        extent = sprites.shape[1]
        column = min(extent - 1, max(0, int(u * np.float32(extent))))
        row = min(extent - 1, max(0, int((one - v) * np.float32(extent))))
        t = sprite[f]
        r = lut[sprites[t, row, column, 0]] * (w0 * colour[a, 0] + w1 * colour[b, 0] + w2 * colour[c, 0])
        g = lut[sprites[t, row, column, 1]] * (w0 * colour[a, 1] + w1 * colour[b, 1] + w2 * colour[c, 1])
        bl = lut[sprites[t, row, column, 2]] * (w0 * colour[a, 2] + w1 * colour[b, 2] + w2 * colour[c, 2])
    length = one / (math.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9))
    if nz < 0 and kind == HAIR:
        length = -length
    nx, ny, nz = nx * length, ny * length, nz * length
    if kind == EYE:
        open_to *= np.float32(0.85) - np.float32(0.5) * max(zero, ny)  # the upper lid shades the ball
    px = w0 * space[a, 0] + w1 * space[b, 0] + w2 * space[c, 0]
    py = w0 * space[a, 1] + w1 * space[b, 1] + w2 * space[c, 1]
    pz = w0 * space[a, 2] + w1 * space[b, 2] + w2 * space[c, 2]
    # Surrounding light.
    b4, b5, b6, b7, b8 = nx * ny, ny * nz, np.float32(3) * nz * nz - one, nx * nz, nx * nx - ny * ny
    h = harmonics
    e0 = h[0, 0] + h[1, 0] * ny + h[2, 0] * nz + h[3, 0] * nx + h[4, 0] * b4 + h[5, 0] * b5
    e1 = h[0, 1] + h[1, 1] * ny + h[2, 1] * nz + h[3, 1] * nx + h[4, 1] * b4 + h[5, 1] * b5
    e2 = h[0, 2] + h[1, 2] * ny + h[2, 2] * nz + h[3, 2] * nx + h[4, 2] * b4 + h[5, 2] * b5
    e0 += h[6, 0] * b6 + h[7, 0] * b7 + h[8, 0] * b8
    e1 += h[6, 1] * b6 + h[7, 1] * b7 + h[8, 1] * b8
    e2 += h[6, 2] * b6 + h[7, 2] * b7 + h[8, 2] * b8
    least = np.float32(0.02)
    e0, e1, e2 = max(e0, least) * open_to, max(e1, least) * open_to, max(e2, least) * open_to
    s0, s1, s2 = zero, zero, zero
    if kind == SKIN:
        strength, power = np.float32(shine), np.float32(gloss)
    elif kind == EYE:
        strength, power = np.float32(0.9), np.float32(150)
    elif kind == PLAIN:
        strength, power = np.float32(0.2), np.float32(40)
    elif kind == HAIR:
        strength, power = np.float32(0.08), np.float32(12)
    else:
        strength, power = np.float32(0.05), np.float32(10)
    # The edge of a rounded face reflects more than its middle.
    edge = one - max(zero, nz)
    strength *= one + np.float32(2) * edge * edge * edge
    for k in range(lamps.shape[0]):
        lit = _lit_by_shadow(matrix, shadow, bias, px, py, pz) if k == 0 else one
        facing = nx * lamps[k, 0] + ny * lamps[k, 1] + nz * lamps[k, 2]
        reached = lit * open_to if kind == PLAIN else lit * (np.float32(0.4) + np.float32(0.6) * open_to)
        if kind == SKIN:
            # Light scattered under the skin reaches past the terminator, red farthest.
            e0 += lamp_colours[k, 0] * max(zero, (facing + np.float32(0.34)) / np.float32(1.34)) * reached
            e1 += lamp_colours[k, 1] * max(zero, (facing + np.float32(0.20)) / np.float32(1.20)) * reached
            e2 += lamp_colours[k, 2] * max(zero, (facing + np.float32(0.14)) / np.float32(1.14)) * reached
        else:
            direct = max(zero, facing) * reached
            e0 += lamp_colours[k, 0] * direct
            e1 += lamp_colours[k, 1] * direct
            e2 += lamp_colours[k, 2] * direct
        hx, hy, hz = lamps[k, 0], lamps[k, 1], lamps[k, 2] + one
        half = (nx * hx + ny * hy + nz * hz) / (math.sqrt(hx * hx + hy * hy + hz * hz) + np.float32(1e-9))
        if half > 0.55:  # below it nothing is left of any highlight
            mirrored = strength * half**power * lit * open_to
            s0 += lamp_colours[k, 0] * mirrored
            s1 += lamp_colours[k, 1] * mirrored
            s2 += lamp_colours[k, 2] * mirrored
    out[0], out[1], out[2] = r * e0 + s0, g * e1 + s1, bl * e2 + s2


@nb.njit(cache=True, fastmath=True, nogil=True)
def shade(
    picture: Floats, visible: Ints, screen: Floats, faces: Ints, uv: Floats, material: Bytes, sprite: Ints,
    colour: Floats, openness: Floats, space: Floats, normals: Floats, texture: Bytes, lut: Floats, sprites: Bytes,
    shine: float, gloss: float, relief: Floats, window: Floats, cloth: Floats, harmonics: Floats,
    lamps: Floats, lamp_colours: Floats, shadow: Floats, matrix: Floats, bias: float,
) -> None:  # fmt: skip
    """Linear light of every covered pixel into picture (H, W, 3)."""
    height, width = visible.shape
    out = np.zeros(3, np.float32)
    for y in range(height):
        for x in range(width):
            f = visible[y, x]
            if f < 0:
                continue
            w0, w1, w2 = weights_at(
                screen, faces[f, 0], faces[f, 1], faces[f, 2], np.float32(x + 0.5), np.float32(y + 0.5)
            )
            _shade_pixel(
                f, w0, w1, w2, faces, uv, material, sprite, colour, openness, space, normals, texture, lut, sprites,
                shine, gloss, relief, window, cloth, harmonics, lamps, lamp_colours, shadow, matrix, bias, out,
            )  # fmt: skip
            picture[y, x, 0], picture[y, x, 1], picture[y, x, 2] = out[0], out[1], out[2]


@nb.njit(cache=True, fastmath=True, nogil=True)
def blend_cards(
    picture: Floats, depth: Floats, first: int, strength: float, margin: float, screen: Floats, faces: Ints, uv: Floats,
    material: Bytes, sprite: Ints, colour: Floats, openness: Floats, space: Floats, normals: Floats, texture: Bytes,
    lut: Floats, sprites: Bytes, shine: float, gloss: float, relief: Floats, window: Floats,
    cloth: Floats, harmonics: Floats, lamps: Floats, lamp_colours: Floats, shadow: Floats, matrix: Floats, bias: float,
) -> None:  # fmt: skip
    """Brows and lashes, triangles faces[first:], mixed over the picture by their sprite's alpha.

    `margin` lets a card that sinks a little into the skin be seen: brows follow the skin only roughly.
    """
    height, width = depth.shape
    extent = sprites.shape[1]
    out = np.zeros(3, np.float32)
    for f in range(first, faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0 = screen[a, 0], screen[a, 1]
        x1, y1, x2, y2 = screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        inverse = np.float32(1) / area
        for y in range(
            max(0, math.ceil(min(y0, y1, y2) - 0.5)), min(height - 1, math.floor(max(y0, y1, y2) - 0.5)) + 1
        ):
            for x in range(
                max(0, math.ceil(min(x0, x1, x2) - 0.5)),
                min(width - 1, math.floor(max(x0, x1, x2) - 0.5)) + 1,
            ):
                dx, dy = np.float32(x + 0.5) - x0, np.float32(y + 0.5) - y0
                w1 = (dx * (y2 - y0) - (x2 - x0) * dy) * inverse
                w2 = ((x1 - x0) * dy - dx * (y1 - y0)) * inverse
                w0 = 1 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                if w0 * screen[a, 2] + w1 * screen[b, 2] + w2 * screen[c, 2] >= depth[y, x] + margin:
                    continue
                u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
                v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
                column = min(extent - 1, max(0, int(u * extent)))
                row = min(extent - 1, max(0, int((1 - v) * extent)))
                alpha = min(np.float32(1), strength * sprites[sprite[f], row, column, 3] / np.float32(255))
                if alpha < 0.02:
                    continue
                _shade_pixel(
                    f, w0, w1, w2, faces, uv, material, sprite, colour, openness, space, normals, texture, lut,
                    sprites, shine, gloss, relief, window, cloth, harmonics, lamps, lamp_colours, shadow, matrix,
                    bias, out,
                )  # fmt: skip
                for k in range(3):
                    picture[y, x, k] += alpha * (out[k] - picture[y, x, k])
