"""vlfau-keys: makes a CURVE key pair and says what to do with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vlfau.models.errors import UserError
from vlfau.models.terminal import command

from ..keys import make_pair, read_public


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="vlfau-keys",
        description="Make key pairs for encrypted streams: one for the engine, one for each subscriber.",
        epilog="Engine: vlfau-stream 0 --curve-secret engine.key_secret --allow subscribers/   "
        "Subscriber: vlfau-watch --server-key engine.key --curve-secret alice.key_secret",
    )
    result.add_argument("names", nargs="+", metavar="NAME", help="name of a pair, for example engine or alice")
    result.add_argument("--folder", type=Path, default=Path(), help="where the files go (default: here)")
    return result


@command("vlfau-keys")
def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    for name in options.names:
        try:
            public, secret = make_pair(options.folder, name)
        except OSError as error:
            raise UserError(str(error)) from error
        print(f"{public}  public, give it away: {read_public(public).decode()}")
        print(f"{secret}  secret, readable by you only")


if __name__ == "__main__":
    sys.exit(main())
