"""`python -m vlfau.models.sentences`: checks a corpus and shows its sentences."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .check import check
from .corpus import LENGTH
from .loading import load
from .vocabulary import SPECIAL, build


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vlfau.models.sentences", description="Check a corpus of sentences."
    )
    parser.add_argument("file", type=Path, help="the corpus, a TOML file")
    parser.add_argument("--bundle", type=Path, help="a bundle whose vocabulary must hold every word")
    parser.add_argument(
        "--length", type=int, default=LENGTH, help="tokens of a sentence with its end (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        stored = None
        if options.bundle is not None:
            stored = json.loads((options.bundle / "manifest.json").read_text(encoding="utf-8"))["vocabulary"]
        problems = check(options.file, stored, options.length)
        if not problems:
            corpus = load(path=options.file)
            sentences = sum(len(unit.active) + len(unit.inactive) for unit in corpus.units.values())
            words = len(build(corpus)) - len(SPECIAL)
            print(f"{options.file}: {len(corpus.units)} units, {sentences} sentences, {words} words, no fault.")
    except (OSError, KeyError, ValueError, UserError) as error:
        problems = [f"{options.file}: {error}"]
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
