"""A run as OpenFace's CSV, or its messages as JSON lines. Every row is in the file when `write` returns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..wire import Report, line
from .base import Pixels
from .files import GrowingFile, Say, silent
from .openface import Cell, columns, rows

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets compute a text that begins so


class JsonLines(GrowingFile):
    """The payload of au/, one per line."""

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self.add(line(report))


class CsvTable(GrowingFile):
    def __init__(self, path: Path, units: Sequence[str], say: Say = silent) -> None:
        super().__init__(path, _lines([columns(units)]), say)
        self._units = tuple(units)

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self.add(_lines([_without_formula(cell) for cell in row] for row in rows(report, self._units)))


def _without_formula(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _lines(cells: Iterable[Sequence[Cell]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().encode()
