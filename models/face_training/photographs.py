"""What surroundings and cameras add to a picture: clutter, occluders, exposure, blur, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def photograph(picture: Bytes, random: np.random.Generator) -> Bytes:
    """As a camera might have recorded it: exposure, colour, uneven light, blur, low resolution, noise, compression."""
    height, width = picture.shape[:2]
    if random.random() < 0.3:
        picture = (picture * _uneven_light(height, width, random)).clip(0, 255).astype(np.uint8)
    picture = _develop(picture, random)
    if random.random() < 0.35:
        part = random.uniform(0.23, 0.85)
        small = cv2.resize(
            picture, (max(8, int(width * part)), max(8, int(height * part))), interpolation=cv2.INTER_AREA
        )
        picture = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if random.random() < 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(random.uniform(0.4, 2.0))), np.uint8)
    elif random.random() < 0.15:
        picture = np.asarray(cv2.filter2D(picture, -1, _motion(random)), np.uint8)
    if random.random() < 0.5:
        picture = _grain(picture, random)
    if random.random() < 0.35:
        _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(12, 85))])
        picture = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return picture


def _develop(picture: Bytes, random: np.random.Generator) -> Bytes:
    """Saturation, then white balance, gamma and contrast as one table per channel."""
    tone = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if random.random() < 0.3:
        picture = np.asarray(grey, np.uint8)
    else:
        keep = float(random.uniform(0.3, 1.4))
        picture = np.asarray(cv2.addWeighted(picture, keep, grey, 1 - keep, 0), np.uint8)
        tone = tone * np.exp(random.normal(0, 0.1, 3)).astype(np.float32)
    tone = np.broadcast_to(tone, (256, 3)) ** np.exp(random.normal(0, 0.3))
    tone = (tone - 0.5) * np.exp(random.normal(-0.05, 0.22)) + 0.5 + random.normal(0, 0.08)
    table = (tone.clip(0, 1) * 255).astype(np.uint8)[None]  # (1, 256, 3)
    return np.asarray(cv2.LUT(picture, table), np.uint8)


def _grain(picture: Bytes, random: np.random.Generator) -> Bytes:
    """Sensor noise, drawn for one tile and repeated, because drawing is slow and the repetition is not visible."""
    height, width = picture.shape[:2]
    tile = random.standard_normal((min(96, height), min(96, width), 3 if random.random() < 0.5 else 1), np.float32)
    noise = np.tile(tile * (255 * random.uniform(0, 0.08)), (-(-height // len(tile)), -(-width // tile.shape[1]), 1))
    return (picture + noise[:height, :width]).clip(0, 255).astype(np.uint8)


def _uneven_light(height: int, width: int, random: np.random.Generator) -> Floats:
    """Light from one side, or the edge of a shadow: a factor per pixel (H, W, 1)."""
    angle = random.uniform(0, 2 * np.pi)
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    ramp = u * np.cos(angle) + v * np.sin(angle) + random.uniform(-0.5, 0.5)
    if random.random() < 0.4:
        ramp = np.tanh(ramp * random.uniform(3, 15))
    return np.asarray(np.exp(ramp * random.uniform(0.1, 0.7))[:, :, None], np.float32)


def _motion(random: np.random.Generator) -> Floats:
    size = int(random.integers(3, 10)) | 1
    kernel = np.zeros((size, size), np.float32)
    angle, middle = random.uniform(0, np.pi), (size - 1) / 2
    for t in np.linspace(-middle, middle, 4 * size):
        kernel[round(float(middle + t * np.sin(angle))), round(float(middle + t * np.cos(angle)))] += 1
    return np.asarray(kernel / kernel.sum(), np.float32)


def clutter(side: int, random: np.random.Generator) -> Bytes:
    """A square picture without anything recognisable."""
    kind = random.random()
    if kind < 0.4:
        return dead_leaves(side, random)
    return texture(side, random) if kind < 0.75 else folds(side, random)


class Backgrounds:
    """Clutter for scenes, from a stock that is replaced slowly, because drawing takes longer than training on it."""

    def __init__(self, side: int, stock: int = 400) -> None:
        self.side, self.stock = side, stock
        self._pictures: list[Bytes] = []

    def take(self, random: np.random.Generator) -> Bytes:
        if len(self._pictures) < self.stock:
            self._pictures.append(clutter(self.side, random))
        elif random.random() < 0.1:
            self._pictures[int(random.integers(self.stock))] = clutter(self.side, random)
        picture = self._pictures[int(random.integers(len(self._pictures)))][:, :, random.permutation(3)]
        return np.ascontiguousarray(np.rot90(picture, int(random.integers(4))))


def texture(side: int, random: np.random.Generator) -> Bytes:
    """Noise of several scales, stripes, and drawn shapes: walls, cloth, leaves, furniture, eye-like blobs."""
    canvas = np.zeros((side, side, 3), np.float32) + random.uniform(0, 255, 3).astype(np.float32)
    for cells in (3, 6, 12, 24, 48):
        if random.random() < 0.6:
            noise = random.standard_normal((cells, cells, 1 if random.random() < 0.6 else 3), np.float32)
            mode = cv2.INTER_CUBIC if random.random() < 0.7 else cv2.INTER_NEAREST
            canvas += cv2.resize(noise, (side, side), interpolation=mode).reshape(side, side, -1) * random.uniform(
                5, 60
            )
    if random.random() < 0.3:
        angle, wide = random.uniform(0, np.pi), random.uniform(0.03, 0.3) * side
        y, x = np.mgrid[:side, :side].astype(np.float32)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / wide * 2 * np.pi)
        canvas += (np.sign(wave) if random.random() < 0.5 else wave)[:, :, None] * random.uniform(10, 70)
    drawn: Bytes = canvas.clip(0, 255).astype(np.uint8)
    for _ in range(int(random.integers(0, 8))):
        _shape(drawn, _colour(random), random.uniform(0.03, 0.4) * side, random)
    return drawn


def dead_leaves(side: int, random: np.random.Generator) -> Bytes:
    """Overlapping shapes with sizes by a power law: the simplest pictures with the statistics of photographs."""
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[:] = _colour(random)
    tint = random.uniform(40, 215, 3)
    for size in np.sort(0.5 / (1 + random.pareto(1.2, int(random.integers(30, 120)))))[::-1] * side:
        colour = np.clip(tint + random.normal(0, 55) + random.normal(0, 20, 3), 0, 255)
        _shape(canvas, tuple(int(c) for c in colour), float(max(2, size)), random)
    grain = cv2.resize(random.standard_normal((side // 2, side // 2, 1), np.float32), (side, side))[:, :, None]
    soft = cv2.GaussianBlur(canvas, (0, 0), float(random.uniform(0.4, 2.5)))
    return np.asarray((soft + grain * random.uniform(0, 14)).clip(0, 255), np.uint8)


def folds(side: int, random: np.random.Generator) -> Bytes:
    """Stretched noise whose power falls with frequency as in photographs: cloth, bark, clouds, skin."""
    frequency = np.stack(np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    angle, stretch = random.uniform(0, np.pi), random.uniform(1, 4)
    along = frequency[0] * np.cos(angle) + frequency[1] * np.sin(angle)
    across = (frequency[1] * np.cos(angle) - frequency[0] * np.sin(angle)) * stretch
    power = (along**2 + across**2 + (random.uniform(0.3, 3) / side) ** 2) ** (-random.uniform(0.5, 1.1))
    phase = np.exp(2j * np.pi * random.random(power.shape))
    light = np.fft.irfft2(power * phase, (side, side))
    light = light / max(float(light.std()), 1e-9)
    if random.random() < 0.4:  # creases instead of waves
        light = np.abs(light) - 0.8
    base, tint = random.uniform(20, 220, 3), 1 + random.normal(0, 0.15, 3)
    return np.asarray((base + light[:, :, None] * tint * random.uniform(8, 55)).clip(0, 255), np.uint8)


def _colour(random: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(c) for c in random.integers(0, 256, 3))


def _shape(canvas: Bytes, colour: tuple[int, ...], size: float, random: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    a, b = max(1, int(size)), max(1, int(size * random.uniform(0.2, 1)))
    line = -1 if random.random() < 0.8 else int(random.integers(1, 6))
    kind = random.random()
    if kind < 0.4:
        cv2.ellipse(canvas, (x, y), (a, b), float(random.uniform(0, 180)), 0, 360, colour, line)
    elif kind < 0.7:
        cv2.rectangle(canvas, (x - a, y - b), (x + a, y + b), colour, line)
    else:
        corners = random.uniform(-size, size, (int(random.integers(3, 7)), 2)) + np.array([x, y])
        hull = cv2.convexHull(corners.astype(np.float32)).astype(np.int32)
        cv2.polylines(canvas, [hull], True, colour, max(1, line)) if line > 0 else cv2.fillPoly(canvas, [hull], colour)


def occlude(picture: Bytes, random: np.random.Generator, largest: float = 0.16) -> Bytes:
    """Something in front of up to `largest` of the picture: a hand, a microphone, hair, a bar of glasses."""
    side = picture.shape[0]
    wide = int(random.uniform(0.08, 0.52) * side)
    high = min(int(random.uniform(0.08, 0.52) * side), int(largest * side * side / wide))
    x, y = int(random.integers(0, side - wide)), int(random.integers(0, side - high))
    if random.random() < 0.5:
        patch = texture(side, random)[:high, :wide]
    else:
        patch = np.broadcast_to(np.array(_colour(random), np.uint8), (high, wide, 3))
    mask = np.ones((high, wide, 1), np.float32)
    if random.random() < 0.5:
        mask[:] = 0
        cv2.ellipse(mask, (wide // 2, high // 2), (wide // 2, high // 2), 0, 0, 360, 1.0, -1)
    covered = picture.copy()
    region = covered[y : y + high, x : x + wide]
    covered[y : y + high, x : x + wide] = (region * (1 - mask) + patch * mask).astype(np.uint8)
    return covered
