"""Reads the codings of the original releases of BP4D and DISFA; `frames.py` finds the frames they belong to.

Intensities are kept. An action counts as present from intensity 2 (DISFA), or as the occurrence coding says (BP4D).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError, unknown
from .datasets import BP4D, DISFA, release_notes
from .frames import Frames
from .table import STRONGEST, Rows, Table, from_intensity

UNCODED = 9  # marks a unit that could not be coded


def read_bp4d(root: Path, files: Sequence[Path], units: Sequence[str] | None = None) -> Table:
    """`AU_OCC/{subject}_{task}.csv`: first row the units, first column the frame; images or a video per task."""
    codings = [path for path in files if path.parent.name == "AU_OCC" and re.fullmatch(r"[FM]\d{3}_T\d", path.stem)]
    rows = Rows(BP4D.name, "bp4d", units or BP4D.units)
    frames = Frames(root, files, BP4D)
    frames.check([tuple(path.stem.split("_")) for path in codings])
    for path in codings:
        subject, task = path.stem.split("_")
        levels = _bp4d_intensity(files, path.stem, rows.units)
        file = rows.file(path)
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            header = [cell.strip() for cell in next(reader, [])]
            columns = [_column(path, header, unit) for unit in rows.units]
            coded: dict[int, tuple[int, list[int]]] = {}  # frame -> line, labels
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if len(cells) != len(header):
                    raise UserError(f"{where}: {len(cells)} cells, the first row has {len(header)}. Restore the file.")
                values = [_number(cells[i], where) for i in columns]
                if any(value not in (0, 1, UNCODED) for value in values):
                    raise UserError(f"{where}: an occurrence is neither 0, 1 nor 9 (unknown). Restore the file.")
                labels = [-1 if value == UNCODED else value for value in values]
                coded[_number(cells[0], where)] = reader.line_num, labels
        recording = frames.of((subject, task), max(coded, default=0))
        for frame, (line, labels) in coded.items():
            if (place := recording.get(frame)) is not None:
                level = [levels[unit].get(frame, float("nan")) for unit in rows.units]
                rows.add(place.source, subject, labels, file, line, frame=place.frame, intensity=level)
        if missing := sum(frame not in recording for frame in coded):
            rows.notes.append(f"{path}: {missing} coded frames have no image in {recording.source}; left out.")
    rows.notes += frames.notes + release_notes(BP4D, rows.subjects, codings)
    return rows.table()


def read_disfa(root: Path, files: Sequence[Path], units: Sequence[str] | None = None) -> Table:
    """`ActionUnit_Labels/{SN}/{SN}_au{n}.txt`: `frame,intensity`, frames from 1; left camera videos, or frames."""
    coded: dict[str, dict[str, Path]] = {}
    for path in files:
        match = re.fullmatch(r"(SN\d{3})_au(\d+)", path.stem)
        if match:
            coded.setdefault(match[1], {})[f"AU{int(match[2]):02d}"] = path
    rows = Rows(DISFA.name, "disfa", units or DISFA.units)
    frames = Frames(root, files, DISFA)
    frames.check([(subject,) for subject in sorted(coded)])
    for subject, paths in sorted(coded.items()):
        for unit in rows.units:
            if unit not in paths:
                raise unknown(f"action unit in {next(iter(paths.values())).parent}", unit, sorted(paths))
        levels = [_intensities(paths[unit]) for unit in rows.units]
        numbers = sorted(levels[0])
        for unit, level in zip(rows.units, levels):
            if len(level) != len(levels[0]) or level.keys() != levels[0].keys():
                raise UserError(
                    f"{paths[unit]} codes {len(level)} frames, {paths[rows.units[0]].name} {len(numbers)}, or others. "
                    "Restore the files of this subject."
                )
        file = rows.file(paths[rows.units[0]])
        recording = frames.of((subject,), max(numbers, default=0))
        for line, frame in enumerate(numbers, 1):
            if (place := recording.get(frame)) is not None:
                labels, intensity = zip(*(from_intensity(level[frame]) for level in levels))
                rows.add(place.source, subject, labels, file, line, frame=place.frame, intensity=intensity)
        if missing := sum(frame not in recording for frame in numbers):
            rows.notes.append(
                f"{rows.files[file]}: {missing} coded frames have no image in {recording.source}; left out."
            )
    rows.notes += frames.notes + release_notes(DISFA, rows.subjects, rows.files)
    return rows.table()


def _intensities(path: Path) -> dict[int, int | None]:
    """Frame -> coded 0..5 of a file with lines `frame,intensity`."""
    levels: dict[int, int | None] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").split(), 1):
        where = f"{path}:{line}"
        cells = text.split(",")
        if len(cells) != 2:
            raise UserError(f"{where}: '{text}' is not `frame,intensity`. Restore the file.")
        frame, level = _number(cells[0], where), _number(cells[1], where)
        if level != UNCODED and not 0 <= level <= STRONGEST:
            raise UserError(f"{where}: intensity {level} is not 0 to {STRONGEST}. Restore the file.")
        levels[frame] = None if level == UNCODED else level
    return levels


def _bp4d_intensity(files: Sequence[Path], stem: str, units: Sequence[str]) -> dict[str, dict[int, float]]:
    """Unit -> frame -> intensity, from `{subject}_{task}_AU{nn}.csv`; BP4D codes the intensity of five units only."""
    levels: dict[str, dict[int, float]] = {unit: {} for unit in units}
    for path in files:
        match = re.fullmatch(rf"{stem}_AU(\d+)", path.stem)
        unit = f"AU{int(match[1]):02d}" if match else ""
        if unit in levels:
            coded = _intensities(path)
            levels[unit] = {frame: from_intensity(level)[1] for frame, level in coded.items()}
    return levels


def _column(path: Path, header: Sequence[str], unit: str) -> int:
    number = str(int(unit[2:]))
    if number not in header[1:]:
        raise unknown(f"action unit in the first row of {path}", number, header[1:])
    return header.index(number, 1)


def _number(text: str, where: str) -> int:
    try:
        return int(float(text))
    except ValueError:
        raise UserError(f"{where}: '{text.strip()}' is not a number. Restore the file.") from None
