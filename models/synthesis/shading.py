"""Colour for visible triangles: light (spherical harmonics, lamps, one shadow map) on skin, eyes, teeth, hair, cloth.

All light is linear; `tone.py` turns it into a picture. The material of a triangle is a number.

Samples (a pixel and a triangle) are collected in batches, and a batch passes through short loops, one for each step. A
batch stays in the processor's nearest cache and the compiler keeps a short loop in registers: the same arithmetic pixel
by pixel took three times as long.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from .heads import CLOTH, EYE, HAIR, PLAIN, SKIN
from .matter import Scene, Shadow
from .rasteriser import draw, empty_buffers, sprite_place, weights_at
from .tone import LINEAR

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]

SHADOW_SIDE = 192
SHADOW_BIAS = np.float32(0.12)  # eye distances; with less a face casts shadows on itself everywhere
BATCH = 256  # samples

# Rows of a batch's table: weights of the second and third corner, normal, place in space, texture coordinates, how
# much surrounding light arrives, colour, light on the colour, highlights.
W1, W2, NX, NY, NZ, PX, PY, PZ, U, V, OPEN, RED, GREEN, BLUE, LIT_R, LIT_G, LIT_B, HIGH_R, HIGH_G, HIGH_B = range(20)
ROWS = 20


def shadow_map(space: Floats, faces: Ints, direction: Floats) -> Shadow:
    """Depth of triangles faces (F, 3) of space (V, 3), seen from a lamp in this direction."""
    z = direction / np.linalg.norm(direction)
    x = np.cross(np.array([0.0, 1.0, 0.0]), z)
    x /= np.linalg.norm(x) + 1e-9
    matrix = np.zeros((3, 4), np.float32)
    matrix[:, :3] = x, -np.cross(z, x), -z
    screen = _seen_by_lamp(space, matrix)
    depth, visible = empty_buffers(SHADOW_SIDE, SHADOW_SIDE)
    draw(screen, faces, depth, visible, True)
    return Shadow(depth, matrix)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _seen_by_lamp(space: Floats, matrix: Floats) -> Floats:
    """Space (V, 3) in the lamp's pixels and depth. Scales and shifts `matrix` so that the head fills its picture."""
    turned = np.empty_like(space)
    low, high = np.full(3, np.inf, np.float32), np.full(3, -np.inf, np.float32)
    for i in range(space.shape[0]):
        of_head = abs(space[i, 0]) < 2.5 and space[i, 1] > -2.5  # eye distances: not the shoulders
        for k in range(3):
            value = matrix[k, 0] * space[i, 0] + matrix[k, 1] * space[i, 1] + matrix[k, 2] * space[i, 2]
            turned[i, k] = value
            if of_head:
                low[k], high[k] = min(low[k], value), max(high[k], value)
    scale = np.float32(SHADOW_SIDE) / max(high[0] - low[0], high[1] - low[1])
    for k in range(3):
        by = scale if k < 2 else np.float32(1)
        for i in range(space.shape[0]):
            turned[i, k] = (turned[i, k] - low[k]) * by
        for j in range(3):
            matrix[k, j] *= by
        matrix[k, 3] = -low[k] * by
    return turned


@nb.njit(cache=True, fastmath=True, nogil=True)
def shade(picture: Floats, visible: Ints, scene: Scene) -> None:
    """Linear light of every pixel with a visible triangle, (H, W), into picture (H, W, 3)."""
    height, width = visible.shape
    table, triangle, place = np.empty((ROWS, BATCH), np.float32), np.empty(BATCH, np.int32), np.empty(BATCH, np.int32)
    n = 0
    for y in range(height):
        for x in range(width):
            if visible[y, x] >= 0:
                triangle[n], place[n] = visible[y, x], y * width + x
                n += 1
            if n == BATCH or (n > 0 and y == height - 1 and x == width - 1):
                _light_samples(table, n, triangle, place, width, scene)
                for i in range(n):
                    row, column = place[i] // width, place[i] % width
                    picture[row, column, 0] = table[RED, i]
                    picture[row, column, 1] = table[GREEN, i]
                    picture[row, column, 2] = table[BLUE, i]
                n = 0


