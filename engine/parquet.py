"""The rows of tables.py as Parquet, for data frames and databases. Needs pyarrow.

A Parquet file can be read only once its footer is there, so rows go into small finished files, such as
`NAME.parts/00000.parquet`, a new one every ten seconds or 20,000 rows. At the end they become the one file that was
asked for and the folder goes. After a kill the folder holds every finished part, and readers of Parquet take it as it
is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlfau.models.errors import UserError

from .sinks import Pixels, Sink, file_errors
from .tables import Cell, columns, rows
from .wire import Report

if TYPE_CHECKING:
    from typing_extensions import Self

PART_ROWS = 20_000
PART_SECONDS = 10.0
WHOLE = ("frame", "face_id", "success", "text_frame")
WORDS = ("stream", "text")


class ParquetTable(Sink):
    def __init__(self, path: Path, units: Sequence[str], *, part_rows: int = PART_ROWS) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError("--parquet needs pyarrow. Install it with: pip install 'vlfau-stream[parquet]'") from None
        self._arrow: Any = pyarrow
        self._parquet: Any = pyarrow.parquet
        self.path = path
        self.parts = path.with_name(path.name + ".parts")
        self._units = tuple(units)
        self._part_rows = part_rows
        self._rows: list[list[Cell]] = []
        self._written: list[Path] = []
        self._since = time.monotonic()
        self._schema = pyarrow.schema([(name, _kind(pyarrow, name)) for name in columns(self._units)])

    def __enter__(self) -> Self:
        with file_errors(self.path):
            if self.parts.exists():
                raise UserError(f"{self.parts} is left from a run that was killed. Keep it elsewhere or remove it.")
            self.parts.mkdir()
        return self

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        if not self._rows:
            self._since = time.monotonic()
        self._rows.extend(rows(report, self._units))
        if len(self._rows) >= self._part_rows or time.monotonic() - self._since > PART_SECONDS:
            self._finish_part()

    def close(self) -> None:
        self._finish_part()
        unfinished = self.path.with_name(self.path.name + ".new")
        with file_errors(self.path):
            try:
                with self._parquet.ParquetWriter(unfinished, self._schema, compression="zstd") as writer:
                    for part in self._written:
                        writer.write_table(self._parquet.read_table(part, schema=self._schema))
                unfinished.replace(self.path)
            except OSError:
                unfinished.unlink(missing_ok=True)  # the parts stay
                raise
        shutil.rmtree(self.parts)

    def _finish_part(self) -> None:
        if not self._rows:
            return
        cells, self._rows = self._rows, []
        table = self._arrow.Table.from_arrays(
            [self._arrow.array(column, field.type) for column, field in zip(zip(*cells), self._schema)],
            schema=self._schema,
        )
        part = self.parts / f"{len(self._written):05d}.parquet"
        unfinished = part.with_name(f".{part.name}.new")  # readers of a folder pass over names with a dot
        with file_errors(part):
            try:
                self._parquet.write_table(table, unfinished, compression="zstd")
                unfinished.replace(part)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
        self._written.append(part)


def _kind(arrow: Any, name: str) -> Any:
    if name in WORDS:
        return arrow.string()
    if name in WHOLE or name.endswith("_c"):
        return arrow.int64()
    return arrow.float64()
