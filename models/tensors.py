"""Files of tensors: safetensors, read and written by torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .errors import UserError
from .files import write_or_stop


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise UserError(f"{path} is missing or damaged ({error}). Restore it or train again.") from None
    return tensors


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """One file, whole or not at all."""
    write_or_stop(path, as_bytes(tensors, metadata or {}))


def as_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file."""
    plain = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    body: bytes = save(plain, metadata=dict(metadata) if metadata is not None else None)
    return body
