"""Divides labelled data into training and test parts without a common subject, as published or on its own.

Knows labels and subjects only. Beware of fold numbers: most projects test part 3 in their fold 1, some number folds by
the part that is tested. A fold here always says whom it tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .table import Table

# The three parts that every public implementation uses.
_PARTS = {
    "BP4D": (
        "F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008",
        "M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005",
        "F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014",
    ),
    "DISFA": (
        "SN002 SN010 SN001 SN026 SN027 SN032 SN030 SN009 SN016",
        "SN013 SN018 SN011 SN028 SN012 SN006 SN031 SN021 SN024",
        "SN003 SN029 SN023 SN025 SN008 SN005 SN007 SN017 SN004",
    ),
}
PARTS = {name: tuple(frozenset(part.split()) for part in parts) for name, parts in _PARTS.items()}
TESTED = (3, 2, 1)  # the part that folds 1, 2, 3 test, in the numbering of ME-GraphAU, AUNCE, MDHR and AU-Net
NUMBERING = (
    "Fold numbers differ between projects: ME-GraphAU, AUNCE, MDHR and AU-Net test part 3 in their fold 1, FG-Net and "
    "FMAE part 1. Compare results by the part that was tested:"
)

# Pictures of a full set, by the part tested.
FULL_TEST = {"BP4D": {3: 46034, 2: 50182, 1: 50631}, "DISFA": {3: 43605, 2: 43605, 1: 43604}}
FULL_TRAIN = {"BP4D": {3: 100813, 2: 96665, 1: 96216}, "DISFA": {3: 87209, 2: 87209, 1: 87210}}
DISFA_FRAMES = 4845  # of each subject (nine make a part); one subject of part 1 has one less


@dataclass(frozen=True, slots=True)
class Fold:
    number: int
    part: int  # the published part that is tested; 0 when it is none
    train: NDArray[np.int64]  # rows of the table
    test: NDArray[np.int64]
    subjects: tuple[str, ...]  # of the test

    def __str__(self) -> str:
        tested = f"part {self.part}" if self.part else f"{len(self.subjects)} subjects"
        return f"fold {self.number} tests {tested}: subjects {' '.join(self.subjects)}"


def make_folds(table: Table, count: int = 3, seed: int = 0) -> list[Fold]:
    """The lists' own folds where the data has some, else the published parts, else `count` folds over the subjects."""
    if table.listed:
        folds = [_fold(table, fold.number, fold.train, fold.test) for fold in table.listed]
    elif table.dataset in PARTS:
        folds = published(table)
    else:
        folds = over_subjects(table, count, seed)
    for fold in folds:
        check_exclusive(table, fold)
    return folds


def published(table: Table) -> list[Fold]:
    """Three folds in the usual numbering; every subject must be one of the published ones."""
    parts = PARTS[table.dataset]
    strangers = sorted(set(table.subject_names) - frozenset().union(*parts))
    if strangers:
        raise UserError(
            f"Subjects in no published part of {table.dataset}: {', '.join(strangers)}. "
            "Check the names of the folders, or leave these subjects out."
        )
    part = np.array([next(i for i, names in enumerate(parts, 1) if name in names) for name in table.subject_names])
    folds = []
    for number, tested in enumerate(TESTED, 1):
        held = part[table.subjects] == tested
        if held.any() and not held.all():
            folds.append(_fold(table, number, np.flatnonzero(~held), np.flatnonzero(held)))
    if not folds:
        raise UserError(
            f"All {len(table.subject_names)} subjects lie in one part of {table.dataset}, so no fold can be tested on "
            "another. Add subjects, or divide the data with a CSV and folds over subjects."
        )
    return folds


