"""Reads the lists of BP4D and DISFA that other projects prepare: ME-GraphAU, AUNCE, MDHR, JAA-Net, AU-Net, FG-Net.

Each reader returns every image of the lists once, and the folds as the lists have them. Missing lines, and labels on
which two lists disagree, are errors that name file and line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from .datasets import DATASETS, TESTED, frame_key, list_notes, part_of, subject_of
from .table import Listed, Rows, Table, label_of, unit_name

IMAGE_FOLDERS = ("", "img", "imgs", "images", "data", "data/imgs", "data/img")


class Lists:
    """Images and labels of one data set, collected from lists that overlap."""

    def __init__(self, root: Path, dataset: str, style: str) -> None:
        self.root, self.dataset = root, dataset
        self.rows = Rows(dataset, style, DATASETS[dataset].units)
        self.number: dict[str, int] = {}  # image -> row
        self.base: Path | None = None

    def add(self, image: str, labels: Sequence[int], file: int, line: int) -> int:
        """The row of an image; one that was added before must have the same labels."""
        where = f"{self.rows.files[file]}:{line}"
        row = self.number.get(image)
        if row is None:
            self.base = self.base or self.find_base(image, self.rows.files[file])
            subject = subject_of(image, where)
            row = self.rows.add(str(self.base / image), subject, labels, file, line)
            self.number[image] = row
        elif list(self.rows.labels[row]) != list(labels):
            other = self.rows.origin[row]
            raise UserError(
                f"{where}: '{image}' has other labels than in {self.rows.files[other[0]]}:{other[1]}. "
                "Prepare both lists from the same codings."
            )
        return row

    def find_base(self, image: str, list_file: Path) -> Path:
        """The folder that the paths of the lists start from."""
        near = [list_file.parent, *list_file.parents[1:4], self.root]
        names = (*IMAGE_FOLDERS, *DATASETS[self.dataset].image_folders)
        folders = [place / name for place in near for name in names]
        for folder in folders:
            if (folder / image).is_file():
                return folder
        listed = ", ".join(dict.fromkeys(str(folder) for folder in folders[: len(names)]))
        raise UserError(f"{list_file}: image '{image}' was not found in {listed} or above. Put the images there.")

    def read_pair(self, paths: Path, labels: Path) -> list[int]:
        """Rows of a list of images and the list of their labels."""
        images, coded = lines_of(paths), lines_of(labels)
        if len(images) != len(coded):
            raise UserError(f"{paths} has {len(images)} lines, {labels} {len(coded)}. Prepare both lists again.")
        if not images:
            raise empty_list(paths)
        self.rows.file(paths)
        file = self.rows.file(labels)
        return [
            self.add(image, self.labels(text, f"{labels}:{line}"), file, line)
            for line, (image, text) in enumerate(zip(images, coded), 1)
        ]

    def labels(self, text: str, where: str) -> list[int]:
        cells = text.replace(",", " ").split()
        expected = len(self.rows.units)
        if len(cells) != expected:
            numbers = " ".join(str(int(unit[2:])) for unit in self.rows.units)
            raise UserError(f"{where}: {len(cells)} labels, expected {expected} (AU {numbers}). Correct the line.")
        return [label_of(cell, where) for cell in cells]

    def table(self, listed: Sequence[Listed], sources: Sequence[tuple[str, str, int, list[int]]]) -> Table:
        """`sources`: (file, 'train' or 'test', fold, rows); lengths are checked against the part that is tested."""
        subjects = np.array(self.rows.subjects)
        for fold in listed:
            tested = part_of(self.dataset, subjects[fold.test].tolist()) if len(fold.test) else TESTED[fold.number - 1]
            counts = [(file, side, len(rows)) for file, side, number, rows in sources if number == fold.number]
            self.rows.notes += list_notes(self.dataset, tested, counts)
        return self.rows.table(listed)


def lines_of(path: Path) -> list[str]:
    """Lines, without empty ones at the end; an empty line in between is an error."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing. It belongs to the lists next to it: prepare it again.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path}:{number}: the line is empty. Remove it, here and in the list that belongs to it.")
    return [line.strip() for line in lines]


