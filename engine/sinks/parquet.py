"""The rows of the CSV as Parquet, for data frames and databases. Needs pyarrow.

A Parquet file is readable only once it has its footer, so rows go into small finished files, such as
`NAME.parts/00000.parquet`, a new one every ten seconds or 20,000 rows, and also, in larger groups, into a single file.
On close the single file gets its footer (quick even after hours) and the folder is removed. After a kill or a failure
the folder holds every finished part. Parquet readers can open it as it is, and the next run takes the parts over.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlfau.models.errors import UserError

from ..wire import Report
from .base import Pixels, Sink
from .files import Say, file_errors, is_stream, silent
from .openface import Cell, columns, rows
from .unfinished import Marker, note_continued, note_kept, set_aside

if TYPE_CHECKING:
    from typing_extensions import Self

PART_ROWS = 20_000
PART_SECONDS = 10.0
GROUP_ROWS = 5_000  # in the single file: small groups make it large and slow to read
WHOLE = ("frame", "face_id", "success", "text_frame")
WORDS = ("stream", "text")


class ParquetTable(Sink):
    def __init__(self, path: Path, units: Sequence[str], *, part_rows: int = PART_ROWS, say: Say = silent) -> None:
        if is_stream(path):
            raise UserError(f"--parquet needs a file, and {path} is a device or a pipe. Choose another name.")
        try:
            _local(path).encode()
        except UnicodeEncodeError:
            raise UserError(f"--parquet needs a name in UTF-8, and {path} is not. Choose another name.") from None
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
        self._say = say
        self._marker = Marker(path)
        self._begun = False
        self._rows: list[list[Cell]] = []
        self._parts = 0
        self._group: list[Any] = []  # tables of the parts that are not in the single file yet
        self._group_rows = 0
        self._whole: Any = None
        self._failed = False
        self._since = time.monotonic()
        self._schema = pyarrow.schema([(name, _kind(pyarrow, name)) for name in columns(self._units)])

    def __enter__(self) -> Self:
        with file_errors(self.path):
            self._remove_leftovers()
            self._marker.left()
            if self.parts.exists():
                self._take_over()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.path.exists() and not self.parts.exists():
                self._begin()
        finally:
            self.close()

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        self._begin()
        if not self._rows:
            self._since = time.monotonic()
        self._rows.extend(rows(report, self._units))
        if len(self._rows) >= self._part_rows or time.monotonic() - self._since > PART_SECONDS:
            self._finish_part()

    def close(self) -> None:
        complete = False
        try:
            if not self._failed:
                self._finish_part()
            if self._begun and not self._failed and not self.incomplete:
                self._finish_whole()
                complete = True
        finally:
            if not complete:  # only the parts stay
                if self._whole is not None:
                    with suppress(OSError):
                        self._whole.close()
                self._unfinished.unlink(missing_ok=True)
            self._marker.release(complete=complete)

    def _begin(self) -> None:
        if self._begun:
            return
        with file_errors(self.path):
            self.parts.mkdir(exist_ok=True)
            self._marker.set()
        self._begun = True

    def _take_over(self) -> None:
        """The parts of a run that was killed or failed become the first of this one, if their columns are the same."""
        parts = sorted(self.parts.glob("[0-9]*.parquet"))
        try:
            same = all(self._parquet.read_schema(_local(part)).equals(self._schema) for part in parts)
        except (OSError, ValueError):  # a damaged part
            same = False
        if not same:
            self._say(note_kept(self.parts, set_aside(self.parts)))
            return
        for part in parts:
            self._add_to_whole(self._parquet.read_table(_local(part)))
        self._parts = 1 + max((int(part.stem) for part in parts), default=-1)
        self._say(note_continued(self.path))

    def _remove_leftovers(self) -> None:
        """What stays if a kill comes while the parts are removed; the single file was finished before."""
        if self._done.exists():
            shutil.rmtree(self._done)

    def _finish_whole(self) -> None:
        with self._failing():
            self._finish_group()
            self._open_whole().close()
            self._unfinished.replace(self.path)
            self.parts.rename(self._done)
            shutil.rmtree(self._done)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """After the first failure nothing more is written: the single file would lack rows that the parts have."""
        try:
            with file_errors(self.path, kept=self._parts > 0):
                yield
        except BaseException:
            self._failed = True
            raise

    @property
    def _unfinished(self) -> Path:
        return self.parts / ".whole.new"  # readers of a folder skip names that begin with a dot

    @property
    def _done(self) -> Path:
        return self.parts.with_name(f".{self.parts.name}.done")

    def _open_whole(self) -> Any:
        if self._whole is None:
            self._whole = self._parquet.ParquetWriter(_local(self._unfinished), self._schema, compression="zstd")
        return self._whole

    def _finish_group(self) -> None:
        if self._group:
            tables, self._group, self._group_rows = self._group, [], 0
            self._open_whole().write_table(self._arrow.concat_tables(tables).combine_chunks())

    def _finish_part(self) -> None:
        if not self._rows:
            return
        cells, self._rows = self._rows, []
        table = self._arrow.Table.from_arrays(
            [self._arrow.array(column, field.type) for column, field in zip(zip(*cells), self._schema)],
            schema=self._schema,
        )
        part = self.parts / f"{self._parts:05d}.parquet"
        unfinished = part.with_name(f".{part.name}.new")
        with self._failing():
            try:
                self._parquet.write_table(table, _local(unfinished), compression="zstd")
                unfinished.replace(part)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
            self._parts += 1
            self._add_to_whole(table)

    def _add_to_whole(self, table: Any) -> None:
        self._group.append(table)
        self._group_rows += len(table)
        if self._group_rows >= GROUP_ROWS:
            self._finish_group()


def _local(path: Path) -> str:
    """For pyarrow, which would take a name such as tcp:x.parquet for an address."""
    return os.path.abspath(path)


def _kind(arrow: Any, name: str) -> Any:
    if name in WORDS:
        return arrow.string()
    if name in WHOLE or name.endswith("_c"):
        return arrow.int64()
    return arrow.float64()
