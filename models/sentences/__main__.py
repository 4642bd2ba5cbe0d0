"""`python -m vlfau.models.sentences`: checks a corpus file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..terminal import USER_ERROR, command
from .corpus import LENGTH
from .loading import load
from .validation import check
from .vocabulary import SPECIAL, build

NAME = "python -m vlfau.models.sentences"


@command(NAME)
def main(arguments: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(prog=NAME, description="Check a corpus of sentences.")
    parser.add_argument("file", type=Path, help="the corpus, a TOML file")
    parser.add_argument("--bundle", type=Path, help="a bundle whose vocabulary must contain every word")
    parser.add_argument(
        "--length", type=int, default=LENGTH, help="tokens of a sentence, including its end (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        problems = check(options.file, _vocabulary(options.bundle), options.length)
        if problems:
            print("\n".join(problems), file=sys.stderr)
            return USER_ERROR
        corpus = load(path=options.file)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{options.file}: {error}") from None
    sentences = sum(len(unit.active) + len(unit.inactive) for unit in corpus.units.values())
    words = len(build(corpus)) - len(SPECIAL)
    print(f"{options.file}: {len(corpus.units)} units, {sentences} sentences, {words} words, no errors.")
    return None


def _vocabulary(bundle: Path | None) -> list[str] | None:
    if bundle is None:
        return None
    path = bundle / "manifest.json"
    try:
        words: list[str] = json.loads(path.read_text(encoding="utf-8"))["vocabulary"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} holds no vocabulary ({error}). Give the folder of a bundle with sentences.") from None
    return words


if __name__ == "__main__":
    sys.exit(main())
