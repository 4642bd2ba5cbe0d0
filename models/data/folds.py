"""Divides labelled data into training and test parts without a common subject.

Beware of fold numbers: most projects test part 3 in their fold 1, others number folds by the part they test. A fold
here always lists the subjects that it tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .datasets import DATASETS, TESTED, part_of
from .table import Table


@dataclass(frozen=True, slots=True)
class Fold:
    number: int
    part: int  # the published part that is tested; 0 if it is not a published one
    train: NDArray[np.int64]  # rows of the table
    test: NDArray[np.int64]
    subjects: tuple[str, ...]  # of the test

    def __str__(self) -> str:
        tested = f"part {self.part}" if self.part else f"{len(self.subjects)} subjects"
        return f"fold {self.number} tests {tested}: subjects {' '.join(self.subjects)}"


def make_folds(table: Table, count: int = 3, seed: int = 0) -> list[Fold]:
    """The folds of the lists if there are any, else the published parts, else `count` folds over the subjects."""
    if table.listed:
        folds = [_fold(table, fold.number, fold.train, fold.test) for fold in table.listed]
    elif table.dataset in DATASETS:
        folds = published(table)
    else:
        folds = over_subjects(table, count, seed)
    for fold in folds:
        check_exclusive(table, fold)
    return folds


def published(table: Table) -> list[Fold]:
    """Three folds in the usual numbering; every subject must be one of the published ones."""
    parts = DATASETS[table.dataset].parts
    strangers = sorted(set(table.subject_names) - frozenset().union(*parts))
    if strangers:
        raise UserError(
            f"Subjects that are in no published part of {table.dataset}: {', '.join(strangers)}. "
            "Check the names of the folders, or leave these subjects out."
        )
    part = np.array([next(i for i, names in enumerate(parts, 1) if name in names) for name in table.subject_names])
    folds = []
    for number, tested in enumerate(TESTED, 1):
        held_out = part[table.subjects] == tested
        if held_out.any() and not held_out.all():
            folds.append(_fold(table, number, np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    if not folds:
        raise UserError(
            f"All {len(table.subject_names)} subjects are in one part of {table.dataset}, so no fold can be tested on "
            "another. Add subjects, or divide the data with a CSV and folds over subjects."
        )
    return folds


def over_subjects(table: Table, count: int = 3, seed: int = 0) -> list[Fold]:
    """Folds with about equally many images: subjects from most to fewest images, each to the smallest fold so far."""
    subjects = len(table.subject_names)
    if not 2 <= count <= subjects:
        raise UserError(f"{subjects} subjects cannot be divided into {count} folds. Choose 2 to {subjects} folds.")
    sizes = np.bincount(table.subjects, minlength=subjects)
    order = np.random.default_rng(seed).permutation(subjects)
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, filled = np.zeros(subjects, np.int64), np.zeros(count, np.int64)
    for subject in order:
        smallest = int(filled.argmin())
        fold_of[subject] = smallest
        filled[smallest] += sizes[subject]
    rows = fold_of[table.subjects]
    return [_fold(table, i + 1, np.flatnonzero(rows != i), np.flatnonzero(rows == i)) for i in range(count)]


def check_exclusive(table: Table, fold: Fold) -> None:
    """Raises if subjects are both trained on and tested, or if one side is empty."""
    for rows, name in ((fold.train, "training"), (fold.test, "test")):
        if not len(rows):
            files = ", ".join(str(path) for path in table.files[:2]) or "the data"
            raise UserError(
                f"Fold {fold.number} of {files} has an empty {name} part. Check its lists, or the images left out."
            )
    shared = np.intersect1d(table.subjects[fold.train], table.subjects[fold.test])
    if len(shared):
        first = int(fold.test[np.isin(table.subjects[fold.test], shared)][0])
        names = ", ".join(table.subject_names[i] for i in shared)
        raise UserError(
            f"Fold {fold.number} trains on and tests the same subjects: {names} (first at {table.where(first)}). "
            "Move each subject to one side."
        )


def _fold(table: Table, number: int, train: NDArray[np.integer], test: NDArray[np.integer]) -> Fold:
    names = tuple(table.subject_names[i] for i in np.unique(table.subjects[test]))
    part = part_of(table.dataset, names) if names else 0
    return Fold(number, part, np.asarray(train, np.int64), np.asarray(test, np.int64), names)
