"""Augmentation: makes a crop look as if another camera, light or detector had produced it.

All random numbers come from the generator that is passed in, so a sample is a function of its seed alone. Everything is
done on uint8 with OpenCV: one process gives several hundred crops a second.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..settings import setting

Crop = NDArray[np.uint8]  # (S, S, 3)
NOISE_LEVELS = (1.5, 3.0, 5.0, 8.0, 12.0, 17.0)  # standard deviations in grey levels
WARM = np.array([1.08, 1.0, 0.97])  # photographs of faces are redder and higher in contrast than renders
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Augmentation:
    """How often each distortion is applied, and how strongly. The defaults are the paper's; see also RENDERS."""

    flip: float = setting(0.5, "share of crops mirrored left to right")
    cutout: float = setting(0.5, "share of crops with a rectangle painted over")
    shift: float = setting(0.0714, "largest shift, in crop sides; the paper's 224 of 256 is 16/224")
    points: float = setting(0.0, "largest imitated landmark error, in distances between the eyes")
    sink: float = setting(0.0, "how far the eye points may sink as the eyes close, in distances between the eyes")
    turn_deg: float = setting(0.0, "standard deviation of the rotation, in degrees")
    zoom: float = setting(0.0, "standard deviation of the zoom, as a share")
    light: float = setting(0.0, "share of crops with changed brightness, contrast, gamma and white balance")
    shade: float = setting(0.0, "share of crops lit from one side")
    colour: float = setting(0.0, "share of crops with changed saturation")
    grey: float = setting(0.0, "share of crops turned grey")
    low_resolution: float = setting(0.0, "share of crops scaled down and up again")
    blur: float = setting(0.0, "share of crops with defocus or motion blur")
    noise: float = setting(0.0, "share of crops with sensor noise")
    jpeg: float = setting(0.0, "share of crops with strong JPEG compression")


PAPER = Augmentation()
RENDERS = Augmentation(
    cutout=0.3,
    shift=0.03,
    points=0.07,
    sink=0.05,  # real closed eyes are found up to 0.04 too low; a crop that follows them looks like raised brows
    turn_deg=3.0,
    zoom=0.05,
    light=0.8,
    shade=0.25,
    colour=0.4,
    grey=0.1,
    low_resolution=0.3,
    blur=0.3,
    noise=0.4,
    jpeg=0.35,
)


def photometric(crop: Crop, rng: np.random.Generator, how: Augmentation) -> Crop:
    """Distortions in the order in which a camera causes them, after the cutout (a hand, a microphone)."""
    u = rng.random(40)  # one call: the overhead of a call exceeds most of the operations
    crop = np.ascontiguousarray(crop)
    if u[0] < how.cutout:
        crop = _cutout(crop, u[1:9])
    if u[9] < how.shade:
        crop = _shade(crop, u[10:12])
    grey = u[12] < how.grey
    if grey or u[13] < how.colour:
        crop = _saturation(crop, 0.0 if grey else 0.4 + 1.2 * u[14])
    if u[15] < how.low_resolution:
        crop = _small(crop, 0.35 + 0.55 * u[16], u[17])
    if u[18] < how.blur:
        crop = _blur(crop, u[19:22])
    if u[22] < how.light:
        crop = _light(crop, u[23:29])
    if u[29] < how.noise:
        crop = _noise(crop, u[30:33], grey)
    if u[33] < how.jpeg:
        crop = _jpeg(crop, int(18 + 70 * u[34]))
    return crop


def _cutout(crop: Crop, u: NDArray[np.float64]) -> Crop:
    side = len(crop)
    height, width = (side * (0.1 + 0.3 * u[:2])).astype(int)
    top, left = int(u[2] * side - height / 2), int(u[3] * side - width / 2)
    fill = crop.mean((0, 1)) if u[4] < 0.5 else 255 * u[5:8]
    out = crop.copy()
    out[max(0, top) : top + height, max(0, left) : left + width] = fill.astype(np.uint8)
    return out


def _shade(crop: Crop, u: NDArray[np.float64]) -> Crop:
    """A brightness ramp across the crop."""
    ramp = np.linspace(-1, 1, len(crop), dtype=np.float32)
    angle, depth = 2 * np.pi * u[0], 0.15 + 0.45 * u[1]
    gain = 1 + np.float32(depth) * np.clip(
        np.float32(np.cos(angle)) * ramp + np.float32(np.sin(angle)) * ramp[:, None], -1, 1
    )
    return np.asarray(cv2.multiply(crop, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U), np.uint8)


def _saturation(crop: Crop, share: float) -> Crop:
    matrix = share * np.eye(3, dtype=np.float32) + (1 - share) * np.tile(LUMA, (3, 1))
    return np.asarray(cv2.transform(crop, matrix), np.uint8)


def _small(crop: Crop, scale: float, how: float) -> Crop:
    side = len(crop)
    small = max(12, round(side * scale))
    shrunk = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA if how < 0.7 else cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _blur(crop: Crop, u: NDArray[np.float64]) -> Crop:
    unit = len(crop) / 112  # strengths are defined for a side of 112
    if u[0] < 0.6:
        return np.asarray(cv2.GaussianBlur(crop, (0, 0), unit * (0.45 + 0.9 * u[1])), np.uint8)
    length = max(3, round(unit * (2 + 5 * u[1])) | 1)
    angle = np.pi * u[2]
    reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    centre = np.array([length // 2, length // 2])
    kernel = np.zeros((length, length), np.float32)
    start, end = ((centre + sign * reach).round().astype(int).tolist() for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return np.asarray(cv2.filter2D(crop, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)


def _light(crop: Crop, u: NDArray[np.float64]) -> Crop:
    """Gamma, contrast, brightness and white balance as one table of 256 entries per channel."""
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None] ** np.float32(np.exp(1.0 * (u[0] - 0.5)))
    level = (level - 0.5) * np.float32(0.7 + 0.9 * u[1]) + np.float32(0.5 + 0.24 * (u[2] - 0.5))
    balance = (WARM * (1 + 0.32 * (u[3:6] - 0.5))).astype(np.float32)
    table = (255 * np.clip(level * balance, 0, 1)).astype(np.uint8)  # (256, 3)
    return np.asarray(cv2.LUT(crop, table[None]), np.uint8)


def _noise(crop: Crop, u: NDArray[np.float64], grey: bool) -> Crop:
    bank = _noise_bank(grey)
    level = bank[int(u[0] ** 2 * len(bank))]  # weak noise more often
    room = len(level) - len(crop)
    if room < 0:
        return crop
    y, x = (int(room * value) for value in u[1:3])
    return np.asarray(cv2.add(crop, level[y : y + len(crop), x : x + len(crop)], dtype=cv2.CV_8U), np.uint8)


@functools.lru_cache(maxsize=2)
def _noise_bank(grey: bool) -> NDArray[np.int16]:
    """(levels, 384, 384, 3): drawing noise for each crop would cost more than all other distortions together."""
    normal = np.random.default_rng(0).standard_normal((384, 384, 1 if grey else 3), np.float32)
    return np.stack([np.broadcast_to((level * normal).round(), (384, 384, 3)) for level in NOISE_LEVELS]).astype(
        np.int16
    )


def _jpeg(crop: Crop, quality: int) -> Crop:
    done, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8) if done else crop
