"""Opens labelled data in whatever layout it is stored: `open_layout(folder)` returns a `Table`.

This file recognises the layout and reads plain CSV and rendered shards. `lists.py` reads the lists of other projects,
`released.py` the original releases.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError, unknown
from ..files import VIDEOS
from . import lists, released
from .datasets import CODING_FOLDERS, DATASETS, SUBJECT
from .shards import read_shards
from .table import IMAGE_FILE, UNKNOWN, Rows, Table, label_of, unit_name

STYLES = ("auto", "bp4d", "disfa", "graphau", "mdhr", "jaanet", "aunet", "fgnet", "csv", "shards")
DEPTH = 4  # folders below the root that are searched
OWN_COLUMNS = ("path", "subject", "frame", "person")  # of a CSV; all others are action units


def open_layout(
    root: Path | str, style: str = "auto", *, dataset: str | None = None, units: Sequence[str] | None = None
) -> Table:
    """All labelled images below `root`. `dataset` (BP4D or DISFA) chooses one if both are there.

    `units` are those to keep, in this order; by default the published ones of BP4D and DISFA, or all of a CSV or shard.
    A unit that the data does not code is an error.
    """
    root = Path(root).expanduser()
    if style not in STYLES:
        raise unknown("layout", style, STYLES)
    if dataset is not None and dataset not in DATASETS:
        raise unknown("data set", dataset, DATASETS)
    if not root.exists():
        raise UserError(f"{root} does not exist. Give the folder that holds the labelled data, or a CSV file.")
    files = find_files(root)
    if style == "auto":
        style = recognise(root, files, dataset)
    if style == "shards":
        return _shards(root, units)
    if style == "csv":
        return read_csv(_only_csv(root, files), units)
    if style == "bp4d":
        return released.read_bp4d(root, files, units)
    if style == "disfa":
        return released.read_disfa(root, files, units)
    table = lists.READERS[style](root, files, _one_dataset(root, files, dataset))
    return table if units is None else choose_units(table, units)


def recognise(root: Path, files: Sequence[Path], dataset: str | None = None) -> str:
    """The name of the layout, from the names of files; the first that fits, from the most to the least specific."""
    paths = [str(path.relative_to(root)) if path != root else path.name for path in files]
    name = dataset or f"(?:{'|'.join(DATASETS)})"
    for style, pattern in (
        ("shards", r"shard-\d+\.safetensors"),
        ("graphau", rf"{name}_(?:train|test)_img_path_fold\d\.txt"),
        ("aunet", rf"{name}_(?:names_label|(?:tr|ts)\d_path)\.txt"),
        ("jaanet", rf"{name}_(?:part\d|combine_\d_\d)_path\.txt"),
        ("fgnet", r"labels[/\\]\d[/\\](?:train(?:_\d+)?|test)\.csv"),
        *((record.name.lower(), record.coding) for record in DATASETS.values()),
        ("csv", r"\.csv"),
    ):
        if any(re.search(pattern + "$", path) for path in paths):
            return style
    raise UserError(
        f"No known layout of labelled data below {root}. The layouts are: {', '.join(STYLES[1:])}. "
        "Convert any other to one CSV with the columns path,subject,AU1,AU2,..."
    )


def find_files(root: Path) -> list[Path]:
    """Lists, codings, videos and shards below the root; folders of images are not entered."""
    if root.is_file():
        return [root]
    files: list[Path] = []
    for folder, inside, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        # A subject's folder holds thousands of images, unless it holds a release's codings.
        if depth >= DEPTH:
            inside.clear()
        elif Path(folder).name not in CODING_FOLDERS:
            inside[:] = [name for name in inside if not SUBJECT.fullmatch(name)]
        inside.sort()
        suffixes = (".txt", ".csv", ".safetensors", *VIDEOS)
        files += [Path(folder) / name for name in sorted(names) if name.lower().endswith(suffixes)]
    return files


def read_csv(path: Path, units: Sequence[str] | None = None) -> Table:
    """`path,subject,AU1,AU2,...`, with paths relative to the file; an empty cell is an unknown label.

    Optional columns: `frame` (from 0) makes the path a video, `person` describes the subject, such as "a woman".
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        columns = {unit: i for i, name in enumerate(header) if (unit := unit_name(name)) and not name.isdigit()}
        lower = [name.lower() for name in header]
        for needed in ("path", "subject"):
            if needed not in lower:
                raise UserError(f"{path}:1: column '{needed}' is missing. The first line is path,subject,AU1,AU2,...")
        strange = [name for name in header if name.lower() not in OWN_COLUMNS and not unit_name(name)]
        if strange or not columns:
            raise UserError(f"{path}:1: columns {strange or header} name no action unit. Write them as AU1, AU12.")
        rows = Rows("", "csv", list(columns))
        number = rows.file(path)
        where_path, where_subject = lower.index("path"), lower.index("subject")
        where_frame = lower.index("frame") if "frame" in lower else None
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(f"{where}: {len(cells)} cells, the first line has {len(header)}. Correct the line.")
            if not cells[where_path].strip() or not cells[where_subject].strip():
                raise UserError(f"{where}: path or subject is empty. Fill the cell or remove the line.")
            frame = IMAGE_FILE
            if where_frame is not None and cells[where_frame].strip():
                if not cells[where_frame].strip().isdigit():
                    raise UserError(f"{where}: frame '{cells[where_frame]}' is not a number from 0. Correct the cell.")
                frame = int(cells[where_frame])
            image = str(path.parent / cells[where_path].strip())
            labels = [label_of(cells[i], f"{where}, column {header[i]}") for i in columns.values()]
            if "person" in lower and (person := cells[lower.index("person")].strip().lower()):
                before = rows.descriptions.setdefault(cells[where_subject].strip(), person)
                if before != person:
                    raise UserError(f"{where}: this subject is '{person}', before it was '{before}'. Correct the line.")
            rows.add(image, cells[where_subject].strip(), labels, number, reader.line_num, frame=frame)
    table = rows.table()
    return table if units is None else choose_units(table, units)


