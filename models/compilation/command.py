"""`vlfau-compile`: build a bundle for one runtime, hold it against FP32, time it, and keep the engine.

What it verifies with is the bundle's stored self-test and structured pictures; accuracy on labelled pictures is
vlfau-calibrate's work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..bundle import open_bundle
from ..runtimes import PRECISIONS, RUNTIMES
from ..terminal import command
from .run import build, verify

EPILOG = """examples:
  vlfau-compile embedded --runtime openvino                                  the CPU default, verified and timed
  vlfau-compile bundles/mine --runtime tensorrt --precision fp16 --batch 1,2,4,8
  vlfau-compile bundles/mine --runtime tensorrt --capability sm89 --output engines     for a GPU elsewhere (RTX only)
"""


@command("vlfau-compile")
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    bundle = open_bundle(options.bundle)
    lines, facts = (build if options.runtime == "tensorrt" else verify)(bundle, options)
    print("\n".join([*lines, json.dumps(facts)]))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="vlfau-compile",
        description="Build a bundle for one runtime, verify it against FP32, and time it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("bundle", help="a folder written by vlfau-export, or 'embedded'")
    made.add_argument("--runtime", default="openvino", choices=[name for name in RUNTIMES if name != "auto"])
    made.add_argument("--precision", default="auto", choices=PRECISIONS, help="default: the fastest the bundle has")
    made.add_argument("--batch", type=_sizes, default=[1, 2, 4, 8, 16], help="batch sizes (default: 1,2,4,8,16)")
    made.add_argument(
        "--output", type=Path, help="folder for engines (default: beside the bundle, or the user's cache)"
    )
    made.add_argument("--device", help="CPU, cuda:1, ...")
    made.add_argument("--capability", help="build for a GPU that is not here, such as sm89 (TensorRT-RTX)")
    return made


def _sizes(text: str) -> list[int]:
    """1,2,4 -> [1, 2, 4]"""
    sizes = sorted({int(part) for part in text.split(",")})
    if sizes[0] < 1:
        raise argparse.ArgumentTypeError("batch sizes start at 1")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
