"""`vlfau-evaluate`: scores run folders and bundles by the protocol of the field."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data import DataChoice
from ..settings import add_flags, read
from ..terminal import command
from .run import Scoring, evaluate

EPILOG = """examples:
  vlfau-evaluate runs/bp4d                      all folds below it, each on its own test part
  vlfau-evaluate runs/mine                      the last epoch, next to the one that was best on the test part
  vlfau-evaluate runs/mine --weights best       sentences and plots of the best one (say so when you report it)
  vlfau-evaluate runs/mine --beam 3             compares sentences decoded greedily and with a beam
  vlfau-evaluate bundles/mine --data DISFA --fold 2 --runtime onnxruntime
"""


@command("vlfau-evaluate")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="vlfau-evaluate",
        description="Score networks on labelled images: F1, accuracy and AUC per action unit, and their sentences.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="+", help="run folders, folders of folds, bundles, or 'embedded'")
    parser.add_argument("--output", type=Path, help="folder for report and plots (default: WHAT/evaluation)")
    add_flags(parser, Scoring)
    add_flags(parser, DataChoice, title="data (default: the data that the run was tested on)")
    options = parser.parse_args(arguments)
    output = options.output or Path("evaluation" if options.what[0] == "embedded" else f"{options.what[0]}/evaluation")
    scoring = read(Scoring, None, options)
    evaluate(options.what, output, read(DataChoice, None, options), scoring)
    print((output / "report.md").read_text(encoding="utf-8"))
    print(f"Written: {output}/report.md, scores.json" + (" and the plots." if scoring.plots else "."))


if __name__ == "__main__":
    sys.exit(main())
