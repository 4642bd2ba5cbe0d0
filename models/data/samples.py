"""Training samples: crops of faces with labels.

A sample is a function of (seed, epoch, index) alone, so a run resumes exactly at any batch. Batches are dictionaries of
arrays (axes: B samples, S side, A units):

    crops (B, S, S, 3) uint8 RGB        labels (B, A) int8, -1 unknown      intensity (B, A) float32, nan unknown
    subject (B,) int64                  face (B,) uint8, 1 = a face         index (B,) int64 into the data set
    points (B, 68, 2) float32 in crop sides, nan unknown
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..faces import align
from .augmentation import PAPER, RENDERS, Augmentation, photometric
from .crop_cache import CropCache
from .shards import ShardArrays, ShardImages, read_shards
from .table import Table

Batch = dict[str, NDArray[Any]]
Points = NDArray[np.float32]
UNKNOWN = np.full((align.POINTS, 2), np.nan, np.float32)


class Samples(Protocol):
    """What loading, training and evaluation need of a data set."""

    units: tuple[str, ...]
    labels: NDArray[np.int8]  # (n, A)
    intensity: NDArray[np.float32]  # (n, A)
    subjects: NDArray[np.int64]  # (n,) index into subject_names
    subject_names: tuple[str, ...]
    descriptions: tuple[str, ...]  # of each subject, such as "a woman"; "" if unknown; () if all are unknown
    blocks: NDArray[np.int64] | None  # boundaries of files that are cheap to read together, or None

    def __len__(self) -> int: ...

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        """(S, S, 3) RGB, with the augmentation of this epoch."""

    def points(self, index: int, epoch: int = 0) -> Points:
        """(68, 2) points of the face in that crop, in crop sides; nan if unknown."""

    def face(self, index: int) -> int:
        """1 if the image has a face."""


class Augmented(Samples, Protocol):
    """Samples to train on."""

    files: list[str] | None  # names of the files they come from, if their number may grow

    def plain(self) -> Samples:
        """The same images without augmentation."""


def batch(samples: Samples, indices: Sequence[int], epoch: int = 0) -> Batch:
    """Some samples, stacked."""
    chosen = np.asarray(indices, np.int64)
    return {
        "crops": np.stack([samples.crop(int(index), epoch) for index in chosen]),
        "labels": samples.labels[chosen],
        "intensity": samples.intensity[chosen],
        "points": np.stack([samples.points(int(index), epoch) for index in chosen]),
        "subject": samples.subjects[chosen],
        "face": np.array([samples.face(int(index)) for index in chosen], np.uint8),
        "index": chosen,
    }


def descriptions_of(samples: Samples, rows: NDArray[np.integer]) -> list[str]:
    """Of the subjects of some samples, such as "a woman"; "" if unknown."""
    if not samples.descriptions:
        return [""] * len(rows)
    return [samples.descriptions[subject] for subject in samples.subjects[rows]]


class ShardSamples:
    """Renders: aligned crops cut out of a looser view, with the landmark error that streaming will have."""

    def __init__(
        self,
        renders: ShardArrays | Path,
        side: int,
        *,
        units: Sequence[str] | None = None,
        rows: NDArray[np.integer] | None = None,
        augmentation: Augmentation | None = RENDERS,
        seed: int = 0,
    ) -> None:
        """`rows` are the images to use (default: all); without augmentation, crops are cut at the exact points."""
        self.renders = renders if isinstance(renders, ShardArrays) else read_shards(renders, units)
        self.side, self.augmentation, self.seed = side, augmentation, seed
        self.rows = np.arange(len(self.renders)) if rows is None else np.sort(np.asarray(rows, np.int64))
        self.units = self.renders.units
        self.labels = self.renders.labels[self.rows]
        self.intensity = self.renders.intensity[self.rows]
        names, self.subjects = np.unique(self.renders.identity[self.rows], return_inverse=True)
        self.subject_names = tuple(f"person {name}" for name in names)
        self.descriptions: tuple[str, ...] = ()
        self.files: list[str] | None = [path.name for path in self.renders.files]
        blocks = np.searchsorted(self.rows, self.renders.starts).astype(np.int64)  # rows are in rising order
        self.blocks: NDArray[np.int64] | None = blocks
        self._images = ShardImages(self.renders)
        self._five = align.five_points(self.renders.points)  # (n, 5, 2)
        self._closed = _closed(self.renders.points, self._five)

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, share: float) -> tuple[ShardSamples, ShardSamples]:
        """Two parts without a common subject; the second has about `share` of them, always the same."""
        subjects = np.unique(self.renders.identity[self.rows])
        held_out = subjects[_hash(subjects) < share]
        second = np.isin(self.renders.identity[self.rows], held_out)
        if not 0 < second.sum() < len(second):
            raise UserError(
                f"{self.renders.folder} has {len(subjects)} subjects, too few to hold out {share:.0%}. "
                "Render more shards."
            )
        return self.only(~second, self.augmentation), self.only(second, None)

    def plain(self) -> ShardSamples:
        """The same images without augmentation."""
        return self.only(np.ones(len(self), np.bool_), None)

    def only(self, chosen: NDArray[np.bool_], augmentation: Augmentation | None) -> ShardSamples:
        """Some of the images."""
        return ShardSamples(self.renders, self.side, rows=self.rows[chosen], augmentation=augmentation, seed=self.seed)

    def face(self, index: int) -> int:
        return int(self.renders.face[self.rows[index]])

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        image = self._images[int(self.rows[index])]
        matrix, mirrored, rng = self._place(index, epoch)
        crop = align.crop(image, matrix, self.side)
        if mirrored:
            crop = crop[:, ::-1]
        return crop if rng is None or self.augmentation is None else photometric(crop, rng, self.augmentation)

    def points(self, index: int, epoch: int = 0) -> Points:
        row = int(self.rows[index])
        if not self.renders.face[row]:
            return UNKNOWN
        matrix, mirrored, _ = self._place(index, epoch)
        points = (self.renders.points[row] @ matrix[:, :2].T + matrix[:, 2] + 0.5) / self.side
        if mirrored:
            points = points[align.MIRROR]
            points[:, 0] = 1 - points[:, 0]
        return np.asarray(points, np.float32)

    def _place(self, index: int, epoch: int) -> tuple[NDArray[np.float64], bool, np.random.Generator | None]:
        """Where the crop is cut (2, 3), whether it is mirrored, and the generator of its other distortions."""
        row = int(self.rows[index])
        image, five = self._images[row], self._five[row]
        has_points = bool(self.renders.face[row]) and bool(np.isfinite(five).all())
        how, side = self.augmentation, self.side
        if how is None:
            return align.similarity(five if has_points else _centre(image), side), False, None
        rng = np.random.default_rng((self.seed, epoch, row))
        u, normal = rng.random(5), rng.standard_normal((8, 2))
        if has_points:
            across = five[1] - five[0]
            # Landmark errors are mostly small and sometimes large, so their level is drawn for each crop.
            error = how.points * u[0] ** 2 * np.linalg.norm(across)
            five = five + error * normal[:5]
            five[:2] += how.sink * self._closed[row] * (1.25 * u[4] - 0.25) * np.array([-across[1], across[0]])
        else:
            five = _centre(image, 0.5 + u[0]) + 0.15 * len(image) * normal[5]
        return _jittered(align.similarity(five, side), side, how, normal[6:], u[1:3]), bool(u[3] < how.flip), rng


OPEN = 0.13  # distance of the lids of eyes at rest, in distances between the eyes


def _closed(points: NDArray[np.floating], five: NDArray[np.floating]) -> NDArray[np.float32]:
    """68 points (n, 68, 2) -> (n,) how far the eyes are closed, from 0 (open) to 1; 0 without a face."""
    apart = np.linalg.norm(points[:, align.UPPER_LIDS] - points[:, align.LOWER_LIDS], axis=2).mean(1)
    across = np.linalg.norm(five[:, 1] - five[:, 0], axis=1)
    return np.where(across > 0, np.clip(1 - apart / np.maximum(OPEN * across, 1e-6), 0, 1), 0).astype(np.float32)


class Crops:
    """Images of a data set: the stored crop, shifted, mirrored and partly covered as in the paper."""

    def __init__(
        self,
        table: Table,
        cache: CropCache,
        *,
        rows: NDArray[np.integer] | None = None,
        augmentation: Augmentation | None = PAPER,
        seed: int = 0,
    ) -> None:
        """`table` must come from `cache.prepare()`; without augmentation a crop is what the engine sees."""
        self.table, self.cache, self.side = table, cache, cache.side
        self.augmentation, self.seed = augmentation, seed
        self.rows = np.arange(len(table)) if rows is None else np.asarray(rows, np.int64)
        self.units, self.subject_names, self.descriptions = table.units, table.subject_names, table.descriptions
        self.labels = table.labels[self.rows]
        self.intensity = table.intensity[self.rows]
        self.subjects = table.subjects[self.rows]
        self.blocks: NDArray[np.int64] | None = None
        self.files: list[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def plain(self) -> Crops:
        """The same images without augmentation."""
        return Crops(self.table, self.cache, rows=self.rows, augmentation=None, seed=self.seed)

    def points(self, index: int, epoch: int = 0) -> Points:
        return UNKNOWN

    def face(self, index: int) -> int:
        return 1

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        row = int(self.rows[index])
        stored = self.cache.read(self.table, row)
        side, how = self.side, self.augmentation
        room = (len(stored) - side) // 2  # on each side of the engine's crop
        if how is None:
            return np.ascontiguousarray(stored[room : room + side, room : room + side])
        rng = np.random.default_rng((self.seed, epoch, row))
        u = rng.random(3)
        reach = min(room, round(how.shift * side))
        top, left = (room - reach + int(value * (2 * reach + 1)) for value in u[:2])
        crop = stored[top : top + side, left : left + side]
        if u[2] < how.flip:
            crop = crop[:, ::-1]
        return photometric(crop, rng, how)


def _jittered(
    matrix: NDArray[np.float64], side: int, how: Augmentation, normal: NDArray[np.float64], u: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The similarity, then a small rotation and zoom about the centre of the crop, and a shift."""
    turn = np.deg2rad(how.turn_deg * normal[0, 0])
    zoom = np.exp(how.zoom * normal[0, 1])
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]])
    centre = np.full(2, (side - 1) / 2)
    moved = linear @ matrix
    moved[:, 2] += centre - linear @ centre + (2 * u - 1) * how.shift * side
    return np.asarray(moved)


