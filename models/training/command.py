"""`vlfau-train`: reads settings from flags and a TOML file and trains."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..data import DataChoice, is_shards
from ..data.augmentation import PAPER, RENDERS, Augmentation
from ..errors import UserError, unknown
from ..networks import NetworkChoice, describe, settings_of_sizes
from ..settings import add_flags, as_table, load_toml, read
from ..terminal import command
from .recipe import Recipe
from .run import train

TABLES = ("network", "data", "training", "augmentation")
EPILOG = """examples:
  vlfau-train --data BP4D --output runs/bp4d --all-folds         the paper's recipe, three folds
  vlfau-train --data renders --size compact --minutes 60 --output runs/mine
  vlfau-train --config runs/mine.toml --learning-rate 3e-4       flags override the file
  torchrun --nproc-per-node 4 -m vlfau.models.training.command --data BP4D --output runs/bp4d
  vlfau-train --data mine.csv --corpus mine.toml --output runs/mine     your own sentences; check them first with
                                                                 python -m vlfau.models.sentences mine.toml
  vlfau-train --describe compact                                 what a size consists of

To resume a stopped or killed run, give the same command again.
The configuration file has the tables [network], [data], [training] and [augmentation], with keys named like the flags;
[network] also accepts single settings of the size, such as state_conditioned = true.
"""


@command("vlfau-train", stopped="Stopped at once. Run the same command again to continue from the last checkpoint.")
def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.describe:
        print(describe_size(options))
        return
    settings = configured(options)
    for folder in train(options.output, **settings, all_folds=options.all_folds, fresh=options.fresh):
        if os.environ.get("RANK", "0") != "0":  # only the first of several processes prints
            continue
        print(f"Trained: {folder}. Next: vlfau-evaluate {folder}, vlfau-export {folder} --output BUNDLE")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="vlfau-train",
        description="Train a network on labelled images to recognise facial action units and explain them in words.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--config", type=Path, help="a TOML file with settings", metavar="FILE")
    result.add_argument("--output", type=Path, default=Path("runs/latest"), help="run folder (default: runs/latest)")
    result.add_argument("--describe", metavar="SIZE", help="print what a size consists of, and exit")
    result.add_argument("--all-folds", action="store_true", help="train every fold, one after the other")
    result.add_argument("--fresh", action="store_true", help="start over instead of resuming")
    for part, title in ((NetworkChoice, "network"), (DataChoice, "data"), (Recipe, "training")):
        add_flags(result, part, title=title)
    add_flags(result, Augmentation, title="augmentation (stronger by default for rendered shards)")
    return result


def describe_size(options: argparse.Namespace) -> str:
    options.size = options.describe
    settings = configured(options)
    return describe(settings["network"], settings["changes"])


def configured(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `train`, from file and flags."""
    file: dict[str, Any] = load_toml(options.config) if options.config else {}
    for name in file:
        if name not in TABLES:
            raise unknown(f"table in {options.config}", name, TABLES)
        if not isinstance(file[name], dict):
            raise UserError(f"'{name}' in {options.config} must be a table: [{name}], with its settings below.")
    choices = {one.name for one in fields(NetworkChoice)}
    table = {key.replace("-", "_"): value for key, value in file.get("network", {}).items()}
    data = read(DataChoice, file.get("data"), options)
    flags = any(getattr(options, one.name) is not None for one in fields(Augmentation))
    base = as_table(RENDERS if is_shards(data) else PAPER)
    changes = {key: value for key, value in table.items() if key not in choices}
    for key in changes:
        if key not in (allowed := settings_of_sizes()):
            raise unknown("setting in [network]", key, sorted(choices | allowed))
    return {
        "network": read(NetworkChoice, {key: value for key, value in table.items() if key in choices}, options),
        "changes": changes,
        "data": data,
        "recipe": read(Recipe, file.get("training"), options),
        "augmentation": read(Augmentation, base | file.get("augmentation", {}), options)
        if flags or file.get("augmentation")
        else None,
    }


if __name__ == "__main__":
    sys.exit(main())
