"""Opens labelled data as it lies on the disk, whatever project prepared it: `open_layout(folder)` gives one `Table`.

This file recognises the layout and reads what is no list of files: plain CSV and rendered shards. The lists of other
projects are in `lists.py`, the original releases in `released.py`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError, unknown
from . import lists, released
from .shards import read_shards
from .table import PICTURE_FILE, UNKNOWN, Rows, Table, label_of, unit_name

STYLES = ("auto", "bp4d", "disfa", "graphau", "mdhr", "jaanet", "aunet", "fgnet", "csv", "shards")
DEPTH = 4  # folders below the root that are looked through


def open_layout(
    root: Path | str, style: str = "auto", *, dataset: str | None = None, units: Sequence[str] | None = None
) -> Table:
    """All labelled pictures below `root`. `dataset` (BP4D or DISFA) chooses where both lie there.

    `units` are those to keep, in their order; by default the published ones of BP4D and DISFA, or all of a CSV's or a
    shard's. A unit that the data does not code is refused.
    """
    root = Path(root).expanduser()
    if style not in STYLES:
        raise unknown("layout", style, STYLES)
    if dataset is not None and dataset not in ("BP4D", "DISFA"):
        raise unknown("data set", dataset, ("BP4D", "DISFA"))
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
    """The layout's name, from the names of files; the first that fits, from the most to the least particular."""
    names = [str(path.relative_to(root)) if path != root else path.name for path in files]
    wanted = dataset or "(?:BP4D|DISFA)"
    for style, pattern in (
        ("shards", r"shard-\d+\.safetensors"),
        ("graphau", rf"{wanted}_(?:train|test)_img_path_fold\d\.txt"),
        ("aunet", rf"{wanted}_(?:names_label|(?:tr|ts)\d_path)\.txt"),
        ("jaanet", rf"{wanted}_(?:part\d|combine_\d_\d)_path\.txt"),
        ("fgnet", r"labels[/\\]\d[/\\](?:train(?:_\d+)?|test)\.csv"),
        ("bp4d", r"AU_OCC[/\\][FM]\d{3}_T\d\.csv"),
        ("disfa", r"ActionUnit_Labels[/\\]SN\d{3}[/\\]SN\d{3}_au\d+\.txt"),
        ("csv", r"\.csv"),
    ):
        if any(re.search(pattern + "$", name) for name in names):
            return style
    raise UserError(
        f"No known layout of labelled data below {root}. Known are: {', '.join(STYLES[1:])}; "
        "anything else as one CSV with the columns path,subject,AU1,AU2,..."
    )


def find_files(root: Path) -> list[Path]:
    """Lists, codings and shards below the root; folders of pictures are not entered."""
    if root.is_file():
        return [root]
    found = []
    for folder, inside, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        # A subject's folder holds thousands of pictures, except where DISFA keeps its codings in one.
        if depth >= DEPTH:
            inside.clear()
        elif Path(folder).name != "ActionUnit_Labels":
            inside[:] = [name for name in inside if not re.fullmatch(r"[FM]\d{3}|SN\d{3}", name)]
        inside.sort()
        kept = (".txt", ".csv", ".safetensors", ".avi", ".mp4", ".mkv", ".mov", ".wmv")
        found += [Path(folder) / name for name in sorted(names) if name.lower().endswith(kept)]
    return found


def read_csv(path: Path, units: Sequence[str] | None = None) -> Table:
    """`path,subject,AU1,AU2,...`; paths are relative to the file; an empty cell is unknown. Optional columns: `frame`
    (from 0) says that the path is a video, `person` who the subject is, such as "a woman"."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        columns = {unit: i for i, name in enumerate(header) if (unit := unit_name(name)) and not name.isdigit()}
        lower = [name.lower() for name in header]
        for needed in ("path", "subject"):
            if needed not in lower:
                raise UserError(f"{path}:1: column '{needed}' is missing. The first line is path,subject,AU1,AU2,...")
        strange = [
            name
            for name in header
            if name.lower() not in ("path", "subject", "frame", "person") and not unit_name(name)
        ]
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
            frame = PICTURE_FILE
            if where_frame is not None and cells[where_frame].strip():
                if not cells[where_frame].strip().isdigit():
                    raise UserError(f"{where}: frame '{cells[where_frame]}' is no number from 0. Correct the cell.")
                frame = int(cells[where_frame])
            picture = str(path.parent / cells[where_path].strip())
            labels = [label_of(cells[i], f"{where}, column {header[i]}") for i in columns.values()]
            if "person" in lower and (person := cells[lower.index("person")].strip().lower()):
                known = rows.people.setdefault(cells[where_subject].strip(), person)
                if known != person:
                    raise UserError(f"{where}: this subject is '{person}', before it was '{known}'. Correct the line.")
            rows.add(picture, cells[where_subject].strip(), labels, number, reader.line_num, frame=frame)
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
    """The columns of some units; pictures that keep no known label are left out."""
    columns = []
    for unit in units:
        if unit not in table.units:
            raise unknown(f"action unit in {table.files[0]}", unit, table.units)
        columns.append(table.units.index(unit))
    kept = np.flatnonzero((table.labels[:, columns] != UNKNOWN).any(1))
    left = len(table) - len(kept)
    if not len(kept):
        raise UserError(f"No picture of {table.files[0]} has a label for {', '.join(units)}. Choose other units.")
    notes = [f"{left} pictures have no label for the chosen units and are left out."] if left else []
    return table.only(kept, *notes).with_columns(units, columns)


def _only_csv(root: Path, files: Sequence[Path]) -> Path:
    found = [path for path in files if path.suffix.lower() == ".csv"]
    if len(found) != 1:
        raise UserError(f"{root} holds {len(found)} CSV files. Give the path of the one with path,subject,AU1,...")
    return found[0]


def _one_dataset(root: Path, files: Sequence[Path], dataset: str | None) -> str:
    """Which of BP4D and DISFA the lists are of."""
    if dataset is not None:
        return dataset
    found = sorted({name for path in files for name in ("BP4D", "DISFA") if name in str(path.relative_to(root.parent))})
    lists = sorted({name for path in files for name in ("BP4D", "DISFA") if path.name.startswith(name + "_")})
    chosen = lists or found
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise UserError(f"Neither a file nor a folder below {root} is named BP4D or DISFA. Say which with --dataset.")
    raise UserError(f"{root} holds lists of BP4D and of DISFA. Give the folder of one, or choose it with --dataset.")
