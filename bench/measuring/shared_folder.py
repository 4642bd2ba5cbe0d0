"""The folder of real clips with reference answers and of other detectors, which is not part of the project."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vlfau.models.errors import UserError

VARIABLE = "VLFAU_SHARED"


def from_environment() -> Path | None:
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def add_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shared", type=Path, metavar="FOLDER", default=from_environment(), help=f"real clips (default: ${VARIABLE})"
    )


def require(folder: Path | None, file: str) -> Path:
    if folder is None:
        raise UserError(f"This bench needs {file} of a folder with real clips. Add --shared FOLDER or set {VARIABLE}.")
    if not (folder / file).exists():
        raise UserError(f"There is no {file} in {folder}. Name the folder of real clips with --shared or {VARIABLE}.")
    return folder
