"""Reads the original releases of BP4D and DISFA: codings per subject beside pictures or videos.

Intensities are kept; an action counts as present from intensity 2 (DISFA) or as the occurrence coding says (BP4D).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError, unknown
from .table import STRONGEST, UNITS, Rows, Table, from_intensity

UNCODED = 9  # BP4D's mark for a unit that could not be coded
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEOS = (".avi", ".mp4", ".mkv", ".mov", ".wmv")


def read_bp4d(root: Path, files: Sequence[Path], units: Sequence[str] | None = None) -> Table:
    """`AU_OCC/{subject}_{task}.csv`: first row the units, first column the frame; pictures in `{subject}/{task}`."""
    codings = [path for path in files if path.parent.name == "AU_OCC" and re.fullmatch(r"[FM]\d{3}_T\d", path.stem)]
    rows = Rows("BP4D", "bp4d", units or UNITS["BP4D"])
    base = _picture_base(root, [path.stem.split("_") for path in codings], "BP4D")
    for path in codings:
        subject, task = path.stem.split("_")
        pictures = _numbered(base / subject / task)
        levels = _bp4d_intensity(files, path.stem, rows.units)
        file = rows.file(path)
        lost = 0
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            header = [cell.strip() for cell in next(reader, [])]
            columns = [_column(path, header, unit) for unit in rows.units]
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if len(cells) != len(header):
                    raise UserError(f"{where}: {len(cells)} cells, the first row has {len(header)}. Restore the file.")
                frame = _number(cells[0], where)
                picture = pictures.get(frame)
                if picture is None:
                    lost += 1
                    continue
                coded = [_number(cells[i], where) for i in columns]
                if any(value not in (0, 1, UNCODED) for value in coded):
                    raise UserError(f"{where}: an occurrence is neither 0, 1 nor 9 (unknown). Restore the file.")
                labels = [-1 if value == UNCODED else value for value in coded]
                level = [levels[unit].get(frame, float("nan")) for unit in rows.units]
                rows.add(picture, subject, labels, file, reader.line_num, intensity=level)
        if lost:
            rows.notes.append(f"{path}: {lost} coded frames have no picture in {base / subject / task}; left out.")
    return rows.table()


def read_disfa(root: Path, files: Sequence[Path], units: Sequence[str] | None = None) -> Table:
    """`ActionUnit_Labels/{SN}/{SN}_au{n}.txt`: `frame,intensity`, frames from 1; left camera videos, or frames."""
    coded: dict[str, dict[str, Path]] = {}
    for path in files:
        found = re.fullmatch(r"(SN\d{3})_au(\d+)", path.stem)
        if found:
            coded.setdefault(found[1], {})[f"AU{int(found[2]):02d}"] = path
    rows = Rows("DISFA", "disfa", units or UNITS["DISFA"])
    videos = {found[1]: path for path in files if (found := _left_video(path))}
    for subject, paths in sorted(coded.items()):
        for unit in rows.units:
            if unit not in paths:
                raise unknown(f"action unit in {next(iter(paths.values())).parent}", unit, sorted(paths))
        levels = [_intensities(paths[unit]) for unit in rows.units]
        frames = sorted(levels[0])
        for unit, level in zip(rows.units, levels):
            if len(level) != len(levels[0]) or level.keys() != levels[0].keys():
                raise UserError(
                    f"{paths[unit]} codes {len(level)} frames, {paths[rows.units[0]].name} {len(frames)}, or others. "
                    "Restore the files of this subject."
                )
        file = rows.file(paths[rows.units[0]])
        pictures: dict[int, str] = {}
        if subject not in videos:
            base = _picture_base(root, [[subject]], "DISFA")
            pictures = _numbered(base / subject)
            shift = int(0 in pictures)  # extracted frames start at 0 or 1, codings at 1
            pictures = {number + shift: path for number, path in pictures.items()}
        lost = 0
        for line, frame in enumerate(frames, 1):
            both = [from_intensity(level[frame]) for level in levels]
            labels, strength = [label for label, _ in both], [value for _, value in both]
            if subject in videos:
                rows.add(str(videos[subject]), subject, labels, file, line, frame=frame - 1, intensity=strength)
            elif frame in pictures:
                rows.add(pictures[frame], subject, labels, file, line, intensity=strength)
            else:
                lost += 1
        if lost:
            rows.notes.append(f"{subject}: {lost} coded frames have no picture; left out.")
    return rows.table()


def _left_video(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"LeftVideo(SN\d{3})_comp", path.stem) if path.suffix.lower() in VIDEOS else None


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
    """Of the five units whose intensity BP4D codes too, `{subject}_{task}_AU{nn}.csv`; empty where there is no file."""
    levels: dict[str, dict[int, float]] = {unit: {} for unit in units}
    for path in files:
        found = re.fullmatch(rf"{stem}_AU(\d+)", path.stem)
        unit = f"AU{int(found[1]):02d}" if found else ""
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
        raise UserError(f"{where}: '{text.strip()}' is no number. Restore the file.") from None


def _picture_base(root: Path, wanted: Sequence[Sequence[str]], dataset: str) -> Path:
    """The folder whose sub-folders are the subjects."""
    candidates = [root, *_folders(root), *(inner for folder in _folders(root) for inner in _folders(folder))]
    for parts in wanted:
        for folder in candidates:
            if folder.name != "ActionUnit_Labels" and folder.joinpath(*parts).is_dir():
                return folder
    first = "/".join(wanted[0]) if wanted else "subjects"
    raise UserError(f"No pictures or videos of {dataset} below {root}: looked for {first} and LeftVideo..._comp.avi.")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _numbered(folder: Path) -> dict[int, str]:
    """Frame number -> picture, however many digits the names have."""
    if not folder.is_dir():
        return {}
    found = ((re.search(r"(\d+)$", path.stem), path) for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return {int(number[1]): str(path) for number, path in found if number}
