"""Skin: one of the public textures, its tone changed over the whole human range, with lips, make-up, beard and spots.

Works on the texels that `facemap.py` covers. `relief.py` adds wrinkles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray

from .facemap import HEIGHT, LEFT, SCALE, TOP, WIDTH, FaceMap, canvas_at, canvas_place
from .tone import LINEAR, STORED

Floats = NDArray[np.float32]

# Skin in linear light from very light to very dark, interpolated between these: rounded guesses for the range of the
# six Fitzpatrick types.
TONES = np.array(
    [
        (0.74, 0.53, 0.43), (0.63, 0.42, 0.31), (0.52, 0.32, 0.21), (0.38, 0.215, 0.13), (0.23, 0.12, 0.07),
        (0.11, 0.058, 0.038), (0.055, 0.032, 0.024),
    ],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Skin:
    texture: NDArray[np.uint8]  # (T, T, 3)
    darkness: float  # 0 lightest .. 1 darkest


def draw_skin(
    rng: np.random.Generator, source: NDArray[np.uint8], face: FaceMap, male: bool, age: float, hair: Floats
) -> Skin:
    """`hair` (3,) is the linear colour of this person's hair, for the beard."""
    darkness = float(rng.beta(1.0, 1.15))
    side = source.shape[0]
    rows, columns = face.texture_slice(side)
    x, y = face.texels(side)
    cheeks = (np.abs(np.abs(x) - 0.55) < 0.2) & (np.abs(y + 0.6) < 0.2)
    mean = LINEAR[source[rows, columns][cheeks]].mean(0)
    stop = darkness * (len(TONES) - 1)
    low = min(int(stop), len(TONES) - 2)
    tone = TONES[low] + (stop - low) * (TONES[low + 1] - TONES[low])
    tone = tone * np.clip(1 + rng.normal(0, 0.05, 3), 0.85, 1.15)
    tint = np.clip(tone / np.maximum(mean, 1e-3), 0.05, 8).astype(np.float32)
    # Brightening a dark texture would exaggerate its contrast.
    contrast = 0.7 if tint.mean() > 1.5 else 1.0
    curves = tone * (LINEAR[:, None] / np.maximum(mean, 1e-3)) ** contrast  # (256, 3) linear
    table = (np.clip(curves, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)
    texture = np.ascontiguousarray(cv2.LUT(source, table[None]), np.uint8)
    patch = np.asarray(cv2.LUT(texture[rows, columns], LINEAR), np.float32)  # (h, w, 3) linear
    rough = rng.standard_normal((patch.shape[0] // 4, patch.shape[1] // 4, 3), np.float32)
    rough = 0.8 * rough[..., :1] + 0.3 * rough  # more reddish and pale than coloured
    blotch = cv2.GaussianBlur(rough, (0, 0), float(rng.uniform(0.5, 3)))
    blotch = cv2.resize(blotch, patch.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    patch = patch * (1 + blotch / max(float(blotch.std()), 1e-6) * np.float32(rng.uniform(0, 0.05)))

    def on(canvas: Floats) -> Floats:
        return canvas_at(canvas, x, y)

    def paint(mask: Floats, strength: float, colour: NDArray[np.floating]) -> None:
        _paint(patch, mask, np.float32(strength), colour.astype(np.float32))

    lips = on(_lips(face))
    if rng.random() < (0.45 if not male else 0.05):
        lipstick = rng.uniform([0.18, 0.01, 0.02], [0.75, 0.22, 0.25])
        paint(lips, rng.uniform(0.3, 0.9), lipstick)
    else:  # lips of every strength from skin-coloured to red
        red = rng.uniform(0.72, 1.05)
        green = red * rng.uniform(0.5, 0.82)
        natural = tone * np.array([red, green, green * rng.uniform(0.9, 1.15)])
        paint(lips, rng.uniform(0.1, 0.75), natural)
    if rng.random() < (0.5 if not male else 0.04):
        paint(on(_eye_shadow(face, rng)), rng.uniform(0.1, 0.6), tone * rng.uniform(0.1, 0.8, 3))
    if rng.random() < 0.9:  # lashes and eye liner: the dark rim of the upper lid
        paint(on(_eye_line(face, rng)), rng.uniform(0.2, 0.7), np.full(3, 0.015))
    if rng.random() < 0.3:
        paint(on(_cheek_spots(rng)), rng.uniform(0.1, 0.4), tone * np.array([1.15, 0.65, 0.65]))
    if rng.random() < 0.3 + 0.4 * age:  # shadows under the eyes
        paint(on(_under_eyes(face)), rng.uniform(0.1, 0.45), tone * np.array([0.55, 0.42, 0.45]))
    if rng.random() < 0.3:
        paint(_spots(rng, patch.shape, int(rng.integers(5, 120))), rng.uniform(0.2, 0.7), tone * 0.4)
    if male and rng.random() < 0.6:
        density = on(_beard(rng))
        strands = cv2.GaussianBlur(rng.standard_normal(patch.shape[:2], np.float32), (0, 0), 0.7)
        strength = rng.uniform(0.15, 0.5) if rng.random() < 0.5 else rng.uniform(0.6, 1.3)
        cover = np.clip(density * np.float32(strength) * (1 + np.float32(0.6) * strands), 0, np.float32(0.95))
        paint(cover, 1.0, hair * rng.uniform(0.6, 1.2))
    _store(texture[rows, columns], patch)
    return Skin(texture, darkness)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _paint(patch: Floats, mask: Floats, strength: np.float32, colour: Floats) -> None:
    """Mixes a colour (3,) into patch (H, W, 3) by mask (H, W)."""
    for y in range(patch.shape[0]):
        for x in range(patch.shape[1]):
            share = mask[y, x] * strength
            for k in range(3):
                patch[y, x, k] += share * (colour[k] - patch[y, x, k])


@nb.njit(cache=True, fastmath=True, nogil=True)
def _store(texels: NDArray[np.uint8], patch: Floats) -> None:
    """Linear light (H, W, 3) as bytes into texels."""
    for y in range(patch.shape[0]):
        for x in range(patch.shape[1]):
            for k in range(3):
                texels[y, x, k] = STORED[int(min(max(patch[y, x, k], np.float32(0)), np.float32(1)) * np.float32(4095))]


def _filled(polygons: list[NDArray[np.floating]], blur: float) -> Floats:
    """Polygons in eye distances -> (HEIGHT, WIDTH) 0..1, edges softened over `blur` eye distances."""
    canvas = np.zeros((HEIGHT, WIDTH), np.float32)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.round(canvas_place(polygon) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), blur * SCALE), np.float32)


@lru_cache(maxsize=2)
def _lips(face: FaceMap) -> Floats:
    return _filled([face.points[48:60]], 0.02)


def _eye_shadow(face: FaceMap, rng: np.random.Generator) -> Floats:
    height = rng.uniform(0.3, 0.9)
    shapes = []
    for lid, brow in ((slice(36, 40), slice(17, 22)), (slice(42, 46), slice(22, 27))):
        rim, above = face.points[lid], face.points[brow]
        top = rim + height * 0.7 * (above[[0, 1, 3, 4]] - rim)
        shapes.append(np.concatenate([rim, top[::-1]]))
    return _filled(shapes, 0.035)


def _eye_line(face: FaceMap, rng: np.random.Generator) -> Floats:
    canvas = np.zeros((HEIGHT, WIDTH), np.float32)
    for lid in (slice(36, 40), slice(42, 46)):
        pixels = np.round(canvas_place(face.points[lid]) * 16).astype(np.int32)
        cv2.polylines(canvas, [pixels], False, 1.0, int(rng.choice([2, 3, 5], p=[0.5, 0.35, 0.15])), cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.012 * SCALE), np.float32)


def _grid(coarse: int = 1) -> tuple[Floats, Floats]:
    """x and y in eye distances, of every `coarse`-th canvas pixel."""
    y, x = np.ogrid[: HEIGHT // coarse, : WIDTH // coarse]
    scale = np.float32(SCALE / coarse)
    return x.astype(np.float32) / scale + np.float32(LEFT), np.float32(TOP) - y.astype(np.float32) / scale


def _cheek_spots(rng: np.random.Generator) -> Floats:
    x, y = _grid()
    across, down = rng.uniform(0.5, 0.72), -rng.uniform(0.4, 0.75)
    return np.exp(-(((np.abs(x) - across) / 0.26) ** 2) - ((y - down) / 0.2) ** 2).astype(np.float32)


@lru_cache(maxsize=2)
def _under_eyes(face: FaceMap) -> Floats:
    x, y = _grid()
    return np.exp(-(((np.abs(x) - 0.45) / 0.2) ** 2) - ((y + 0.18) / 0.07) ** 2).astype(np.float32)


def _spots(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> Floats:
    """Freckles and moles anywhere in the texels."""
    canvas = np.zeros(shape[:2], np.float32)
    for row, column in zip(rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)):
        cv2.circle(
            canvas,
            (int(column), int(row)),
            int(rng.choice([0, 1, 2], p=[0.6, 0.33, 0.07])),
            float(rng.uniform(0.3, 1)),
            -1,
        )
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.6), np.float32)