@nb.njit(cache=True, fastmath=True, nogil=True)
def blend_cards(picture: Floats, depth: Floats, scene: Scene, strength: float, margin: float) -> None:
    """Brows and lashes, the triangles after the cut-outs, mixed over the picture by their sprite's alpha.

    `margin` keeps cards visible that sink slightly into the skin: brows follow the skin only roughly.
    """
    height, width = depth.shape
    screen, mesh, sprites = scene.screen, scene.mesh, scene.sprites
    extent = sprites.shape[1]
    half = np.float32(0.5)
    table, triangle, place = np.empty((ROWS, BATCH), np.float32), np.empty(BATCH, np.int32), np.empty(BATCH, np.int32)
    alpha = np.empty(BATCH, np.float32)
    n = 0
    for f in range(mesh.cutout, mesh.faces.shape[0]):
        a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
        x0, y0 = screen[a, 0], screen[a, 1]
        x1, y1, x2, y2 = screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        inverse = np.float32(1) / area
        first_x, last_x = max(0, math.ceil(min(x0, x1, x2) - half)), math.floor(max(x0, x1, x2) - half)
        first_y, last_y = max(0, math.ceil(min(y0, y1, y2) - half)), math.floor(max(y0, y1, y2) - half)
        for y in range(first_y, min(height - 1, last_y) + 1):
            for x in range(first_x, min(width - 1, last_x) + 1):
                dx, dy = np.float32(x) + half - x0, np.float32(y) + half - y0
                w1 = (dx * (y2 - y0) - (x2 - x0) * dy) * inverse
                w2 = ((x1 - x0) * dy - dx * (y1 - y0)) * inverse
                w0 = np.float32(1) - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                if w0 * screen[a, 2] + w1 * screen[b, 2] + w2 * screen[c, 2] >= depth[y, x] + margin:
                    continue
                u = w0 * mesh.uv[f, 0, 0] + w1 * mesh.uv[f, 1, 0] + w2 * mesh.uv[f, 2, 0]
                v = w0 * mesh.uv[f, 0, 1] + w1 * mesh.uv[f, 1, 1] + w2 * mesh.uv[f, 2, 1]
                row, column = sprite_place(u, v, extent)
                covers = min(1.0, strength * sprites[mesh.sprite[f], row, column, 3] / 255)
                if covers < 0.02:
                    continue
                triangle[n], place[n], alpha[n] = f, y * width + x, covers
                n += 1
                if n == BATCH:
                    _blend(picture, table, n, triangle, place, alpha, scene)
                    n = 0
    _blend(picture, table, n, triangle, place, alpha, scene)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _blend(picture: Floats, table: Floats, n: int, triangle: Ints, place: Ints, alpha: Floats, scene: Scene) -> None:
    width = picture.shape[1]
    _light_samples(table, n, triangle, place, width, scene)
    for i in range(n):  # in order, because cards overlap
        row, column = place[i] // width, place[i] % width
        for k in range(3):
            picture[row, column, k] += alpha[i] * (table[RED + k, i] - picture[row, column, k])


@nb.njit(cache=True, fastmath=True, nogil=True)
def _light_samples(table: Floats, n: int, triangle: Ints, place: Ints, width: int, scene: Scene) -> None:
    """Light towards the camera from n samples, into the rows RED, GREEN and BLUE of table (ROWS, BATCH)."""
    _interpolate(table, n, triangle, place, width, scene)
    _find_colours(table, n, triangle, scene)
    _add_relief(table, n, triangle, scene)
    _add_surrounding_light(table, n, triangle, scene)
    for lamp in range(scene.light.directions.shape[0]):
        _add_lamp(table, n, triangle, lamp, scene)
    for i in range(n):
        for k in range(3):
            table[RED + k, i] = table[RED + k, i] * table[LIT_R + k, i] + table[HIGH_R + k, i]


