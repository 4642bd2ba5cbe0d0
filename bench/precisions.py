"""What INT8 costs and gains: the bundle is quantised here, then every precision answers the same unseen people.

    python bench/precisions.py --data SHARDS                          the embedded bundle
    python bench/precisions.py mine --data SHARDS --hold-out 0.02 --count 2000

Runs `vlfau-calibrate int8` on a copy of the bundle, with ranges from people of the shards that are held out nowhere,
and `vlfau-calibrate report`, whose first table this is; its others are per action unit. One JSON line last.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from measuring.facts import about, heading
from measuring.judging import said

from vlfau.models.bundle import open_bundle
from vlfau.models.errors import UserError

CALIBRATE = "vlfau.calibration.command"


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("bundle", nargs="?", default="embedded", help="a folder, or 'embedded'")
    made.add_argument("--data", type=Path, required=True, help="shards of vlfau-synthesize")
    made.add_argument("--hold-out", type=float, default=0.02, help="share of the people that are reported on (0.02)")
    made.add_argument("--count", type=int, default=1000, help="pictures to report on (default: 1000)")
    made.add_argument("--ranges", type=int, default=400, help="crops that give the ranges (default: 400)")
    given = made.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="vlfau-precisions-") as folder:
            copy = Path(folder) / "bundle"
            shutil.copytree(open_bundle(given.bundle).folder, copy)
            fitted = said(CALIBRATE, "int8", copy, "--pictures", given.data, "--count", given.ranges)
            data = ("--data", given.data, "--hold-out", given.hold_out, "--count", given.count)
            *reported, figures = said(CALIBRATE, "report", copy, *data, "--output", Path(folder) / "report")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    facts = about("onnx")
    print(heading(facts))
    print(fitted[0] + "\n")  # how much of the network is in INT8; the rest is on the way there
    print("\n".join(line for line in "\n".join(reported).partition("\n## ")[0].splitlines() if line[:2] != "# "))
    print(json.dumps({"bench": "precisions", **facts, **json.loads(figures)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