def empty_list(path: Path, line: int = 1) -> UserError:
    return UserError(f"{path}:{line}: the list is empty, and so is one side of its fold. Prepare the list again.")


def read_graphau(root: Path, files: Sequence[Path], dataset: str, style: str = "graphau") -> Table:
    """`{DS}_{train,test}_{img_path,label}_fold{k}.txt` of ME-GraphAU, AUNCE and MDHR."""
    lists = Lists(root, dataset, style)
    sides: dict[int, dict[str, list[int]]] = {}
    sources = []
    for path in files:
        match = re.fullmatch(rf"{dataset}_(train|test)_img_path_fold(\d)\.txt", path.name)
        if not match:
            continue
        side, fold = match[1], int(match[2])
        rows = lists.read_pair(path, path.with_name(f"{dataset}_{side}_label_fold{fold}.txt"))
        sides.setdefault(fold, {})[side] = rows
        sources.append((str(path), side, fold, rows))
    return lists.table(_listed(sides, root), sources)


def read_mdhr(root: Path, files: Sequence[Path], dataset: str) -> Table:
    return read_graphau(root, files, dataset, "mdhr")


def read_jaanet(root: Path, files: Sequence[Path], dataset: str) -> Table:
    """`{DS}_part{p}_path.txt` and `{DS}_combine_{p}_{q}_path.txt`, labels in `..._AUoccur.txt`."""
    lists = Lists(root, dataset, "jaanet")
    parts: dict[int, list[int]] = {}
    others: dict[int, list[int]] = {}
    sources = []
    for path in files:
        match = re.fullmatch(rf"{dataset}_(?:part(\d)|combine_(\d)_(\d))_path\.txt", path.name)
        if not match:
            continue
        rows = lists.read_pair(path, path.with_name(path.name.replace("_path", "_AUoccur")))
        tested = int(match[1]) if match[1] else 6 - int(match[2]) - int(match[3])
        (parts if match[1] else others)[tested] = rows
        if 1 <= tested <= 3:
            sources.append((str(path), "test" if match[1] else "train", TESTED.index(tested) + 1, rows))
    sides: dict[int, dict[str, list[int]]] = {}
    for tested in sorted(parts, reverse=True):
        rest = sorted({row for part, rows in parts.items() if part != tested for row in rows})
        sides[TESTED.index(tested) + 1] = {"test": parts[tested], "train": others.get(tested, rest)}
    return lists.table(_listed(sides, root), sources)


def read_aunet(root: Path, files: Sequence[Path], dataset: str) -> Table:
    """`{DS}_names_label.txt` and `au_labels.txt`; folds in `BP4D_{tr,ts}{k}_path.txt` or `DISFA_part{p}_path.txt`."""
    lists = Lists(root, dataset, "aunet")
    names = next((path for path in files if path.name == f"{dataset}_names_label.txt"), None)
    if names is None:
        raise UserError(f"{dataset}_names_label.txt was not found below {root}. Put AU-Net's annotation folder there.")
    rows = lists.read_pair(names, names.with_name("au_labels.txt"))
    key_rows = {frame_key(name, f"{names}:{i}"): row for i, (name, row) in enumerate(zip(lines_of(names), rows), 1)}
    sides: dict[int, dict[str, list[int]]] = {}
    parts: dict[int, list[int]] = {}
    sources = []
    for path in files:
        match = re.fullmatch(rf"{dataset}_(tr|ts|part)(\d)_path\.txt", path.name)
        if not match:
            continue
        keys = [frame_key(line, f"{path}:{i}") for i, line in enumerate(lines_of(path), 1)]
        if not keys:
            raise empty_list(path)
        chosen = [key_rows[key] for key in keys if key in key_rows]
        if len(chosen) < len(keys):
            first = next(i for i, key in enumerate(keys, 1) if key not in key_rows)
            left = f"{len(keys) - len(chosen)} lines (first {path}:{first}) are not in {names} and are left out."
            lists.rows.notes.append(left)
        if match[1] == "part":
            parts[int(match[2])] = chosen
        else:
            sides.setdefault(int(match[2]), {})["train" if match[1] == "tr" else "test"] = chosen
            sources.append((str(path), "train" if match[1] == "tr" else "test", int(match[2]), chosen))
    for tested in sorted(parts, reverse=True):
        rest = [row for part, rows in sorted(parts.items()) if part != tested for row in rows]
        sides[TESTED.index(tested) + 1] = {"test": parts[tested], "train": rest}
        sources.append((f"part {tested}", "test", TESTED.index(tested) + 1, parts[tested]))
    return lists.table(_listed(sides, root) if sides else [], sources)


