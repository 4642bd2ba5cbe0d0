"""`vlfau-export`: turns a run folder into a bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runtimes.rewriting import WRITTEN
from ..terminal import command
from .run import export_run

EPILOG = """examples:
  vlfau-export runs/mine --output bundles/mine                  then: vlfau-stream VIDEO --model bundles/mine
  vlfau-export runs/mine --output bundles/mine-fp16 --precision fp16
"""


@command("vlfau-export")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="vlfau-export",
        description="Turn a trained run into a bundle: ONNX graphs, weights, manifest and self-test in one folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder written by vlfau-train")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the bundle; an older bundle there is replaced"
    )
    parser.add_argument(
        "--weights",
        default="last",
        choices=("last", "best"),
        help="of the last epoch, or of the one with the best test score (default: last)",
    )
    parser.add_argument("--precision", default="fp32", choices=WRITTEN, help="of the graphs (default: fp32)")
    parser.add_argument("--name", help="the bundle's name (default: the run folder's)")
    parser.add_argument("--licence", default="", help="a sentence about what the weights may be used for")
    options = parser.parse_args(arguments)
    bundle = export_run(
        options.run,
        options.output,
        which=options.weights,
        precision=options.precision,
        name=options.name,
        licence=options.licence,
    )
    size = sum(file.stat().st_size for file in bundle.folder.iterdir()) / 1e6
    print(f"Bundle {bundle.folder}: {len(bundle.manifest.units)} action units, {size:.1f} MB, verified.")


if __name__ == "__main__":
    sys.exit(main())
