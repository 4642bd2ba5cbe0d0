"""`vlfau-evaluate`: a run folder or a bundle, scored by the field's protocol."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data import DataChoice
from ..settings import add_flags, read
from ..terminal import command
from .run import evaluate

EPILOG = """examples:
  vlfau-evaluate runs/bp4d                      all folds below it, each on its own test part
  vlfau-evaluate runs/mine                      the last epoch, with the one that was best on the test part beside it
  vlfau-evaluate runs/mine --weights best       sentences and plots of that one (say so when you report it)
  vlfau-evaluate runs/mine --beam 3             sentences by greedy decoding and by a beam, compared
  vlfau-evaluate bundles/mine --data DISFA --fold 2 --runtime onnxruntime
"""


@command("vlfau-evaluate")
def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(
        prog="vlfau-evaluate",
        description="Score networks on labelled pictures: F1, accuracy and AUC per action unit, and their sentences.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("what", nargs="+", help="run folders, folders of folds, bundles, or 'embedded'")
    made.add_argument("--output", type=Path, help="folder for report and plots (default: WHAT/evaluation)")
    made.add_argument("--weights", default="last", choices=("last", "best"), help="of a run folder (default: last)")
    made.add_argument("--runtime", default="auto", help="that runs a bundle (default: auto)")
    made.add_argument("--device", default="cpu", help="for a run folder (default: cpu)")
    made.add_argument("--batch", type=int, default=32, help="pictures at a time (default: 32)")
    made.add_argument("--images", type=int, help="score on at most this many pictures, evenly spread")
    made.add_argument("--caption-images", type=int, default=200, help="pictures to describe; 0 is none (default: 200)")
    made.add_argument("--beam", type=int, default=1, help="also decode sentences with a beam this wide (default: 1)")
    made.add_argument(
        "--corpus", type=Path, help="sentences that a bundle was taught (default: a run's, the package's)"
    )
    made.add_argument("--plots", action=argparse.BooleanOptionalAction, default=True, help="draw the figures")
    add_flags(made, DataChoice, title="data (default: what the run was tested on)")
    options = made.parse_args(arguments)
    output = options.output or Path("evaluation" if options.what[0] == "embedded" else f"{options.what[0]}/evaluation")
    evaluate(
        options.what,
        output,
        read(DataChoice, None, options),
        weights=options.weights,
        runtime=options.runtime,
        device=options.device,
        batch=options.batch,
        images=options.images,
        caption_images=options.caption_images,
        beam=options.beam,
        corpus=options.corpus,
        with_plots=options.plots,
    )
    print((output / "report.md").read_text(encoding="utf-8"))
    print(f"Written: {output}/report.md, scores.json" + (" and the plots." if options.plots else "."))


if __name__ == "__main__":
    sys.exit(main())