def read_fgnet(root: Path, files: Sequence[Path], dataset: str) -> Table:
    """`labels/{k}/train.csv` and `test.csv` with `image_path,au1,...`; of several `train_{n}.csv`, the longest."""
    lists = Lists(root, dataset, "fgnet")
    chosen: dict[tuple[int, str], Path] = {}
    for path in files:
        match = re.fullmatch(r"(train|test)(?:_(\d+))?\.csv", path.name)
        if not match or not path.parent.name.isdigit() or dataset not in str(path):
            continue
        key = int(path.parent.name) + 1, match[1]
        if key not in chosen or _amount(path) > _amount(chosen[key]):
            chosen[key] = path
    sides: dict[int, dict[str, list[int]]] = {}
    sources = []
    for (fold, side), path in sorted(chosen.items()):
        rows = _read_fgnet_file(lists, path)
        sides.setdefault(fold, {})[side] = rows
        sources.append((str(path), side, fold, rows))
    return lists.table(_listed(sides, root), sources)


def _amount(path: Path) -> float:
    """How much of the training part a file of FG-Net holds; one without a number holds all."""
    number = re.search(r"_(\d+)\.csv$", path.name)
    return float(number[1]) if number else float("inf")


def _read_fgnet_file(lists: Lists, path: Path) -> list[int]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        units = [unit_name(name) if name.lower().startswith("au") else None for name in header]
        if "image_path" not in header:
            raise UserError(f"{path}:1: column 'image_path' is missing. Expected image_path,au1,au2,...")
        lacking = [unit for unit in lists.rows.units if unit not in units]
        if lacking:
            raise UserError(f"{path}:1: columns for {', '.join(lacking)} are missing. Prepare the file again.")
        columns = [units.index(unit) for unit in lists.rows.units]
        number = lists.rows.file(path)
        rows = []
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if len(cells) != len(header):
                raise UserError(f"{where}: {len(cells)} cells, the first line has {len(header)}. Correct the line.")
            labels = [label_of(cells[i], where) for i in columns]
            rows.append(lists.add(cells[header.index("image_path")].strip(), labels, number, reader.line_num))
    if not rows:
        raise empty_list(path, 2)
    return rows


def _listed(sides: dict[int, dict[str, list[int]]], root: Path) -> list[Listed]:
    folds = []
    for number, side in sorted(sides.items()):
        for name in ("train", "test"):
            if not side.get(name):
                raise UserError(f"Fold {number} below {root} has no {name} list. Put it next to the others.")
        folds.append(Listed(number, np.array(side["train"], np.int64), np.array(side["test"], np.int64)))
    if not folds:
        raise UserError(f"No lists of folds were found below {root}. Give the folder that holds them.")
    return folds


READERS: dict[str, Callable[[Path, Sequence[Path], str], Table]] = {
    "graphau": read_graphau,
    "mdhr": read_mdhr,
    "jaanet": read_jaanet,
    "aunet": read_aunet,
    "fgnet": read_fgnet,
}
