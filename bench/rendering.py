"""How many training images one core renders per second, and how the time splits between people and their images.

    python bench/rendering.py --assets FOLDER [--people 40]

The folder is that of `vlfau-synthesize --assets`. A person is generated once and photographed five times, as in
`vlfau-synthesize`; times are of this process, after everything has been compiled. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import cv2
from measuring.facts import about, heading, table

from vlfau.models.errors import UserError
from vlfau.models.synthesis.assets import load_assets
from vlfau.models.synthesis.heads import ICT, MAKEHUMAN
from vlfau.models.synthesis.picture import PICTURES_PER_PERSON, SIDE, SUPERSAMPLING, make_picture
from vlfau.models.synthesis.production import RECIPE

HEADS = {MAKEHUMAN: "MakeHuman", ICT: "ICT"}
SEED = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder with the public 3-D assets")
    parser.add_argument("--people", type=int, default=40, help="how many people (default: 40)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        assets = load_assets(options.assets)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for number in range(2 * PICTURES_PER_PERSON):  # compiles
        make_picture(assets, SEED, number)
    first_ms: dict[int, list[float]] = defaultdict(list)  # by head: images for which their person was generated
    later_ms: dict[int, list[float]] = defaultdict(list)
    began = time.perf_counter()
    for number in range(100 * PICTURES_PER_PERSON, (100 + options.people) * PICTURES_PER_PERSON):
        start = time.thread_time()
        picture, _ = make_picture(assets, SEED, number)
        spent = first_ms if number % PICTURES_PER_PERSON == 0 else later_ms
        spent[picture.head].append(1000 * (time.thread_time() - start))
    seconds = time.perf_counter() - began
    rows = []
    for head, name in HEADS.items():
        if first_ms[head]:
            first, later = (sum(spent[head]) / len(spent[head]) for spent in (first_ms, later_ms))
            each = (first + (PICTURES_PER_PERSON - 1) * later) / PICTURES_PER_PERSON
            rows.append((name, str(len(first_ms[head])), f"{first - later:.1f}", f"{later:.1f}", f"{1000 / each:.1f}"))
    pictures = options.people * PICTURES_PER_PERSON
    facts = about("numba", "opencv-python")
    print(heading(facts))
    print(f"recipe {RECIPE}, {SIDE} px, rendered at {round(SIDE * SUPERSAMPLING)} px, one core\n")
    print(table([("head", "people", "ms per person", "ms per image", "images/s"), *rows]))
    print(f"\nAll: {pictures} images, {pictures / seconds:.1f} per second")
    print(json.dumps({"bench": "rendering", **facts, "pictures_s": pictures / seconds, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
