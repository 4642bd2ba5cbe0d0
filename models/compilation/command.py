"""`vlfau-compile`: builds a bundle for one runtime, compares it with FP32, times it, and keeps the engine.

The comparison is on the bundle's stored self-test; `vlfau-calibrate` measures accuracy on labelled images.
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
  vlfau-compile embedded --runtime openvino                                  the default on CPUs, verified and timed
  vlfau-compile bundles/mine --runtime tensorrt --precision fp16 --batch 1,2,4,8
  vlfau-compile bundles/mine --runtime tensorrt --capability sm89 --output engines     for another GPU (RTX only)
"""


@command("vlfau-compile")
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    bundle = open_bundle(options.bundle)
    lines, facts = (build if options.runtime == "tensorrt" else verify)(bundle, options)
    print("\n".join([*lines, json.dumps(facts)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlfau-compile",
        description="Build a bundle for one runtime, verify it against FP32, and time it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help="a folder written by vlfau-export, or 'embedded'")
    parser.add_argument("--runtime", default="openvino", choices=[name for name in RUNTIMES if name != "auto"])
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="default: the fastest in the bundle")
    parser.add_argument("--batch", type=_sizes, default=[1, 2, 4, 8, 16], help="batch sizes (default: 1,2,4,8,16)")
    parser.add_argument(
        "--output", type=Path, help="folder for engines (default: next to the bundle, or the user's cache)"
    )
    parser.add_argument("--device", help="CPU, cuda:1, ...")
    parser.add_argument("--capability", help="build for a GPU that is not in this machine, such as sm89 (TensorRT-RTX)")
    return parser


def _sizes(text: str) -> list[int]:
    """1,2,4 -> [1, 2, 4]"""
    sizes = sorted({int(part) for part in text.split(",")})
    if sizes[0] < 1:
        raise argparse.ArgumentTypeError("batch sizes start at 1")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
