"""Checkpoints: tensors as safetensors, everything else as JSON, committed in one rename.

`last.json` names the tensor file that belongs to it. A new checkpoint is written next to the old one, flushed to the
disk, and only then named, so that a kill or a power cut at any moment leaves a complete one. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import FULL, write_or_stop, write_whole
from ..tensors import as_bytes, load_tensors

SCHEMA = 1


class Checkpoints:
    """The last good checkpoint of one run, in `folder`. One process writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pointer = folder / "last.json"
        self.reserve = folder / "reserve.bin"

    def exists(self) -> bool:
        return self.pointer.is_file()

    def hold_space(self, byte_count: int) -> None:
        """Reserves room for one more checkpoint, so that the epoch during which the disk fills up can be saved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stray in self.folder.glob("*.partial"):
            stray.unlink()
        if self.reserve.exists() and self.reserve.stat().st_size >= byte_count:
            return
        try:
            with self.reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, byte_count)
        except OSError as error:
            if error.errno not in FULL:
                return  # a file system without reservations: saving works, only without this safety margin
            self.reserve.unlink(missing_ok=True)
            raise UserError(
                f"{self.folder} has no room for one checkpoint ({byte_count / 1e6:.0f} MB). "
                "Free space or give another --output."
            ) from None

    def save(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Writes and commits. On a full disk the reserved space is used, and the run stops with an error."""
        name = f"step-{state['step']:08d}.safetensors"
        if (self.folder / name).is_file() and self.exists():
            self.note(state)  # nothing was trained since; overwriting would risk the only good copy
            return
        body = as_bytes(tensors)
        table = _json({"schema": SCHEMA, "tensors": name, "bytes": len(body), **state})
        try:
            self._commit(name, body, table)
        except OSError as error:
            if error.errno not in FULL:
                raise UserError(f"Checkpoint {self.folder / name} cannot be written: {error}.") from None
            self.reserve.unlink(missing_ok=True)
            try:
                self._commit(name, body, table)
                outcome = f"The checkpoint of step {state['step']} was saved in reserved space."
            except OSError:
                outcome = f"The last good checkpoint is {self._describe()}."
            raise UserError(
                f"The disk is full: {self.folder / name} needs {len(body) / 1e6:.0f} MB. {outcome} "
                "Free space and run the same command again: it resumes there."
            ) from None
        for old in self.folder.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()

    def note(self, state: Mapping[str, Any]) -> None:
        """Replaces the state of the saved tensors."""
        table = read_table(self.pointer)
        write_or_stop(self.pointer, _json({**table, **state}))

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The last committed checkpoint, with its tensors on the CPU."""
        table = read_table(self.pointer)
        return load_tensors(self.folder / str(table["tensors"])), table

    def _commit(self, name: str, body: bytes, table: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / name, body)
        write_whole(self.pointer, table)

    def _describe(self) -> str:
        return str(self.folder / str(read_table(self.pointer)["tensors"])) if self.exists() else "none yet"


def read_table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No checkpoint: {path} does not exist. Give a run folder written by vlfau-train.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete the folder and train again.") from None
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        came = table.get("schema") if isinstance(table, dict) else type(table).__name__
        raise UserError(
            f"{path} was written by another version (schema {came!r}, this one reads {SCHEMA}). "
            "Continue with the version that wrote it, or start a new --output."
        )
    return table


def _json(table: Mapping[str, Any]) -> bytes:
    return (json.dumps(table, indent=1) + "\n").encode()
