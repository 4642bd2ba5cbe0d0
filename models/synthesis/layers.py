"""Long hair, scarves and glasses: drawn over or behind a rendered head in the picture plane, but positioned in space.

Shapes are polygons in the space of the head (eye distances); pose and lens project them, so they turn with the head.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray

from .camera import Frame, Lens

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Wrap:
    """Long hair, a hood or a scarf around the face: one outline behind the head, two in front of its sides."""

    behind: Floats  # (K, 3)
    before: tuple[Floats, ...]  # each (K, 3)
    colour: Floats  # (3,) linear
    strands: float  # how streaky: 0 cloth .. 1 hair
    seed: int


@dataclass(frozen=True)
class Glasses:
    rims: tuple[Floats, Floats]  # (K, 3) closed lines
    bars: tuple[Floats, ...]  # bridge and temples, (K, 3)
    colour: Floats  # (3,) as stored, 0..1
    thickness: float  # eye distances
    tint: float  # how dark the lenses are
    glare: float


def draw_wrap(rng: np.random.Generator, colour: Floats, scarf: bool) -> Wrap:
    """Long hair with a parting, or a scarf that closes under the chin."""
    length = -1.95 if scarf else -float(rng.uniform(1.1, 3.2))
    wide, top = float(rng.uniform(1.08, 1.4)), float(rng.uniform(1.32, 1.55))
    turn = np.linspace(0, np.pi, 15)
    arch = [(wide * np.cos(t), 0.15 + (top - 0.15) * np.sin(t), -0.75) for t in turn]
    low = wide * float(rng.uniform(0.9, 1.25))
    behind = np.array(
        [*arch, (-low, length * 0.5, -0.7), (-low, length, -0.6), (low, length, -0.6), (low, length * 0.5, -0.7)]
    )
    part = 0.0 if scarf else float(rng.normal(0, 0.25))
    before = []
    for side in (-1, 1):
        edge = float(rng.uniform(0.74, 0.95))  # how far to the side the hair's inner edge hangs
        brow = 0.72 if scarf else float(rng.uniform(0.45, 0.85))
        hang = length * (1.0 if scarf else float(rng.uniform(0.6, 1.0)))
        inner = [
            (part, top - 0.22, 0.0),
            (part + side * 0.4 * abs(side * edge - part), 0.6 + 0.45 * brow, 0.12),
            (side * edge * 0.92, brow * 0.8, 0.0),
            (side * edge, -0.2, -0.12),
            (side * edge * float(rng.uniform(0.94, 1.12)), -0.95, -0.15),
            (
                side * (0.45 if scarf else edge * float(rng.uniform(0.95, 1.25))),
                min(hang, -1.3),
                -0.05 if scarf else -0.2,
            ),
        ]
        if scarf:
            inner.append((0.0, -1.86, 0.05))
        outer = [
            (0.0 if scarf else side * wide * 1.05, hang - (0.25 if scarf else 0.0), -0.4),
            (side * wide * 1.02, -0.5, -0.5),
            (side * wide, 0.2, -0.55),
            (side * wide * 0.8, top * 0.85, -0.5),
            (part, top, -0.4),
        ]
        before.append(np.array([*inner, *outer], np.float32))
    strands = 0.15 if scarf else float(rng.uniform(0.5, 1.0))
    return Wrap(behind.astype(np.float32), tuple(before), colour, strands, int(rng.integers(1 << 30)))


def draw_glasses(rng: np.random.Generator, eyes: Floats) -> Glasses:
    """`eyes` (2, 3): the centres of the eyes, left of the picture first."""
    wide, high = float(rng.uniform(0.29, 0.40)), float(rng.uniform(0.17, 0.33))
    power = float(rng.uniform(1.8, 4.5))  # round to square
    drop, forward = float(rng.uniform(-0.02, 0.08)), float(rng.uniform(0.22, 0.32))
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    rims = []
    for side, eye in zip((-1, 1), eyes):
        c, s = np.cos(turn), np.sin(turn)
        x = eye[0] + side * 0.03 + wide * np.sign(c) * np.abs(c) ** (2 / power)
        y = eye[1] - drop + high * np.sign(s) * np.abs(s) ** (2 / power)
        z = eye[2] + forward - 0.16 * np.maximum(0, np.abs(x) - 0.3) ** 2 * 2
        rims.append(np.stack([x, y, z], 1).astype(np.float32))
    left, right = rims[0][rims[0][:, 0].argmax()], rims[1][rims[1][:, 0].argmin()]
    up = np.array([0, high * 0.3, 0.04], np.float32)
    bridge = np.stack([left + up * 0.6, (left + right) / 2 + up * 1.6, right + up * 0.6])
    bars = [bridge]
    for side, rim in zip((-1, 1), rims):
        hinge = rim[(side * rim[:, 0]).argmax()] + np.array([0, high * 0.35, 0], np.float32)
        ear = np.array([side * 1.0, 0.02, -1.0], np.float32)
        bars.append(np.linspace(hinge, ear, 12).astype(np.float32))
    palette = [
        (0.03, 0.03, 0.03),
        (0.15, 0.08, 0.05),
        (0.55, 0.55, 0.57),
        (0.6, 0.48, 0.25),
        (0.3, 0.05, 0.08),
        (0.1, 0.12, 0.3),
    ]
    colour = np.array(palette[int(rng.choice(6, p=[0.4, 0.16, 0.22, 0.1, 0.06, 0.06]))], np.float32)
    tint = float(rng.uniform(0.6, 0.97)) if rng.random() < 0.12 else float(rng.uniform(0, 0.12))
    glare = float(rng.uniform(0.1, 0.55)) if rng.random() < 0.4 else 0.0
    return Glasses(
        (rims[0], rims[1]), tuple(bars), colour, float(np.exp(rng.uniform(np.log(0.012), np.log(0.07)))), tint, glare
    )


def _projected(shape: Floats, rotation: Floats, lens: Lens, frame: Frame) -> Floats:
    return lens.project(np.ascontiguousarray(shape @ rotation.T), frame)


def _smooth(points: Floats) -> Floats:
    """A closed outline with its corners cut twice (Chaikin)."""
    for _ in range(2):
        ahead = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * ahead, 0.25 * points + 0.75 * ahead], 1).reshape(-1, points.shape[1])
    return np.asarray(points, np.float32)


def fill(outline: Floats, frame: Frame) -> Floats:
    """(K, 2) pixels -> coverage (H, W) in 0..1."""
    mask = np.zeros(frame, np.uint8)
    cv2.fillPoly(mask, [np.round(np.clip(outline, -4e3, 4e3) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(mask / np.float32(255), np.float32)


def put_wrap(
    wrap: Wrap, linear: Floats, covered: Mask, light: Floats, rotation: Floats, lens: Lens
) -> tuple[Mask, Mask]:
    """Draws it into the linear light (H, W, 3). Returns masks: covered pixels, and those in front of the head."""
    frame = (linear.shape[0], linear.shape[1])
    behind = fill(_smooth(_projected(wrap.behind, rotation, lens, frame)[:, :2]), frame)
    rng = np.random.default_rng(wrap.seed)
    streaks = rng.standard_normal(
        (frame[0] // 4, frame[1]), np.float32
    )  # long ones, for which a quarter of the rows is enough
    streaks = cv2.GaussianBlur(streaks, (0, 0), sigmaX=0.8, sigmaY=2.25)
    streaks = cv2.resize(streaks / np.float32(streaks.std() + 1e-6), frame[::-1], interpolation=cv2.INTER_LINEAR)
    soft = cv2.resize(rng.standard_normal((7, 7), np.float32), frame[::-1], interpolation=cv2.INTER_CUBIC)
    shine = np.exp(np.float32(0.35 * wrap.strands) * streaks + np.float32(0.3) * soft)
    front = np.zeros(frame, np.float32)
    for shape in wrap.before:
        front = np.maximum(front, fill(_smooth(_projected(shape, rotation, lens, frame)[:, :2]), frame))
    if wrap.strands > 0.3:  # single strands stick out at the edge
        front = np.clip(
            cv2.GaussianBlur(front, (0, 0), 1.2) + np.float32(0.25) * streaks * (front > 0) * (front < 1), 0, 1
        )
    _cover(linear, covered, behind, front, shine, wrap.colour * light)
    return covered | (behind > 0.5) | (front > 0.5), front > 0.5


@nb.njit(cache=True, fastmath=True, nogil=True)
def _cover(linear: Floats, covered: Mask, behind: Floats, front: Floats, shine: Floats, colour: Floats) -> None:
    """Mixes colour (3,), scaled by `shine`, behind and over covered pixels; the other pixels of `linear` are black."""
    for y in range(linear.shape[0]):
        for x in range(linear.shape[1]):
            for k in range(3):
                level = shine[y, x] * colour[k]
                back = linear[y, x, k] if covered[y, x] else np.float32(0.55) * behind[y, x] * level
                linear[y, x, k] = back + front[y, x] * (level - back)


def put_glasses(
    glasses: Glasses, image: Floats, depth: Floats, rotation: Floats, lens: Lens, angle: float
) -> tuple[Floats, Mask]:
    """Draws them into the developed picture (H, W, 3). Returns it, and a mask of what the lenses hide."""
    frame = (image.shape[0], image.shape[1])
    lenses = np.zeros(frame, np.float32)
    ink = np.zeros(frame, np.uint8)
    width = max(1, round(glasses.thickness * lens.eye_distance * frame[0]))
    for rim in glasses.rims:
        outline = _projected(rim, rotation, lens, frame)
        lenses = np.maximum(lenses, fill(outline[:, :2], frame))
        _line(ink, np.concatenate([outline, outline[:1]]), None, width)
    for i, bar in enumerate(glasses.bars):
        _line(ink, _projected(bar, rotation, lens, frame), depth if i else None, width)
    if glasses.tint > 0:
        image = image * (1 - np.float32(glasses.tint) * lenses)[..., None]
    if glasses.glare > 0:
        y, x = np.mgrid[: frame[0], : frame[1]].astype(np.float32) / frame[0]
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 40 + angle * 7)
        image = image + (np.float32(glasses.glare) * lenses * np.clip(wave - 0.6, 0, 1) * 2)[..., None] * (1 - image)
    alpha = (ink.astype(np.float32) / 255)[..., None]
    image = image + alpha * (glasses.colour - image)
    hidden = lenses > 0.5 if glasses.tint > 0.5 else np.zeros(frame, bool)
    return np.asarray(image, np.float32), hidden


def _line(mask: NDArray[np.uint8], line: Floats, depth: Floats | None, width: int) -> None:
    """A line (K, 3) in pixels and depth; given a depth buffer, only where the head does not hide it."""
    last = np.array([mask.shape[1] - 1, mask.shape[0] - 1])
    for start, end in itertools.pairwise(line):
        if depth is not None:
            x, y = (int(v) for v in np.clip((start[:2] + end[:2]) / 2, 0, last))
            if depth[y, x] < (start[2] + end[2]) / 2 - 0.02:
                continue
        a, b = (tuple(int(v) for v in np.round(np.clip(p[:2], -4e3, 4e3) * 16)) for p in (start, end))
        cv2.line(mask, a, b, 255, width, cv2.LINE_AA, 4)