def _shards(folder: Path, units: Sequence[str] | None) -> Table:
    """Renders as a table; training reads them faster through `samples.ShardSamples`."""
    renders = read_shards(folder, units)
    rows = Rows("", "shards", renders.units)
    for path, start, end in zip(renders.files, renders.starts, renders.starts[1:]):
        number = rows.file(path)
        for i in range(int(start), int(end)):
            person = f"person {renders.identity[i]}"
            labels, level = renders.labels[i].tolist(), renders.intensity[i].tolist()
            rows.add(str(path), person, labels, number, i - int(start), frame=i - int(start), intensity=level)
    return rows.table()


def choose_units(table: Table, units: Sequence[str]) -> Table:
    """The columns of some units; images without a known label for any of them are left out."""
    columns = []
    for unit in units:
        if unit not in table.units:
            raise unknown(f"action unit in {table.files[0]}", unit, table.units)
        columns.append(table.units.index(unit))
    labelled = np.flatnonzero((table.labels[:, columns] != UNKNOWN).any(1))
    left_out = len(table) - len(labelled)
    if not len(labelled):
        raise UserError(f"No image of {table.files[0]} has a label for {', '.join(units)}. Choose other units.")
    notes = [f"{left_out} images have no label for the chosen units and are left out."] if left_out else []
    return table.only(labelled, *notes).with_columns(units, columns)


def _only_csv(root: Path, files: Sequence[Path]) -> Path:
    tables = [path for path in files if path.suffix.lower() == ".csv"]
    if len(tables) != 1:
        raise UserError(f"{root} holds {len(tables)} CSV files. Give the path of the one with path,subject,AU1,...")
    return tables[0]


def _one_dataset(root: Path, files: Sequence[Path], dataset: str | None) -> str:
    """The data set that the lists belong to."""
    if dataset is not None:
        return dataset
    by_file = {name for path in files for name in DATASETS if path.name.startswith(name + "_")}
    by_path = {name for path in files for name in DATASETS if name in str(path.relative_to(root.parent))}
    names = sorted(by_file or by_path)
    if len(names) == 1:
        return names[0]
    if not names:
        known = " or ".join(DATASETS)
        raise UserError(f"Neither a file nor a folder below {root} is named {known}. Choose one with --dataset.")
    raise UserError(f"{root} holds lists of {' and of '.join(names)}. Give the folder of one, or use --dataset.")
