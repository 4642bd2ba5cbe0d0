"""Pose, lens, light, and what a camera does to a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray

from .matter import Light

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Frame = tuple[int, int]  # height and width in pixels


HEADROOM = 1.8  # light above 1 is not clipped at once: cameras roll highlights off


@dataclass(frozen=True)
class HeadPose:
    """Degrees, with the signs of `engine/tracking/pose.py`; turned by yaw first, then pitch, then roll."""

    yaw: float
    pitch: float
    roll_clockwise: float

    def rotation(self) -> Floats:
        yaw, pitch, roll = (math.radians(angle) for angle in (self.yaw, -self.pitch, -self.roll_clockwise))
        turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
        lean = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
        return np.asarray(lean @ nod @ turn, np.float32)


@dataclass(frozen=True)
class Lens:
    fov: float  # degrees, over the picture's height
    eye_distance: float  # between the eyes of a frontal face, as a share of the picture's height
    centre: tuple[float, float]  # of the middle between the eyes, as shares of width and height

    def project(self, space: Floats, frame: Frame) -> Floats:
        """Camera space (V, 3) in eye distances -> screen (V, 3): x, y in pixels of the frame, and depth."""
        height, width = frame
        focal = 0.5 * height / math.tan(math.radians(self.fov) / 2)
        distance = focal / (self.eye_distance * height)
        middle = self.centre[0] * width, self.centre[1] * height
        return np.asarray(_projected(space, focal, distance, *middle), np.float32)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _projected(space: Floats, focal: float, distance: float, middle_x: float, middle_y: float) -> Floats:
    screen = np.empty((space.shape[0], 3), np.float32)
    for i in range(space.shape[0]):
        depth = max(np.float32(distance) - space[i, 2], np.float32(0.1))
        scale = np.float32(focal) / depth
        screen[i, 0] = np.float32(middle_x) + scale * space[i, 0]
        screen[i, 1] = np.float32(middle_y) - scale * space[i, 1]
        screen[i, 2] = depth
    return screen


def draw_pose(rng: np.random.Generator) -> HeadPose:
    """Mostly near frontal, occasionally up to 40 degrees."""
    yaw = rng.normal(0, 14) if rng.random() < 0.7 else rng.uniform(-40, 40)
    return HeadPose(
        float(np.clip(yaw, -40, 40)),
        float(np.clip(rng.normal(0, 9), -28, 28)),
        -float(np.clip(rng.normal(0, 7), -30, 30)),
    )


def draw_lens(rng: np.random.Generator) -> Lens:
    return Lens(
        fov=float(np.exp(rng.uniform(np.log(6), np.log(38)))),
        eye_distance=float(rng.uniform(0.185, 0.25)),
        centre=(0.5 + float(rng.normal(0, 0.02)), 0.415 + float(rng.normal(0, 0.02))),
    )


def draw_light(rng: np.random.Generator) -> Light:
    base = rng.uniform(0.25, 0.8)
    tinted = 0.13 if rng.random() < 0.2 else 0.05  # coloured lamps are the exception
    colour = np.clip(1 + rng.normal(0, tinted, 3), 0.6, 1.4)
    harmonics = np.zeros((9, 3), np.float32)
    harmonics[0] = base * colour
    for k in range(1, 9):
        harmonics[k] = (
            rng.normal(0, 0.17 if k < 4 else 0.06) * base * np.clip(1 + rng.normal(0, 1.5 * tinted, 3), 0.4, 1.6)
        )
    harmonics[1] += 0.12 * base  # most light comes from above
    lamps = int(rng.integers(1, 4))
    directions = np.stack([rng.normal(0, 0.8, lamps), rng.uniform(-0.2, 1.0, lamps), rng.uniform(0.3, 1.2, lamps)], 1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    colours = rng.uniform(0.12, 0.9, (lamps, 1)) * np.clip(1 + rng.normal(0, 1.2 * tinted, (lamps, 3)), 0.5, 1.5)
    return Light(harmonics, directions.astype(np.float32), colours.astype(np.float32))


def draw_curve(rng: np.random.Generator) -> Floats:
    """(4096,) linear light from 0 to HEADROOM -> stored value: soft or hard highlights, gamma, contrast, blacks."""
    x = np.linspace(0, HEADROOM, 4096)
    soft = rng.uniform(0, 1)
    x = soft * 1.25 * x * (1 + x / HEADROOM**2) / (1 + x) + (1 - soft) * x
    value = np.clip(x, 0, 1) ** (1 / rng.uniform(1.9, 2.5))
    bend = rng.uniform(-0.15, 0.5)
    value = value + bend * (value - 0.5) * value * (1 - value) * 2
    low = rng.uniform(0, 0.06) if rng.random() < 0.4 else 0.0
    return np.clip(low + value * (1 - low), 0, 1).astype(np.float32)


def photograph(rng: np.random.Generator, picture: Floats) -> Bytes:
    """Lens, sensor and codec: (S, S, 3) 0..1 -> bytes. In the order of a camera: blur, resolution, noise, JPEG.

    Half of the pictures come from a good camera, like most faces that fill a crop; the rest are worse in every way.
    """
    side = picture.shape[0]
    poor = float(rng.choice([0.0, 0.4, 1.0], p=[0.5, 0.3, 0.2]))
    if rng.random() < 0.2 * poor:
        picture = _moved(rng, picture)
    if rng.random() < 0.7 * poor:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 0.5 + 0.8 * poor)))
    elif rng.random() < 0.6:  # cameras sharpen
        soft = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 1.4)))
        more = float(rng.uniform(0.15, 0.9))
        picture = cv2.addWeighted(picture, 1 + more, soft, -more, 0)
    small = side
    if rng.random() < 0.6 * poor:
        small = int(rng.uniform(0.9 - 0.55 * poor, 0.95) * side)
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.15:
        saturation = rng.uniform(0, 0.6) if rng.random() < 0.5 else 0.0
        grey = cv2.cvtColor(np.ascontiguousarray(picture, np.float32), cv2.COLOR_RGB2GRAY)
        picture = grey[..., None] + np.float32(saturation) * (picture - grey[..., None])
    noise = float(min(rng.exponential(0.003 + 0.012 * poor), 0.06))
    if rng.random() < 0.5:  # grey noise, coarser than a pixel, as denoising and chroma subsampling leave it
        grains = cv2.blur(rng.standard_normal((small, small), dtype=np.float32), (2, 2))[..., None] * np.float32(1.5)
    else:
        grains = rng.standard_normal((small, small, 3), dtype=np.float32)
    stored: Bytes = _digitised(picture, np.float32(noise), grains)
    if rng.random() < 0.4 + 0.4 * poor:
        quality = int(rng.uniform(75 - 50 * poor, 97))
        _, packed = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
        stored = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    if small != side:
        stored = np.asarray(cv2.resize(stored, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
    return stored


@nb.njit(cache=True, fastmath=True, nogil=True)
def _digitised(picture: Floats, noise: np.float32, grains: Floats) -> Bytes:
    """(H, W, 3) as bytes with noise; grains are (H, W, 3), or (H, W, 1) for all colours alike."""
    stored = np.empty(picture.shape, np.uint8)
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    last = grains.shape[2] - 1
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            for k in range(3):
                value = picture[y, x, k] + noise * grains[y, x, min(k, last)]
                stored[y, x, k] = np.uint8(min(max(value, zero), one) * np.float32(255) + half)
    return stored


def _moved(rng: np.random.Generator, picture: Floats) -> Floats:
    """Motion blur along a short line."""
    length, angle = rng.uniform(1.5, 6), rng.uniform(0, math.pi)
    kernel = np.zeros((9, 9), np.float32)
    for t in np.linspace(-0.5, 0.5, 15):
        x, y = 4 + t * length * math.cos(angle), 4 + t * length * math.sin(angle)
        kernel[round(y), round(x)] += 1
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), np.float32)
