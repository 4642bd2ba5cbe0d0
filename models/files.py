"""Files of tensors, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise UserError(f"{path} is missing or damaged ({error}). Restore it or train again.") from None
    return tensors


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """One safetensors file, whole or not at all."""
    plain = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    write_or_stop(path, save(plain, metadata=dict(metadata or {})))


def write_or_stop(path: Path, body: bytes) -> None:
    """`write_whole`, with words for the person when the disk is full."""
    try:
        write_whole(path, body)
    except OSError as error:
        if error.errno not in FULL:
            raise UserError(f"{path} cannot be written: {error}.") from None
        raise UserError(
            f"The disk is full: {path} needs {len(body) / 1e6:.1f} MB; what was there before is untouched. "
            "Free space and run the same command again: it resumes."
        ) from None


def write_whole(path: Path, body: bytes) -> None:
    """Whole or not at all, and on the disk when this returns."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