@nb.njit(cache=True, fastmath=True, nogil=True)
def _interpolate(table: Floats, n: int, triangle: Ints, place: Ints, width: int, scene: Scene) -> None:
    """Attributes of the corners, interpolated at the sample."""
    space, normals, uv, openness = scene.space, scene.normals, scene.mesh.uv, scene.mesh.openness
    half = np.float32(0.5)
    for i in range(n):
        f = triangle[i]
        a, b, c = scene.mesh.faces[f, 0], scene.mesh.faces[f, 1], scene.mesh.faces[f, 2]
        px, py = np.float32(place[i] % width) + half, np.float32(place[i] // width) + half
        w0, w1, w2 = weights_at(scene.screen, a, b, c, px, py)
        table[W1, i], table[W2, i] = w1, w2
        for k in range(3):
            table[NX + k, i] = w0 * normals[a, k] + w1 * normals[b, k] + w2 * normals[c, k]
            table[PX + k, i] = w0 * space[a, k] + w1 * space[b, k] + w2 * space[c, k]
        for k in range(2):
            table[U + k, i] = w0 * uv[f, 0, k] + w1 * uv[f, 1, k] + w2 * uv[f, 2, k]
        table[OPEN, i] = w0 * openness[a] + w1 * openness[b] + w2 * openness[c]


@nb.njit(cache=True, fastmath=True, nogil=True)
def _find_colours(table: Floats, n: int, triangle: Ints, scene: Scene) -> None:
    """The share of light that the material reflects."""
    mesh, sprites, cloth = scene.mesh, scene.sprites, scene.surface.cloth
    for i in range(n):
        f = triangle[i]
        kind = mesh.material[f]
        if kind == SKIN:
            table[RED, i], table[GREEN, i], table[BLUE, i] = _texel(scene.surface.texture, table[U, i], table[V, i])
            continue
        if kind == CLOTH:
            table[RED, i], table[GREEN, i], table[BLUE, i] = cloth[0], cloth[1], cloth[2]
            continue
        a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
        w1, w2 = table[W1, i], table[W2, i]
        w0 = np.float32(1) - w1 - w2
        row, column = sprite_place(table[U, i], table[V, i], sprites.shape[1])
        for k in range(3):
            painted = w0 * mesh.colour[a, k] + w1 * mesh.colour[b, k] + w2 * mesh.colour[c, k]
            seen = painted if kind == PLAIN else LINEAR[sprites[mesh.sprite[f], row, column, k]]
            table[RED + k, i] = painted * seen


@nb.njit(cache=True, fastmath=True, nogil=True)
def _add_relief(table: Floats, n: int, triangle: Ints, scene: Scene) -> None:
    """Bump mapping: the gradient of the skin's height along the triangle bends the normal; furrows are darker."""
    mesh, space, relief, window = scene.mesh, scene.space, scene.surface.relief, scene.surface.window
    one = np.float32(1)
    side = relief.shape[0]
    across, along = np.float32(side) / window[2], np.float32(side) / window[3]  # map texels per texture unit
    for i in range(n):
        f = triangle[i]
        column, row = (table[U, i] - window[0]) * across, (table[V, i] - window[1]) * along
        if mesh.material[f] != SKIN or not (1 <= column < side - 2 and 1 <= row < side - 2):
            continue
        a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
        ux, uy, uz = space[b, 0] - space[a, 0], space[b, 1] - space[a, 1], space[b, 2] - space[a, 2]
        vx, vy, vz = space[c, 0] - space[a, 0], space[c, 1] - space[a, 1], space[c, 2] - space[a, 2]
        r, s = int(row), int(column)
        ay, ax = row - np.float32(r), column - np.float32(s)
        h00, h01, h10, h11 = relief[r, s, 0], relief[r, s + 1, 0], relief[r + 1, s, 0], relief[r + 1, s + 1, 0]
        hu = ((one - ay) * (h01 - h00) + ay * (h11 - h10)) * across
        hv = ((one - ax) * (h10 - h00) + ax * (h11 - h01)) * along
        d1 = hu * (mesh.uv[f, 1, 0] - mesh.uv[f, 0, 0]) + hv * (mesh.uv[f, 1, 1] - mesh.uv[f, 0, 1])
        d2 = hu * (mesh.uv[f, 2, 0] - mesh.uv[f, 0, 0]) + hv * (mesh.uv[f, 2, 1] - mesh.uv[f, 0, 1])
        mx, my, mz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        inverse = one / (mx * mx + my * my + mz * mz + np.float32(1e-20))
        gx = (d2 * (my * uz - mz * uy) - d1 * (my * vz - mz * vy)) * inverse
        gy = (d2 * (mz * ux - mx * uz) - d1 * (mz * vx - mx * vz)) * inverse
        gz = (d2 * (mx * uy - my * ux) - d1 * (mx * vy - my * vx)) * inverse
        steep = gx * gx + gy * gy + gz * gz
        limit = one / math.sqrt(steep) if steep > one else one
        table[NX, i] -= gx * limit
        table[NY, i] -= gy * limit
        table[NZ, i] -= gz * limit
        table[OPEN, i] *= (one - ay) * ((one - ax) * relief[r, s, 1] + ax * relief[r, s + 1, 1]) + ay * (
            (one - ax) * relief[r + 1, s, 1] + ax * relief[r + 1, s + 1, 1]
        )


@nb.njit(cache=True, fastmath=True, nogil=True)
def _add_surrounding_light(table: Floats, n: int, triangle: Ints, scene: Scene) -> None:
    """Normals to length 1; the spherical harmonics at them; no highlights yet."""
    h = scene.light.harmonics
    one, zero, least = np.float32(1), np.float32(0), np.float32(0.02)
    for i in range(n):
        kind = scene.mesh.material[triangle[i]]
        x, y, z = table[NX, i], table[NY, i], table[NZ, i]
        length = one / (math.sqrt(x * x + y * y + z * z) + np.float32(1e-9))
        if z < 0 and kind == HAIR:  # cards are visible from both sides
            length = -length
        x, y, z = x * length, y * length, z * length
        table[NX, i], table[NY, i], table[NZ, i] = x, y, z
        if kind == EYE:
            table[OPEN, i] *= np.float32(0.85) - np.float32(0.5) * max(zero, y)  # the upper lid shades the ball
        b4, b5, b6, b7, b8 = x * y, y * z, np.float32(3) * z * z - one, x * z, x * x - y * y
        for k in range(3):
            near = h[0, k] + h[1, k] * y + h[2, k] * z + h[3, k] * x
            far = h[4, k] * b4 + h[5, k] * b5 + h[6, k] * b6 + h[7, k] * b7 + h[8, k] * b8
            table[LIT_R + k, i] = max(near + far, least) * table[OPEN, i]
            table[HIGH_R + k, i] = zero


@nb.njit(cache=True, fastmath=True, nogil=True)
def _add_lamp(table: Floats, n: int, triangle: Ints, lamp: int, scene: Scene) -> None:
    surface, material, colour = scene.surface, scene.mesh.material, scene.light.colours[lamp]
    one, zero = np.float32(1), np.float32(0)
    lx, ly, lz = scene.light.directions[lamp]
    length = one / (math.sqrt(lx * lx + ly * ly + (lz + one) * (lz + one)) + np.float32(1e-9))
    hx, hy, hz = lx * length, ly * length, (lz + one) * length  # halfway between lamp and camera
    for i in range(n):
        kind = material[triangle[i]]
        x, y, z, open_to = table[NX, i], table[NY, i], table[NZ, i], table[OPEN, i]
        lit = one
        if lamp == 0:
            lit = _lit_by_shadow(scene.shadow.matrix, scene.shadow.depth, table[PX, i], table[PY, i], table[PZ, i])
        facing = x * lx + y * ly + z * lz
        reached = lit * open_to if kind == PLAIN else lit * (np.float32(0.4) + np.float32(0.6) * open_to)
        past_r, past_g, past_b = zero, zero, zero
        if kind == SKIN:  # light scattered under the skin reaches past the terminator, red farthest
            past_r, past_g, past_b = np.float32(0.34), np.float32(0.20), np.float32(0.14)
        table[LIT_R, i] += colour[0] * max(zero, (facing + past_r) / (one + past_r)) * reached
        table[LIT_G, i] += colour[1] * max(zero, (facing + past_g) / (one + past_g)) * reached
        table[LIT_B, i] += colour[2] * max(zero, (facing + past_b) / (one + past_b)) * reached
        half = x * hx + y * hy + z * hz
        if half > np.float32(0.55):  # below it no highlight is visible
            strength, power = np.float32(0.05), np.float32(10)
            if kind == SKIN:
                strength, power = np.float32(surface.shine), np.float32(surface.gloss)
            elif kind == EYE:
                strength, power = np.float32(0.9), np.float32(150)
            elif kind == PLAIN:
                strength, power = np.float32(0.2), np.float32(40)
            elif kind == HAIR:
                strength, power = np.float32(0.08), np.float32(12)
            edge = one - max(zero, z)  # the edge of a rounded face reflects more than its middle
            mirrored = strength * (one + np.float32(2) * edge * edge * edge) * half**power * lit * open_to
            for k in range(3):
                table[HIGH_R + k, i] += colour[k] * mirrored


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def _texel(texture: Bytes, u: float, v: float) -> tuple[float, float, float]:
    """Bilinear in linear light."""
    rows, columns = texture.shape[0], texture.shape[1]
    one = np.float32(1)
    x = u * np.float32(columns) - np.float32(0.5)
    y = (one - v) * np.float32(rows) - np.float32(0.5)
    x0, y0 = min(columns - 1, max(0, int(x))), min(rows - 1, max(0, int(y)))
    ax, ay = x - np.float32(x0), y - np.float32(y0)
    x1, y1 = min(columns - 1, x0 + 1), min(rows - 1, y0 + 1)
    w00, w10, w01, w11 = (one - ax) * (one - ay), ax * (one - ay), (one - ax) * ay, ax * ay
    r = w00 * LINEAR[texture[y0, x0, 0]] + w10 * LINEAR[texture[y0, x1, 0]]
    g = w00 * LINEAR[texture[y0, x0, 1]] + w10 * LINEAR[texture[y0, x1, 1]]
    b = w00 * LINEAR[texture[y0, x0, 2]] + w10 * LINEAR[texture[y0, x1, 2]]
    r += w01 * LINEAR[texture[y1, x0, 0]] + w11 * LINEAR[texture[y1, x1, 0]]
    g += w01 * LINEAR[texture[y1, x0, 1]] + w11 * LINEAR[texture[y1, x1, 1]]
    b += w01 * LINEAR[texture[y1, x0, 2]] + w11 * LINEAR[texture[y1, x1, 2]]
    return r, g, b


@nb.njit(cache=True, fastmath=True, nogil=True, inline="always")
def _lit_by_shadow(matrix: Floats, shadow: Floats, px: float, py: float, pz: float) -> np.float32:
    """The share of five taps around the point that the first lamp reaches."""
    side = shadow.shape[0]
    x = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz + matrix[0, 3]
    y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz + matrix[1, 3]
    z = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz + matrix[2, 3] - SHADOW_BIAS
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
