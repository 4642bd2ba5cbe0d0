"""The table that all readers of labelled data return: references to images, with labels, subjects and lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .datasets import DATASETS

IMAGE_FILE = -1  # the frame of a reference to an image file
UNKNOWN = -1
POSITIVE = 2  # the lowest intensity, of the coders' 0..5, that counts as present
STRONGEST = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """A fold as the lists define it."""

    number: int
    train: NDArray[np.int64]  # rows
    test: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Labelled images; axes: n images, A units."""

    dataset: str  # "BP4D", "DISFA", or "" for any other
    style: str  # the layout it was read from
    units: tuple[str, ...]
    images: tuple[str, ...]  # (n,) path of an image, of a video or of a shard
    frames: NDArray[np.int64]  # (n,) from 0 within a video or shard, or IMAGE_FILE
    subjects: NDArray[np.int64]  # (n,) index into subject_names
    subject_names: tuple[str, ...]
    labels: NDArray[np.int8]  # (n, A) 0, 1, UNKNOWN
    intensity: NDArray[np.float32]  # (n, A) 0..1 (coders' 0..5 divided by 5), nan where not coded
    files: tuple[Path, ...]  # label files
    origin: NDArray[np.int64]  # (n, 2) index into files, line
    listed: tuple[Listed, ...] = ()
    descriptions: tuple[str, ...] = ()  # of each subject, such as "a woman"; "" if unknown; () if all are unknown
    notes: tuple[str, ...] = ()  # warnings: files that are short, rows left out

    def __len__(self) -> int:
        return len(self.images)

    def where(self, row: int) -> str:
        """`list.txt:17`, for errors about this row."""
        file, line = self.origin[row]
        return f"{self.files[file]}:{line}"

    def only(self, rows: NDArray[np.integer], *notes: str) -> Table:
        """Some of the rows, in this order; listed folds are adapted."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        used, subjects = np.unique(self.subjects[rows], return_inverse=True)

        def renumbered(old: NDArray[np.int64]) -> NDArray[np.int64]:
            new = place[old]
            return np.asarray(new[new >= 0], np.int64)

        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            frames=self.frames[rows],
            subjects=subjects.astype(np.int64),
            subject_names=tuple(self.subject_names[name] for name in used),
            descriptions=tuple(self.descriptions[name] for name in used) if self.descriptions else (),
            labels=self.labels[rows],
            intensity=self.intensity[rows],
            origin=self.origin[rows],
            listed=tuple(Listed(fold.number, renumbered(fold.train), renumbered(fold.test)) for fold in self.listed),
            notes=(*self.notes, *notes),
        )

    def with_columns(self, units: Sequence[str], columns: Sequence[int]) -> Table:
        """The same rows with some of the units, in this order."""
        labels, intensity = self.labels[:, columns], self.intensity[:, columns]
        return replace(self, units=tuple(units), labels=labels, intensity=intensity)


class Rows:
    """Collects rows one by one."""

    def __init__(self, dataset: str, style: str, units: Sequence[str]) -> None:
        self.dataset, self.style, self.units = dataset, style, tuple(units)
        self.files: list[Path] = []
        self.notes: list[str] = []
        self.images: list[str] = []
        self.frames: list[int] = []
        self.subjects: list[str] = []
        self.labels: list[Sequence[int]] = []
        self.intensity: list[Sequence[float] | None] = []
        self.origin: list[tuple[int, int]] = []
        self.descriptions: dict[str, str] = {}  # subject -> such as "a woman", if the data says so

    def __len__(self) -> int:
        return len(self.images)

    def file(self, path: Path) -> int:
        self.files.append(path)
        return len(self.files) - 1

    def add(
        self,
        image: str,
        subject: str,
        labels: Sequence[int],
        file: int,
        line: int,
        *,
        frame: int = IMAGE_FILE,
        intensity: Sequence[float] | None = None,
    ) -> int:
        """The number of the new row."""
        self.images.append(image)
        self.frames.append(frame)
        self.subjects.append(subject)
        self.labels.append(labels)
        self.intensity.append(intensity)
        self.origin.append((file, line))
        return len(self.images) - 1

    def table(self, listed: Sequence[Listed] = ()) -> Table:
        if not self.images:
            files = ", ".join(str(path) for path in self.files[:3]) or "the folder"
            raise UserError(f"No labelled image was found in {files}. Check that the lists are complete.")
        names, subjects = np.unique(np.array(self.subjects), return_inverse=True)
        intensity = np.full((len(self), len(self.units)), np.nan, np.float32)
        for row, values in enumerate(self.intensity):
            if values is not None:
                intensity[row] = values
        return Table(
            self.dataset,
            self.style,
            self.units,
            tuple(self.images),
            np.array(self.frames, np.int64),
            subjects.astype(np.int64),
            tuple(names.tolist()),
            np.array(self.labels, np.int8).reshape(len(self), len(self.units)),
            intensity,
            tuple(self.files),
            np.array(self.origin, np.int64),
            tuple(listed),
            self._descriptions(names.tolist()),
            tuple(self.notes),
        )

    def _descriptions(self, names: Sequence[str]) -> tuple[str, ...]:
        by_letter = DATASETS[self.dataset].descriptions if self.dataset in DATASETS else {}
        texts = [self.descriptions.get(name) or by_letter.get(name[0], "") for name in names]
        return tuple(texts) if any(texts) else ()


def unit_name(text: str) -> str | None:
    """'au1', 'AU01', '1' -> 'AU01'; None if it names no unit."""
    match = re.fullmatch(r"(?:au)?[_ ]?0*(\d{1,2})", text.strip(), re.IGNORECASE)
    return f"AU{int(match[1]):02d}" if match else None


def label_of(text: str, where: str) -> int:
    """'0', '1' and '1.0' are labels; '', '-1', '9' and 'nan' are unknown."""
    text = text.strip()
    if text in ("0", "1"):
        return int(text)
    if text in ("", "-1", "9") or text.lower() == "nan":
        return UNKNOWN
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if value in (0, 1):
        return int(value)
    if value in (-1, 9):
        return UNKNOWN
    raise UserError(f"{where}: label '{text}' is neither 0, 1 nor unknown (empty, -1, 9). Correct the line.")


def from_intensity(coded: int | None) -> tuple[int, float]:
    """The coders' 0..5 (None = not coded) -> label and intensity in 0..1."""
    return (UNKNOWN, float("nan")) if coded is None else (int(coded >= POSITIVE), coded / STRONGEST)
