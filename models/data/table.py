"""What every reader of labelled data returns: references to pictures, with labels, subjects and their line.

Reads no files; `layouts.py` and `released.py` fill it, `folds.py` divides it, `crop_cache.py` looks at its pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

PICTURE_FILE = -1  # the frame of a reference that is a picture of its own
UNKNOWN = -1
POSITIVE = 2  # coders' intensity, 0..5, from which on an action counts as present
STRONGEST = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """A fold as the lists on the disk give it."""

    number: int
    train: NDArray[np.int64]  # rows
    test: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Labelled pictures; axes: n pictures, A units."""

    dataset: str  # "BP4D", "DISFA", or "" for any other
    style: str  # the layout it was read from
    units: tuple[str, ...]
    pictures: tuple[str, ...]  # (n,) path of a picture, of a video or of a shard
    frames: NDArray[np.int64]  # (n,) from 0 within a video or shard, or PICTURE_FILE
    subjects: NDArray[np.int64]  # (n,) index into subject_names
    subject_names: tuple[str, ...]
    labels: NDArray[np.int8]  # (n, A) 0, 1, UNKNOWN
    intensity: NDArray[np.float32]  # (n, A) 0..1 (coders' 0..5 divided by 5), nan where not coded
    files: tuple[Path, ...]  # label files
    origin: NDArray[np.int64]  # (n, 2) index into files, line
    listed: tuple[Listed, ...] = ()
    people: tuple[str, ...] = ()  # who each subject is, such as "a woman"; "" where unknown; () when nobody is known
    notes: tuple[str, ...] = ()  # what a person should know: files that are short, rows left out

    def __len__(self) -> int:
        return len(self.pictures)

    def where(self, row: int) -> str:
        """`list.txt:17`, for errors about this row."""
        file, line = self.origin[row]
        return f"{self.files[file]}:{line}"

    def only(self, rows: NDArray[np.integer], *notes: str) -> Table:
        """Some of the rows, in the order given; lists of folds follow."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        used, subjects = np.unique(self.subjects[rows], return_inverse=True)

        def kept(old: NDArray[np.int64]) -> NDArray[np.int64]:
            new = place[old]
            return np.asarray(new[new >= 0], np.int64)

        return replace(
            self,
            pictures=tuple(self.pictures[row] for row in rows),
            frames=self.frames[rows],
            subjects=subjects.astype(np.int64),
            subject_names=tuple(self.subject_names[name] for name in used),
            people=tuple(self.people[name] for name in used) if self.people else (),
            labels=self.labels[rows],
            intensity=self.intensity[rows],
            origin=self.origin[rows],
            listed=tuple(Listed(fold.number, kept(fold.train), kept(fold.test)) for fold in self.listed),
            notes=(*self.notes, *notes),
        )

    def with_columns(self, units: Sequence[str], columns: Sequence[int]) -> Table:
        """The same rows with some of the units, in the order given."""
        labels, intensity = self.labels[:, columns], self.intensity[:, columns]
        return replace(self, units=tuple(units), labels=labels, intensity=intensity)


class Rows:
    """Collects rows one by one and checks each at the door."""

    def __init__(self, dataset: str, style: str, units: Sequence[str]) -> None:
        self.dataset, self.style, self.units = dataset, style, tuple(units)
        self.files: list[Path] = []
        self.notes: list[str] = []
        self.pictures: list[str] = []
        self.frames: list[int] = []
        self.subjects: list[str] = []
        self.labels: list[Sequence[int]] = []
        self.intensity: list[Sequence[float] | None] = []
        self.origin: list[tuple[int, int]] = []
        self.people: dict[str, str] = {}  # subject -> who it is, where the data tells

    def __len__(self) -> int:
        return len(self.pictures)

    def file(self, path: Path) -> int:
        self.files.append(path)
        return len(self.files) - 1

    def add(
        self,
        picture: str,
        subject: str,
        labels: Sequence[int],
        file: int,
        line: int,
        *,
        frame: int = PICTURE_FILE,
        intensity: Sequence[float] | None = None,
    ) -> int:
        """The number of the new row."""
        self.pictures.append(picture)
        self.frames.append(frame)
        self.subjects.append(subject)
        self.labels.append(labels)
        self.intensity.append(intensity)
        self.origin.append((file, line))
        return len(self.pictures) - 1

    def table(self, listed: Sequence[Listed] = ()) -> Table:
        if not self.pictures:
            named = ", ".join(str(path) for path in self.files[:3]) or "the folder"
            raise UserError(f"No labelled picture was found in {named}. Check that the lists are complete.")
        names, subjects = np.unique(np.array(self.subjects), return_inverse=True)
        intensity = np.full((len(self), len(self.units)), np.nan, np.float32)
        for row, values in enumerate(self.intensity):
            if values is not None:
                intensity[row] = values
        return Table(
            self.dataset,
            self.style,
            self.units,
            tuple(self.pictures),
            np.array(self.frames, np.int64),
            subjects.astype(np.int64),
            tuple(names.tolist()),
            np.array(self.labels, np.int8).reshape(len(self), len(self.units)),
            intensity,
            tuple(self.files),
            np.array(self.origin, np.int64),
            tuple(listed),
            self._people(names.tolist()),
            tuple(self.notes),
        )

    def _people(self, names: Sequence[str]) -> tuple[str, ...]:
        """BP4D's names begin with F or M."""
        known = dict(self.people)
        if self.dataset == "BP4D":
            known |= {name: "a woman" if name.startswith("F") else "a man" for name in names}
        return tuple(known.get(name, "") for name in names) if known else ()


def unit_name(text: str) -> str | None:
    """'au1', 'AU01', '1' -> 'AU01'; None when it names no unit."""
    found = re.fullmatch(r"(?:au)?[_ ]?0*(\d{1,2})", text.strip(), re.IGNORECASE)
    return f"AU{int(found[1]):02d}" if found else None


def label_of(text: str, where: str) -> int:
    """'0', '1', '1.0' as they are; '', '-1', '9' and 'nan' are unknown."""
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
    """A coder's 0..5 (None = not coded) -> label and intensity in 0..1."""
    return (UNKNOWN, float("nan")) if coded is None else (int(coded >= POSITIVE), coded / STRONGEST)