def _centre(image: NDArray[np.uint8], scale: float = 1.0) -> NDArray[np.float32]:
    """Five points for an image without a face: the template, centred."""
    height, width = image.shape[:2]
    middle = np.array([width, height], np.float32) / 2
    return np.asarray(middle + (align.TEMPLATE - 0.5) * np.float32(scale * min(height, width)), np.float32)


def _hash(numbers: NDArray[np.integer]) -> NDArray[np.float64]:
    """A fixed value in 0..1 for each number (splitmix64), so that membership does not depend on other numbers."""
    z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((z ^ (z >> np.uint64(31))) / 2.0**64)


class Subset:
    """Some samples of a data set."""

    def __init__(self, samples: Samples, rows: NDArray[np.int64]) -> None:
        self._samples, self._rows = samples, rows
        self.units, self.subject_names = samples.units, samples.subject_names
        self.descriptions = samples.descriptions
        self.labels, self.intensity = samples.labels[rows], samples.intensity[rows]
        self.subjects: NDArray[np.int64] = samples.subjects[rows]
        self.blocks: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        return self._samples.crop(int(self._rows[index]), epoch)

    def points(self, index: int, epoch: int = 0) -> Points:
        return self._samples.points(int(self._rows[index]), epoch)

    def face(self, index: int) -> int:
        return self._samples.face(int(self._rows[index]))


def spread(samples: Samples, limit: int | None) -> Samples:
    """At most `limit` samples, evenly spread and the same every time."""
    if limit is None or limit >= len(samples):
        return samples
    return Subset(samples, np.linspace(0, len(samples) - 1, limit).astype(np.int64))
