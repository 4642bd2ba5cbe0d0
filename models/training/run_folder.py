"""The folder of one training run: settings, code revision, machine and results.

config.json        every setting, the network's configuration, the data
environment.json   code revision, versions, machine, command line
corpus.toml        the sentences that it was trained on
metrics.jsonl      one JSON object per line; `kind` is "train" or "epoch"
checkpoints/       for resuming (checkpoint.py)
last.safetensors   weights after the last finished epoch
best.safetensors   weights of the epoch that scored best on the test part
tensorboard/       the same curves for TensorBoard
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from ..files import FULL, write_or_stop
from ..networks import build
from ..networks.base import AUNetwork
from ..tensors import load_tensors, save_tensors
from .checkpoint import Checkpoints
from .position import check_fits

SCHEMA = 1
VERSIONS = ("vlfau-stream", "torch", "timm", "numpy", "opencv-python", "safetensors")


class RunFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.metrics = folder / "metrics.jsonl"

    def start(self, config: Mapping[str, Any]) -> None:
        """Writes config and environment; raises if the folder holds another run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.json"
        if path.is_file() and self.checkpoints.exists():
            check_same(self.config(), config, path)
        _write_json(path, {"schema": SCHEMA, **config})
        _write_json(self.folder / "environment.json", environment())

    def keep_corpus(self, path: Path) -> None:
        """Copies the sentences, so that a later evaluation reads these and no newer ones."""
        body = path.read_bytes()
        copy = self.folder / "corpus.toml"
        if not copy.is_file() or copy.read_bytes() != body:
            write_or_stop(copy, body)

    def config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{self.folder} is not a run folder: config.json is missing. Give one written by vlfau-train."
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not readable JSON ({error}). Restore it or train again.") from None
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            raise UserError(f"{path} was written by another version; this one reads schema {SCHEMA}.")
        return table

    def write(self, **row: Any) -> None:
        """One line of metrics.jsonl."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"The disk is full: {self.metrics} cannot grow. Free space and run the same command again: it resumes."
            ) from None

    def rows(self, kind: str | None = None) -> list[dict[str, Any]]:
        if not self.metrics.is_file():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line during which the process was killed
            if kind is None or row.get("kind") == kind:
                rows.append(row)
        return rows

    def forget_after(self, step: int, epoch: int) -> None:
        """Drops the lines after the checkpoint from which the run resumes; they will be written again."""
        rows = [row for row in self.rows() if row["step"] <= step and (row["kind"] != "epoch" or row["epoch"] < epoch)]
        write_or_stop(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def save_weights(self, name: str, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """`name` is last or best; the metadata name the units and the network."""
        config = self.config()
        facts = {"units": " ".join(config["units"]), "network": json.dumps(config["network"]), "epoch": str(epoch)}
        save_tensors(self.folder / f"{name}.safetensors", tensors, facts)

    def weights(self, name: str) -> tuple[dict[str, Tensor], str]:
        """The weights called last or best, and their file."""
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            raise UserError(f"{path} does not exist yet: no epoch of this run is finished. Continue training first.")
        return load_tensors(path), str(path)


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Network and action units must not change between a checkpoint and its continuation."""
    for key in ("units", "network"):
        if old.get(key) != new.get(key):
            raise UserError(
                f"{path.parent} holds a run with other {'action units' if key == 'units' else 'network settings'}: "
                f"{_difference(old.get(key), new.get(key))}. Give another --output, or --fresh to start over there."
            )


def environment() -> dict[str, Any]:
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "revision": revision(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def revision() -> str:
    """The commit of the code, with a plus if files differ from it; "unknown" in an installed copy."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return ", ".join(f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys)
    return f"was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _write_json(path: Path, table: Mapping[str, Any]) -> None:
    write_or_stop(path, (json.dumps(table, indent=1) + "\n").encode())


def load_run(folder: Path, which: str = "last") -> tuple[AUNetwork, dict[str, Any]]:
    """The network and the settings of a run, with its last weights or those that were best on the test part."""
    run = RunFolder(folder)
    config = run.config()
    tensors, path = run.weights(which)
    network = build(config["network"])
    check_fits(tensors, network.state_dict(), path)
    network.load_state_dict(tensors)
    return network.eval(), config
