"""What is special about BP4D and DISFA: one record each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError


@dataclass(frozen=True, slots=True)
class Paper:
    """Figures of the VL-FAU paper, in percent."""

    f1: Mapping[str, float]  # by unit
    mean_f1: float
    accuracy: float
    floor: float  # mean F1 of a predictor that always says yes; from the whole data set, not from the paper
    top5: Mapping[str, float] = field(default_factory=dict)  # word top-5 accuracy, of "local" and "global" captions
    ablation: Mapping[str, float] = field(default_factory=dict)  # mean F1 by row


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    units: tuple[str, ...]  # of the published comparisons, in their order
    subject: str  # pattern of a subject's name
    parts: tuple[frozenset[str], ...]  # subjects of the three parts that every public implementation uses
    part_sizes: tuple[int, ...]  # images of each part of a full set
    image_folders: tuple[str, ...]  # from which other projects' lists count their paths
    paper: Paper
    # The original release
    coding: str  # pattern of the path of a file of codings
    coding_folder: str  # all codings lie below it
    coding_name: str  # of one recording's file, for messages
    video: str  # pattern of a video's name, with {subject} and {task}
    video_example: str  # for messages, with {recording}
    as_videos: bool  # it is published as videos, otherwise as images
    first_frame: int  # number that the codings give to the first frame
    tasks: tuple[str, ...] = ()  # recordings of each subject; with none there is one recording
    subject_frames: int = 0  # coded frames of a subject, where all have equally many; one may be missing
    descriptions: Mapping[str, str] = field(default_factory=dict)  # first letter of a name -> such as "a woman"

    def recordings(self, subject: str) -> list[str]:
        """Names of a subject's recordings, as files have them."""
        return [f"{subject}_{task}" for task in self.tasks] or [subject]

    def test_size(self, part: int) -> int:
        """Images of a full set in the fold that tests this part (1, 2 or 3)."""
        return self.part_sizes[part - 1]

    def training_size(self, part: int) -> int:
        return sum(self.part_sizes) - self.part_sizes[part - 1]


def _units(*numbers: int) -> tuple[str, ...]:
    return tuple(f"AU{number:02d}" for number in numbers)


def _parts(*names: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(part.split()) for part in names)