def over_subjects(table: Table, count: int = 3, seed: int = 0) -> list[Fold]:
    """Folds of about equally many pictures: subjects from most to fewest pictures, each to the smallest fold so far."""
    people = len(table.subject_names)
    if not 2 <= count <= people:
        raise UserError(f"{people} subjects cannot be divided into {count} folds. Choose 2 to {people} folds.")
    sizes = np.bincount(table.subjects, minlength=people)
    order = np.random.default_rng(seed).permutation(people)
    order = order[np.argsort(-sizes[order], kind="stable")]
    member, filled = np.zeros(people, np.int64), np.zeros(count, np.int64)
    for person in order:
        smallest = int(filled.argmin())
        member[person] = smallest
        filled[smallest] += sizes[person]
    rows = member[table.subjects]
    return [_fold(table, i + 1, np.flatnonzero(rows != i), np.flatnonzero(rows == i)) for i in range(count)]


def check_exclusive(table: Table, fold: Fold) -> None:
    """Raises with the names of subjects that are both trained on and tested, or when a side is empty."""
    for rows, name in ((fold.train, "training"), (fold.test, "test")):
        if not len(rows):
            files = ", ".join(str(path) for path in table.files[:2]) or "the data"
            raise UserError(
                f"Fold {fold.number} of {files} has an empty {name} part. Check its lists, or the pictures left out."
            )
    shared = np.intersect1d(table.subjects[fold.train], table.subjects[fold.test])
    if len(shared):
        first = int(fold.test[np.isin(table.subjects[fold.test], shared)][0])
        names = ", ".join(table.subject_names[i] for i in shared)
        raise UserError(
            f"Fold {fold.number} trains on and tests the same subjects: {names} (first at {table.where(first)}). "
            "Move each subject to one side."
        )


def count_notes(dataset: str, tested: int, counts: Sequence[tuple[str, str, int]]) -> list[str]:
    """Warnings for (file, 'train' or 'test', lines) that differ from a full set."""
    notes = []
    for file, side, found in counts:
        full = (FULL_TEST if side == "test" else FULL_TRAIN).get(dataset, {}).get(tested)
        if full is not None and found != full:
            differs = f"{full - found} short" if found < full else f"{found - full} too many"
            notes.append(f"{file} has {found} pictures, the full {dataset} list has {full}: {differs}.")
    return notes


def raw_count_notes(dataset: str, subjects: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Warnings for the parts of a raw release that differ from the full set, with the codings that are missing.

    `subjects` has one entry per picture; `files` are the codings, named `F001_T1.csv` or `SN001_au1.txt`.
    """
    found, stems = Counter(subjects), {path.stem for path in files}
    notes = []
    for part, names in enumerate(PARTS[dataset], 1):
        count, full = sum(found[name] for name in names), FULL_TEST[dataset][part]
        if count == full:
            continue
        if dataset == "BP4D":
            recordings = [f"{name}_T{task}" for name in sorted(names) for task in range(1, 9)]
            lacking = [f"{name}.csv" for name in recordings if name not in stems]
        else:
            lacking = [f"{name}_au*.txt" for name in sorted(names) if not any(stem.startswith(name) for stem in stems)]
            for path in files:
                given = found[path.stem[:5]]
                if path.stem[:5] in names and 0 < given < DISFA_FRAMES - 1:
                    notes.append(f"{path} gives {given} pictures, a full one {DISFA_FRAMES}.")
        differs = f"{full - count} short" if count < full else f"{count - full} too many"
        missing = f"; missing: {_listed(lacking)}" if lacking else ""
        notes.append(f"Part {part} of {dataset} has {count} pictures, the full one {full}: {differs}{missing}.")
    return notes


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def part_of(dataset: str, subjects: Sequence[str]) -> int:
    """The published part that holds all of these subjects; 0 when none does."""
    return next((i for i, names in enumerate(PARTS.get(dataset, ()), 1) if names.issuperset(subjects)), 0)


def _fold(table: Table, number: int, train: NDArray[np.integer], test: NDArray[np.integer]) -> Fold:
    names = tuple(table.subject_names[i] for i in np.unique(table.subjects[test]))
    part = part_of(table.dataset, names) if names else 0
    return Fold(number, part, np.asarray(train, np.int64), np.asarray(test, np.int64), names)
