"""Write shards of labelled synthetic faces: on all cores, resumable, reproducible by seed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..settings import add_flags, read, setting
from ..terminal import command
from .asset_sources import SOURCES


@dataclass(frozen=True)
class Settings:
    assets: str = setting("", "folder with the public 3-D assets (see below)", metavar="DIR")
    output: str = setting("", "folder for the shards; complete shards in it are kept", metavar="DIR")
    count: int = setting(10_000, "pictures; rounded up to whole shards", metavar="N")
    seed: int = setting(0, "same seed, same pictures; give training and validation different ones", metavar="S")
    workers: int = setting(0, "processes; 0 takes one per core", metavar="W")
    shard_size: int = setting(500, "pictures per shard; the same for every run into a folder", metavar="N")
    sheet: str = setting("", "write a labelled contact sheet instead: each unit at rising intensity", metavar="PNG")

    def __post_init__(self) -> None:
        if self.count < 1 or self.workers < 0 or self.seed < 0:
            raise UserError("--count must be at least 1, --workers and --seed at least 0.")


@command("vlfau-synthesize", stopped="Stopped. The same command continues with the missing shards.")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="vlfau-synthesize",
        description=__doc__,
        epilog=SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, Settings)
    run(read(Settings, None, parser.parse_args(arguments)))


def run(settings: Settings) -> None:
    assets = Path(_needed("assets", settings.assets))
    try:
        from .assets import load_assets
        from .production import RenderJob, synthesize
        from .sheet import write_sheet
    except ModuleNotFoundError as error:
        raise UserError(f"The renderer needs {error.name}: pip install 'vlfau-stream[synthesize]'.") from None
    if settings.sheet:
        write_sheet(Path(settings.sheet), load_assets(assets), settings.seed)
    else:
        output = Path(_needed("output", settings.output))
        synthesize(RenderJob(assets, output, settings.count, settings.seed, settings.shard_size), settings.workers)


def _needed(name: str, value: str) -> str:
    if not value:
        raise UserError(f"--{name} is missing. Give --{name} DIR.\n{SOURCES if name == 'assets' else ''}".rstrip())
    return value


if __name__ == "__main__":
    sys.exit(main())
