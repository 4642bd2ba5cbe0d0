"""Batches for the landmark network: crops of renders as a detector or tracker cuts them, and crops without a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..faces.align import MIRROR, POINTS
from ..faces.landmarks import SIDE, box_of, crop_matrix
from .photographs import Bytes, Floats, clutter, occlude, photograph

HELD_OUT = 25  # every 25th identity is for validation and never trained on
NEGATIVES = 0.35  # share of crops without a face


@dataclass(frozen=True, slots=True, eq=False)
class CropBatch:
    crops: Bytes  # (N, SIDE, SIDE, 3) RGB
    points: Floats  # (N, 68, 2) fractions of the crop, 0 where there is no face
    presence: Floats  # (N,) 1 for a face well inside the crop, else 0


class RenderedCrops:
    """Pictures from shards of `vlfau-synthesize`, held in memory up to a limit."""

    def __init__(self, folders: Sequence[Path], *, held_out: bool, limit: int = 40_000) -> None:
        self.folders, self.held_out, self.limit = folders, held_out, limit
        self._read: set[Path] = set()
        self.images: list[Bytes] = []
        self.points: list[Floats] = []
        self.faces: list[int] = []  # positions in `images`
        self.empty: list[int] = []
        self.mistaken: list[Bytes] = []  # (SIDE, SIDE, 3) false positives from `mining.py`

    def __len__(self) -> int:
        return len(self.images)

    def refresh(self) -> int:
        """Reads shards that are new in the folders; returns the number of pictures held."""
        paths = (path for folder in self.folders for path in folder.glob("shard-*.safetensors"))
        for path in sorted(
            paths, key=lambda path: (path.name, str(path))
        ):  # alternates folders, so that a memory limit keeps some of each
            if path not in self._read and len(self) < self.limit:
                self._add(path)
        for path in sorted(path for folder in self.folders for path in folder.glob("mistaken-*.safetensors")):
            if path not in self._read and not self.held_out:
                self._add_mistaken(path)
        return len(self)

    def _add_mistaken(self, path: Path) -> None:
        from safetensors.numpy import load_file

        self._read.add(path)
        self.mistaken.extend(load_file(path)["crops"])

    def _add(self, path: Path) -> None:
        from safetensors.numpy import load_file

        shard = load_file(path)
        missing = {"images", "points", "identity", "face"} - set(shard)
        if missing:
            raise UserError(f"{path} lacks {', '.join(sorted(missing))}. Give folders written by vlfau-synthesize.")
        self._read.add(path)
        for row in np.flatnonzero((shard["identity"] % HELD_OUT == 0) == self.held_out):
            (self.faces if shard["face"][row] else self.empty).append(len(self.images))
            self.images.append(shard["images"][row].copy())  # a view would hold the whole shard
            self.points.append(shard["points"][row])


def draw(renders: RenderedCrops, random: np.random.Generator, count: int) -> CropBatch:
    crops = np.empty((count, SIDE, SIDE, 3), np.uint8)
    points = np.zeros((count, POINTS, 2), np.float32)
    presence = np.zeros(count, np.float32)
    for i in range(count):
        if random.random() < NEGATIVES:
            crop = _negative(renders, random)
        else:
            crop, points[i] = _face(renders, random)
            presence[i] = 1
            if random.random() < 0.25:
                crop = occlude(crop, random)
        crops[i] = photograph(crop, random)
    return CropBatch(crops, points, presence)


def _face(renders: RenderedCrops, random: np.random.Generator) -> tuple[Bytes, Floats]:
    """A face cut as by a detector or a tracker: the box is off by some shift, scale and roll."""
    i = renders.faces[random.integers(len(renders.faces))]
    detected = random.random() < 0.35  # as by a detector, otherwise as by a tracker
    shift = random.normal(0, 0.09 if detected else 0.03, 2).clip(-0.2, 0.2)
    scale = np.exp(random.normal(0, 0.16 if detected else 0.06)).clip(0.7, 1.45)
    roll = random.normal(0, 18) if random.random() < 0.5 else random.normal(0, 5)
    return cut(renders.images[i], renders.points[i], random, shift, float(scale), float(np.clip(roll, -50, 50)))


def cut(
    picture: Bytes,
    points: Floats,
    random: np.random.Generator,
    shift: NDArray[np.floating],
    scale: float,
    roll_clockwise: float,
) -> tuple[Bytes, Floats]:
    """The crop around points: `shift` in box sides, `scale` > 1 shows more around the face, roll in degrees."""
    angle = np.deg2rad(roll_clockwise)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = points.mean(0)
    box = box_of((points - middle) @ turn.T + middle)  # the box of the turned face
    side = (box[2] - box[0]) * scale
    centre = (box[:2] + box[2:]) / 2 + shift * (box[2] - box[0])
    straight = crop_matrix(np.concatenate([centre - side / 2, centre + side / 2]))
    matrix = np.concatenate(
        [straight[:, :2] @ turn, (straight[:, :2] @ (middle - turn @ middle) + straight[:, 2])[:, None]], 1
    )
    border = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)[random.integers(3)]
    colour = tuple(float(c) for c in random.integers(0, 256, 3)) if random.random() < 0.5 else (0.0, 0.0, 0.0)
    crop = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=colour)
    placed = (points @ matrix[:, :2].T + matrix[:, 2] + 0.5) / SIDE
    if random.random() < 0.5:
        crop, placed = crop[:, ::-1], placed[MIRROR] * [-1, 1] + [1, 0]
    return np.ascontiguousarray(crop), placed.astype(np.float32)


def _negative(renders: RenderedCrops, random: np.random.Generator) -> Bytes:
    kind = random.random()
    if renders.mistaken and random.random() < 0.3:
        return _jittered(renders.mistaken[random.integers(len(renders.mistaken))], random)
    if kind < 0.3 and renders.empty:
        return _window(renders.images[renders.empty[random.integers(len(renders.empty))]], random)
    i = renders.faces[random.integers(len(renders.faces))]
    picture, points = renders.images[i], renders.points[i]
    if kind < 0.45:
        return clutter(SIDE, random)
    if kind < 0.72:
        return _near_miss(picture, points, random)
    if kind < 0.8:  # upside down or on its side
        return cut(
            picture, points, random, np.zeros(2), float(random.uniform(0.8, 1.5)), float(random.uniform(100, 260))
        )[0]
    if kind < 0.92:
        return _faceless(picture, points, random)
    return shuffled(cut(picture, points, random, np.zeros(2), float(random.uniform(0.8, 1.3)), 0.0)[0], random)


def _jittered(crop: Bytes, random: np.random.Generator) -> Bytes:
    matrix = cv2.getRotationMatrix2D(
        (SIDE / 2, SIDE / 2), float(random.normal(0, 12)), float(random.uniform(0.85, 1.25))
    )
    matrix[:, 2] += random.normal(0, 4, 2)
    turned = cv2.warpAffine(crop, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(turned[:, ::-1] if random.random() < 0.5 else turned)


def _near_miss(picture: Bytes, points: Floats, random: np.random.Generator) -> Bytes:
    """Half a face, one eye, a face far too small for its crop, hair and shoulders."""
    if random.random() < 0.5:
        angle, far = random.uniform(0, 2 * np.pi), random.uniform(0.6, 1.2)
        shift, scale = np.array([np.cos(angle), np.sin(angle)]) * far, random.uniform(0.7, 1.3)
    elif random.random() < 0.5:
        shift, scale = random.uniform(-0.45, 0.45, 2), random.uniform(0.15, 0.4)
    else:
        shift, scale = random.uniform(-0.5, 0.5, 2), random.uniform(2.5, 4)
    return cut(picture, points, random, shift, float(scale), float(random.normal(0, 10)))[0]


def _faceless(picture: Bytes, points: Floats, random: np.random.Generator) -> Bytes:
    painted = without_face(picture, points, random)
    shift, scale = random.normal(0, 0.08, 2), float(random.uniform(0.8, 1.3))
    return cut(painted, points, random, shift, scale, float(random.normal(0, 8)))[0]


def without_face(picture: Bytes, points: Floats, random: np.random.Generator) -> Bytes:
    """A head with its face painted over: hair, neck and outline alone are no face."""
    centre = points.mean(0)
    hull = cv2.convexHull(((points - centre) * random.uniform(1.0, 1.25) + centre).astype(np.float32))
    mask = np.zeros(picture.shape[:2], np.float32)
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), float(random.uniform(1, 5)))[:, :, None]
    kind = random.random()
    if kind < 0.4:
        inside = np.zeros(picture.shape, np.float32) + picture[mask[:, :, 0] > 0.5].mean(0)
    elif kind < 0.7:
        inside = clutter(picture.shape[0], random).astype(np.float32)
    else:
        inside = cv2.GaussianBlur(picture, (0, 0), float(random.uniform(9, 16))).astype(np.float32)
    return np.asarray(picture * (1 - mask) + inside * mask, np.uint8)


def shuffled(crop: Bytes, random: np.random.Generator) -> Bytes:
    parts = int(random.integers(3, 6))  # two would leave half faces intact
    step = crop.shape[0] // parts
    tiles = [crop[y * step : (y + 1) * step, x * step : (x + 1) * step] for y in range(parts) for x in range(parts)]
    order = random.permutation(len(tiles))
    if (order == np.arange(len(tiles))).mean() > 0.3:
        order = np.roll(np.arange(len(tiles)), 1)
    rows = [np.hstack([tiles[j] for j in order[y * parts : (y + 1) * parts]]) for y in range(parts)]
    return np.asarray(cv2.resize(np.vstack(rows), crop.shape[1::-1]), np.uint8)


def _window(picture: Bytes, random: np.random.Generator) -> Bytes:
    side = int(random.uniform(0.15, 1.0) * min(picture.shape[:2]))
    y, x = (int(random.integers(0, n - side + 1)) for n in picture.shape[:2])
    crop = cv2.resize(picture[y : y + side, x : x + side], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rot90(crop, int(random.integers(4))))
