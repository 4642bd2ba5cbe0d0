"""Crops to calibrate with: from a folder, a list, a video or renders; labelled crops from any data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfau.models.bundle import Manifest
from vlfau.models.data import DataChoice, open_data, unseen
from vlfau.models.errors import UserError
from vlfau.models.faces import open_detector
from vlfau.models.faces.align import align
from vlfau.models.faces.landmarks import open_landmarks
from vlfau.models.faces.points import PointFinder
from vlfau.models.files import PICTURES, VIDEOS


@dataclass(frozen=True, eq=False)
class Labelled:
    crops: NDArray[np.uint8]  # (n, S, S, 3)
    labels: NDArray[np.int8]  # (n, A), -1 unknown
    subjects: NDArray[np.int64]  # (n,)
    source: str


def labelled(choice: DataChoice, manifest: Manifest, limit: int) -> Labelled:
    """At most `limit` crops, evenly spread over the part that the bundle's training held out."""
    units = manifest.units
    part = next(iter(open_data(replace(unseen(choice, manifest.provenance), units=units), manifest.side)))
    samples = part.test
    if samples is None:
        raise UserError("Training used all of this data. Give --hold-out above 0.")
    rows = [i for i in np.unique(np.linspace(0, len(samples) - 1, limit).astype(int)) if samples.face(int(i))]
    columns = [samples.units.index(unit) for unit in units]
    return Labelled(
        np.stack([samples.crop(int(row)) for row in rows]),
        samples.labels[rows][:, columns],
        samples.subjects[rows],
        Path(str(choice.data)).name,  # bundles and reports are passed on: no paths of this machine in them
    )


def crops(where: Path, side: int, limit: int) -> NDArray[np.uint8]:
    """(n, S, S, 3): images of the network's input size are taken as they are, in others faces are found and aligned."""
    if not where.exists():
        raise UserError(f"{where} does not exist. Give a folder of images, a list of paths, a video, or shards.")
    if where.is_dir() and any(where.glob("shard-*.safetensors")):
        return _renders(where, side, limit)
    faces: list[NDArray[np.uint8]] = []
    aligned = AlignedCrops(side)
    for image in _images(where, limit):
        faces += [image] if image.shape[:2] == (side, side) else aligned(image)
        if len(faces) >= limit:
            break
    if not faces:
        raise UserError(f"No face was found in {where}. Give images with faces, or crops of {side} x {side} pixels.")
    return np.stack(faces[:limit])


class AlignedCrops:
    """All faces of an image as aligned crops; opens the detector at the first image that needs it."""

    def __init__(self, side: int) -> None:
        self._side = side

    @cached_property
    def _points(self) -> PointFinder:
        return PointFinder(open_detector(), open_landmarks())

    def __call__(self, image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return list(align(image, self._points.all(image), self._side))


def _images(where: Path, limit: int) -> Iterator[NDArray[np.uint8]]:
    """RGB images; of a video, `limit` evenly spread frames."""
    if where.suffix.lower() in VIDEOS:
        yield from _frames(where, limit)
        return
    if where.is_dir():
        paths = sorted(path for path in where.rglob("*") if path.suffix.lower() in PICTURES)
    elif where.suffix.lower() in PICTURES:
        paths = [where]
    else:
        paths = [where.parent / line.strip() for line in where.read_text(encoding="utf-8").splitlines() if line.strip()]
    for path in paths:
        image = cv2.imread(str(path))
        if image is None:
            raise UserError(f"{path} is not a readable image. Take it off the list.")
        yield np.asarray(image[..., ::-1], np.uint8)


def _frames(path: Path, limit: int) -> Iterator[NDArray[np.uint8]]:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise UserError(f"{path} cannot be opened as a video. Give another file.")
        step = max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // max(limit, 1))
        number = 0
        while True:
            more, frame = video.read()
            if not more:
                return
            if number % step == 0:
                yield np.asarray(frame[..., ::-1], np.uint8)
            number += 1
    finally:
        video.release()


def _renders(folder: Path, side: int, limit: int) -> NDArray[np.uint8]:
    from vlfau.models.data.samples import ShardSamples

    samples = ShardSamples(folder, side, augmentation=None)
    with suppress(UserError):  # too few subjects to hold any out, so there will be no report on them either
        samples, _ = samples.split(DataChoice().hold_out)
    rows = np.unique(np.linspace(0, len(samples) - 1, limit).astype(int))
    return np.stack([samples.crop(int(row)) for row in rows if samples.face(int(row))])
