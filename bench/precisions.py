"""What INT8 costs and gains: the bundle is quantised, then every precision is scored on the same unseen subjects.

    python bench/precisions.py --data SHARDS                          the embedded bundle
    python bench/precisions.py mine --data SHARDS --hold-out 0.02 --count 2000

Runs `vlfau-calibrate int8` on a copy of the bundle, with ranges from subjects that are not held out, and
`vlfau-calibrate report`, of which it prints the first table; the others are per action unit. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from measuring.facts import about, heading
from measuring.judging import output_of

from vlfau.models.bundle import open_bundle
from vlfau.models.errors import UserError

CALIBRATE = "vlfau.calibration.command"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="embedded", help="a folder, or 'embedded'")
    parser.add_argument("--data", type=Path, required=True, help="shards of vlfau-synthesize")
    parser.add_argument("--hold-out", type=float, default=0.02, help="share of subjects to report on (0.02)")
    parser.add_argument("--count", type=int, default=1000, help="images to report on (default: 1000)")
    parser.add_argument("--ranges", type=int, default=400, help="crops to take the ranges from (default: 400)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="vlfau-precisions-") as folder:
            copy = Path(folder) / "bundle"
            shutil.copytree(open_bundle(options.bundle).folder, copy)
            fitted = output_of(CALIBRATE, "int8", copy, "--pictures", options.data, "--count", options.ranges)
            data = ("--data", options.data, "--hold-out", options.hold_out, "--count", options.count)
            *reported, figures = output_of(CALIBRATE, "report", copy, *data, "--output", Path(folder) / "report")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    facts = about("onnx")
    print(heading(facts))
    print(fitted[0] + "\n")  # how much of the network is in INT8; the other lines report progress
    print("\n".join(line for line in "\n".join(reported).partition("\n## ")[0].splitlines() if line[:2] != "# "))
    print(json.dumps({"bench": "precisions", **facts, **json.loads(figures)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
