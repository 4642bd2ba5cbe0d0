"""Rendered people who walk through a scene, so that the true tracks are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from vlfau.models.faces.landmarks import box_of

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Person:
    """A cut-out and its path through the room."""

    image: Pixels  # (n, n, 3)
    mask: NDArray[np.float32]  # (n, n) 0..1
    points: NDArray[np.float32]  # (68, 2) in the cut-out
    start: tuple[float, float]  # of its upper left corner, pixels
    velocity: tuple[float, float]  # pixels per second
    sway: float  # of the head, pixels

    def corner(self, t: float) -> tuple[int, int]:
        sway = self.sway * np.sin(2 * np.pi * 0.7 * t + self.start[0])
        return (
            round(self.start[0] + self.velocity[0] * t + sway),
            round(self.start[1] + self.velocity[1] * t + 0.5 * sway),
        )

    def box(self, t: float) -> NDArray[np.float32]:
        return box_of(self.points + np.array(self.corner(t), np.float32))


def people(folder: Path) -> list[tuple[Pixels, NDArray[np.float32]]]:
    """Images and points of different rendered people who look roughly straight ahead."""
    faces: dict[int, tuple[Pixels, NDArray[np.float32]]] = {}
    for path in sorted(folder.glob("shard-*.safetensors"))[:2]:
        with safe_open(str(path), "np") as file:
            table = {name: file.get_tensor(name) for name in ("images", "points", "pose", "face", "identity")}
        for i in np.flatnonzero((table["face"] > 0) & (np.abs(table["pose"][:, :2]).max(1) < 15)):
            points = table["points"][i]
            if points.min() > 8 and points.max() < 152:
                faces.setdefault(int(table["identity"][i]), (table["images"][i], points))
    return list(faces.values())


def cut(picture: Pixels, points: NDArray[np.float32], scale: float) -> tuple[Pixels, NDArray[np.float32], NDArray]:  # type: ignore[type-arg]
    size = round(160 * scale)
    image = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    mask = np.zeros((160, 160), np.uint8)
    middle, extent = points.mean(0), np.ptp(points, 0)
    axes = (int(extent[0] * 0.68), int(extent[1] * 0.85))
    cv2.ellipse(mask, (int(middle[0]), int(middle[1] - 0.1 * extent[1])), axes, 0, 0, 360, 255, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), 3).astype(np.float32) / 255
    return image, np.asarray(cv2.resize(soft, (size, size)), np.float32), points * scale


def draw(background: Pixels, persons: Sequence[Person], t: float) -> Pixels:
    """The scene at `t` seconds; later people stand in front of earlier ones."""
    picture = background.copy()
    height, width = picture.shape[:2]
    for person in persons:
        x, y = person.corner(t)
        n = len(person.image)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + n, width), min(y + n, height)
        if x0 < x1 and y0 < y1:
            part = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
            alpha = person.mask[part][..., None]
            under = picture[y0:y1, x0:x1]
            picture[y0:y1, x0:x1] = (under * (1 - alpha) + person.image[part] * alpha + 0.5).astype(np.uint8)
    return picture