def _beard(rng: np.random.Generator) -> Floats:
    """Where hair grows: full beard, moustache, goatee, or a shadow over all of it."""
    x, y = _grid(2)  # soft shapes, for which half the resolution is enough
    wide = np.abs(x)
    kind = rng.choice(["full", "moustache", "goatee", "moustache and goatee"], p=[0.6, 0.14, 0.1, 0.16])
    lower = 1 / (1 + np.exp((y + 0.95 + rng.uniform(-0.1, 0.15) - 0.55 * np.clip(wide - 0.55, 0, 1)) / 0.05))
    jaw = (
        lower * 1 / (1 + np.exp(-(wide + np.clip(-y - 1.28, 0, 1) * 2 - 0.5) / 0.05))
    )  # keeps clear of the sides of the lips
    chin = np.exp(-((wide / rng.uniform(0.22, 0.4)) ** 4) - ((y + 1.68) / 0.26) ** 4)
    upper = np.exp(-((wide / rng.uniform(0.4, 0.5)) ** 6) - ((y + 0.89 + 0.12 * wide) / 0.085) ** 4)
    area = {"full": np.maximum(np.maximum(jaw, chin), upper), "moustache": upper, "goatee": chin}.get(
        str(kind), np.maximum(chin, upper)
    )
    lips = np.exp(-((wide / 0.4) ** 4) - ((y + 1.13) / 0.15) ** 4)
    area = np.clip(area * (1 - 0.95 * lips), 0, 1).astype(np.float32)
    return np.asarray(cv2.resize(area, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.float32)
