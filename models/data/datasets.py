"""What is special about BP4D and DISFA."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError

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


# The units that the published comparisons use, in their order.
UNITS = {
    "BP4D": tuple(f"AU{n:02d}" for n in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)),
    "DISFA": tuple(f"AU{n:02d}" for n in (1, 2, 4, 6, 9, 12, 25, 26)),
}


_SUBJECT = re.compile(r"(?:^|[^A-Za-z0-9])(?:LeftVideo)?([FM]\d{3}|SN\d{3})(?![0-9])")


_TASK = re.compile(r"(?:^|[/_])(T\d)(?=[/_])")


def subject_of(path: str, where: str) -> str:
    """The subject that a path of BP4D or DISFA names."""
    found = _SUBJECT.search(path)
    if not found:
        raise UserError(f"{where}: '{path}' names no subject such as F001 or SN001. Use a CSV with a subject column.")
    return found[1]


def frame_key(path: str, where: str) -> tuple[str, str, int]:
    """(subject, task, frame), however the path is written: `F007_T1_0643.jpg` and `F007/T1/643.jpg` are one picture."""
    number = re.search(r"(\d+)\.\w+$", path)
    if not number:
        raise UserError(f"{where}: '{path}' does not end in a frame number such as 0643.jpg. Correct the line.")
    task = _TASK.search(path)
    return subject_of(path, where), task[1] if task else "", int(number[1])
