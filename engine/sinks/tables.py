"""A run as OpenFace's CSV, or its messages as JSON lines. Every row is on the disk when `write` returns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..wire import Report, line
from .base import Pixels
from .files import GrowingFile
from .openface import Cell, columns, rows


class JsonLines(GrowingFile):
    """The payload of au/, one per line."""

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self.add(line(report))


class CsvTable(GrowingFile):
    def __init__(self, path: Path, units: Sequence[str]) -> None:
        super().__init__(path, _lines([columns(units)]))
        self._units = tuple(units)

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self.add(_lines(rows(report, self._units)))


def _lines(cells: Iterable[Sequence[Cell]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().encode()
