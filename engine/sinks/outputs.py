"""Checks of all output files before anything is opened: no input is written over, and no file is written twice."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vlfau.models.errors import UserError

from .files import file_errors, is_stream, per_stream
from .unfinished import Marker

Identity = tuple[int, int] | str


def check_outputs(outputs: Mapping[str, Sequence[Path]], inputs: Iterable[Path], overwrite: bool) -> None:
    """`outputs` are the files of each flag. A folder among the inputs stands for the files in it."""
    for paths in outputs.values():
        for path in paths:
            with file_errors(path):
                _check_place(path)
    flags: dict[Identity, str] = {}
    for flag, paths in outputs.items():
        for path in paths:
            identity = _identity(path)
            if identity == os.devnull:
                continue
            if identity in flags:
                raise UserError(f"{flags[identity]} and {flag} both write to {path}. Give each its own file.")
            flags[identity] = flag
    if not flags:
        return
    for file in _files(inputs):
        if (identity := _identity(file)) in flags:
            raise UserError(f"{flags[identity]} would write over {file}, which this run reads. Choose another name.")
    for paths in outputs.values():
        for path in paths:
            if not Marker(path).left() and not overwrite and path.exists() and not is_stream(path):
                raise UserError(f"{path} exists. Remove it, choose another name, or leave out --no-overwrite.")


def expanded(path: Path | None, streams: Sequence[str] | None = None) -> list[Path]:
    """The files that a flag stands for: one, or one per stream."""
    if path is None:
        return []
    return [path] if streams is None else [per_stream(path, stream, streams) for stream in streams] or [path]


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"The folder {path.parent} for {path.name} does not exist. Create it first.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the name of a file.")
    try:
        path.stat()
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise UserError(
                f"Cannot write {path}: nothing can be created in its folder. Choose another place."
            ) from None
    except ValueError as error:  # a zero byte
        raise UserError(f"Cannot write {path}: {error}. Choose another name.") from None
    else:
        if not is_stream(path):
            os.close(os.open(path, os.O_WRONLY))


def _identity(path: Path) -> Identity:
    """The same for all names of a file, also if it does not exist yet."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return os.path.abspath(path) if stat.S_ISCHR(status.st_mode) else (status.st_dev, status.st_ino)


def _files(inputs: Iterable[Path]) -> Iterable[Path]:
    for path in inputs:
        try:
            yield from path.iterdir() if path.is_dir() else (path,)
        except OSError:  # a folder that cannot be read is reported by its reader
            continue
