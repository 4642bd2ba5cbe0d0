"""Wrinkles: furrows that come with an action unit, and the same furrows at rest in older faces.

A furrow is a line on the front view of the face (see `facemap.py`), slightly different in every drawing. A bank of
drawings is made once; a person gets one of each, scaled. Heights are in eye distances, negative into the skin.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray

from .facemap import HEIGHT, LEFT, SCALE, SIDE, TOP, WIDTH, FaceMap, canvas_place
from .furrows import GROUPS, FurrowGroup
from .units import INDEX

Floats = NDArray[np.float32]

DRAWINGS = 10  # of each furrow group


@dataclass(frozen=True)
class Furrow:
    """One group on one side in one drawing, cropped to its extent."""

    place: tuple[slice, slice]
    height: Floats  # (h, w) eye distances at intensity 1, for depth factor 1
    shadow: Floats  # (h, w) 0..1, share of the surrounding light that it blocks


Bank = dict[str, tuple[tuple[Furrow, Furrow], ...]]  # per group its drawings, each of the two sides


@dataclass(frozen=True)
class Wrinkles:
    """A person's choice from the bank."""

    furrows: dict[str, tuple[Furrow, Furrow]]
    depth: dict[str, float]  # factor on the depth of a furrow that a unit causes
    rest: dict[str, float]  # share that stays in the resting face
    ground: Floats  # (SIDE, SIDE, 2) the relief without furrows: pores and unevenness of the skin, no shadow
    shade: float  # how dark a furrow of strength 1 is

    def relief(self, intensity: NDArray[np.floating]) -> Floats:
        """(SIDE, SIDE, 2): height, and the factor on the arriving light, for intensities (A, 2)."""
        relief = self.ground.copy()
        for name, sides in self.furrows.items():
            for side, furrow in enumerate(sides):
                active = sum(weight * float(intensity[INDEX[unit], side]) for unit, weight in GROUPS[name].units)
                strength = self.depth[name] * float(np.clip(active, 0.0, 1.2)) ** 1.2 + self.rest[name]
                if strength > 0.03:
                    dark = min(strength * self.shade, 0.75)
                    _press(relief[furrow.place], furrow.height, furrow.shadow, np.float32(strength), np.float32(dark))
        return relief


@nb.njit(cache=True, fastmath=True, nogil=True)
def _press(relief: Floats, height: Floats, shadow: Floats, strength: np.float32, dark: np.float32) -> None:
    """Adds a furrow (H, W) to its part (H, W, 2) of a relief."""
    for y in range(relief.shape[0]):
        for x in range(relief.shape[1]):
            relief[y, x, 0] += strength * height[y, x]
            relief[y, x, 1] *= np.float32(1) - dark * shadow[y, x]


def draw_wrinkles(rng: np.random.Generator, bank: Bank, age: float) -> Wrinkles:
    """From smooth young faces to furrowed old ones: age sets the depth and the share that stays at rest."""
    looks = float(np.exp(rng.normal(0, 0.3))) * (0.6 + 0.9 * age)
    depth, rest, furrows = {}, {}, {}
    old = max(age - 0.35, 0.0) / 0.65
    for name, group in GROUPS.items():
        furrows[name] = bank[name][int(rng.integers(DRAWINGS))]
        depth[name] = looks * float(np.exp(rng.normal(0, 0.35)))
        rest[name] = float(rng.uniform(0, 1.0)) * group.rest * old * looks * 0.8
    grid = rng.standard_normal((SIDE, SIDE), np.float32)
    pores = cv2.GaussianBlur(grid, (0, 0), 0.9) * np.float32(rng.uniform(0.0, 0.004))
    uneven = cv2.GaussianBlur(grid, (0, 0), 4) * np.float32(rng.uniform(0.0, 0.02) * (0.3 + age))
    ground = np.stack([pores + uneven, np.ones_like(pores)], 2)
    return Wrinkles(furrows, depth, rest, ground, float(rng.uniform(0.25, 0.6)))


@lru_cache(maxsize=2)
def furrow_bank(face: FaceMap) -> Bank:
    rng = np.random.default_rng(20_000)  # the same bank for all seeds; the seed of a person selects from it
    return {
        name: tuple((_furrow(rng, group, face, -1), _furrow(rng, group, face, 1)) for _ in range(DRAWINGS))
        for name, group in GROUPS.items()
    }


def _furrow(rng: np.random.Generator, group: FurrowGroup, face: FaceMap, side: int) -> Furrow:
    height, shadow = (_peel if group.bumps else _lines)(rng, group, side)
    # Each side has half of the middle, so that two sides at full intensity make one whole furrow.
    x = (np.arange(WIDTH) + 0.5) / SCALE + LEFT
    share = np.clip(0.5 + side * x / 0.12, 0, 1).astype(np.float32)
    height, shadow = face.from_canvas(height * share), face.from_canvas(shadow * share)
    rows, columns = np.nonzero(np.abs(height) > 2e-4)
    place = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    return Furrow(place, height[place].copy(), shadow[place].copy())


def _lines(rng: np.random.Generator, group: FurrowGroup, side: int) -> tuple[Floats, Floats]:
    deep = np.zeros((HEIGHT, WIDTH), np.float32)
    stretch, shift = 1 + rng.normal(0, 0.03), rng.normal(0, 0.5, 2) * group.wander
    for line in group.lines:
        points = np.array(line) * stretch + shift + rng.normal(0, group.wander * 0.6, (len(line), 2))
        points = np.stack(
            [np.interp(np.linspace(0, 1, 24), np.linspace(0, 1, len(line)), points[:, k]) for k in (0, 1)], 1
        )
        points[:, 0] *= side
        stroke = np.zeros_like(deep)
        pixels = np.round(canvas_place(points) * 16).astype(np.int32)
        strength = rng.uniform(0.45, 1.0)
        # A furrow fades out at its ends.
        for i, (start, end) in enumerate(itertools.pairwise(pixels)):
            fade = strength * np.sin(np.pi * (i + 1) / 24) ** 0.6
            cv2.line(stroke, tuple(map(int, start)), tuple(map(int, end)), float(fade), 2, cv2.LINE_AA, 4)
        deep = np.maximum(deep, stroke)
    sigma = group.width * SCALE
    narrow, wide = cv2.GaussianBlur(deep, (0, 0), sigma), cv2.GaussianBlur(deep, (0, 0), sigma * 2.2)
    scale = 1 / max(float(narrow.max()), 1e-6)
    # The skin displaced by the furrow bulges next to it.
    dark = min(1.0, 0.02 / group.width)  # a wide fold shows by its shading, not as a dark line
    return -group.depth * scale * (narrow - 0.8 * wide), dark * narrow * scale


def _peel(rng: np.random.Generator, group: FurrowGroup, side: int) -> tuple[Floats, Floats]:
    """The dimpled chin: bumps of a few millimetres within an ellipse."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = x / SCALE + LEFT, TOP - y / SCALE
    patch = np.exp(-(((x / 0.24) ** 2 + ((y + 1.58) / 0.14) ** 2) ** 2))
    grid = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    bumps = cv2.GaussianBlur(grid, (0, 0), group.width * SCALE) - cv2.GaussianBlur(
        grid, (0, 0), group.width * SCALE * 2
    )
    bumps *= patch / max(float(bumps.std()) * 2, 1e-6)
    return group.bumps * bumps, np.clip(-bumps, 0, 1)