_BP4D_UNITS = _units(1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
BP4D = Dataset(
    name="BP4D",
    units=_BP4D_UNITS,
    subject=r"[FM]\d{3}",
    parts=_parts(
        "F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008",
        "M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005",
        "F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014",
    ),
    part_sizes=(50631, 50182, 46034),
    image_folders=("BP4D-small",),
    coding=r"AU_OCC[/\\][FM]\d{3}_T\d\.csv",
    coding_folder="AUCoding",
    coding_name="{recording}.csv",
    video=r"{subject}[-_ ]?{task}",
    video_example="{recording}.avi",
    as_videos=False,
    first_frame=0,
    tasks=("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8"),
    descriptions={"F": "a woman", "M": "a man"},
    paper=Paper(
        f1=dict(zip(_BP4D_UNITS, (56.3, 49.9, 62.6, 79.5, 80.1, 82.6, 88.6, 66.8, 51.3, 63.5, 51.3, 57.1))),
        mean_f1=65.8,
        accuracy=79.8,
        floor=48.0,
        top5={"local": 86.6, "global": 64.7},
        ablation={
            "stem only": 64.3,
            "MSC and DAIR": 64.7,
            "local captions": 65.3,
            "global caption": 65.2,
            "all": 65.8,
        },
    ),
)

_DISFA_UNITS = _units(1, 2, 4, 6, 9, 12, 25, 26)
DISFA = Dataset(
    name="DISFA",
    units=_DISFA_UNITS,
    subject=r"SN\d{3}",
    parts=_parts(
        "SN002 SN010 SN001 SN026 SN027 SN032 SN030 SN009 SN016",
        "SN013 SN018 SN011 SN028 SN012 SN006 SN031 SN021 SN024",
        "SN003 SN029 SN023 SN025 SN008 SN005 SN007 SN017 SN004",
    ),
    part_sizes=(43604, 43605, 43605),
    image_folders=("DISFA_frames",),
    coding=r"ActionUnit_Labels[/\\]SN\d{3}[/\\]SN\d{3}_au\d+\.txt",
    coding_folder="ActionUnit_Labels",
    coding_name="{recording}_au*.txt",
    video=r"LeftVideo{subject}(?:_comp)?",
    video_example="LeftVideo..._comp.avi",
    as_videos=True,
    first_frame=1,
    subject_frames=4845,
    paper=Paper(
        f1=dict(zip(_DISFA_UNITS, (60.9, 56.4, 74.0, 46.3, 60.8, 72.4, 94.3, 66.5))),
        mean_f1=66.5,
        accuracy=94.3,
        floor=18.6,
    ),
)

DATASETS = {dataset.name: dataset for dataset in (BP4D, DISFA)}
SUBJECT = re.compile("|".join(dataset.subject for dataset in DATASETS.values()))
CODING_FOLDERS = tuple(dataset.coding_folder for dataset in DATASETS.values())

TESTED = (3, 2, 1)  # the part that folds 1, 2, 3 test, in the numbering of ME-GraphAU, AUNCE, MDHR and AU-Net
NUMBERING = (
    "Fold numbers differ between projects: ME-GraphAU, AUNCE, MDHR and AU-Net test part 3 in their fold 1, FG-Net and "
    "FMAE part 1. Compare results by the part that was tested:"
)

_SUBJECT_IN_PATH = re.compile(rf"(?:^|[^A-Za-z0-9])(?:LeftVideo)?({SUBJECT.pattern})(?![0-9])")
_TASK_IN_PATH = re.compile(r"(?:^|[/_])(T\d)(?=[/_])")


def part_of(dataset: str, subjects: Sequence[str]) -> int:
    """The published part that holds all of these subjects; 0 if none does."""
    parts = DATASETS[dataset].parts if dataset in DATASETS else ()
    return next((number for number, names in enumerate(parts, 1) if names.issuperset(subjects)), 0)


def subject_of(path: str, where: str) -> str:
    """The subject that a path of BP4D or DISFA names."""
    match = _SUBJECT_IN_PATH.search(path)
    if not match:
        raise UserError(f"{where}: '{path}' names no subject such as F001 or SN001. Use a CSV with a subject column.")
    return match[1]


def frame_key(path: str, where: str) -> tuple[str, str, int]:
    """(subject, task, frame), however the path is written: `F007_T1_0643.jpg` and `F007/T1/643.jpg` are one image."""
    number = re.search(r"(\d+)\.\w+$", path)
    if not number:
        raise UserError(f"{where}: '{path}' does not end in a frame number such as 0643.jpg. Correct the line.")
    task = _TASK_IN_PATH.search(path)
    return subject_of(path, where), task[1] if task else "", int(number[1])


def list_notes(dataset: str, tested: int, counts: Sequence[tuple[str, str, int]]) -> list[str]:
    """Warnings about lists, given as (file, 'train' or 'test', lines), whose length differs from a full set's."""
    if dataset not in DATASETS or not tested:
        return []
    record = DATASETS[dataset]
    notes = []
    for file, side, count in counts:
        full = record.test_size(tested) if side == "test" else record.training_size(tested)
        if count != full:
            notes.append(f"{file} has {count} images, the full {dataset} list has {full}: {_difference(count, full)}.")
    return notes


def release_notes(dataset: Dataset, subjects: Sequence[str], codings: Sequence[Path]) -> list[str]:
    """Warnings about the parts of an original release that differ from a full set, with the missing codings.

    `subjects` has one entry per image; `codings` are files named `F001_T1.csv` or `SN001_au1.txt`.
    """
    counts, stems = Counter(subjects), [path.stem for path in codings]
    notes = []
    for part, names in enumerate(dataset.parts, 1):
        count, full = sum(counts[name] for name in names), dataset.test_size(part)
        if count == full:
            continue
        recordings = [recording for name in sorted(names) for recording in dataset.recordings(name)]
        missing = [
            dataset.coding_name.format(recording=recording)
            for recording in recordings
            if not any(stem.startswith(recording) for stem in stems)
        ]
        for path in codings if dataset.subject_frames else ():
            subject = path.stem.split("_")[0]
            if subject in names and 0 < counts[subject] < dataset.subject_frames - 1:
                notes.append(f"{path} gives {counts[subject]} images, a full one {dataset.subject_frames}.")
        listed = f"; missing: {_listed(missing)}" if missing else ""
        text = f"Part {part} of {dataset.name} has {count} images, the full one {full}: {_difference(count, full)}"
        notes.append(f"{text}{listed}.")
    return notes


def _difference(count: int, full: int) -> str:
    return f"{full - count} short" if count < full else f"{count - full} too many"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
