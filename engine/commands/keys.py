"""`vlfau-keys`: creates CURVE key pairs."""

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
        description="Create key pairs for encrypted streams: one for the engine, one for each subscriber.",
        epilog="Engine: vlfau-stream 0 --curve-secret engine.key_secret --allow subscribers/   "
        "Subscriber: vlfau-watch --server-key engine.key --curve-secret alice.key_secret",
    )
    result.add_argument("names", nargs="+", metavar="NAME", help="name of a pair, such as engine or alice")
    result.add_argument("--folder", type=Path, default=Path(), help="folder for the files (default: this one)")
    return result


@command("vlfau-keys")
def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    for name in options.names:
        try:
            public, secret = make_pair(options.folder, name)
        except OSError as error:
            raise UserError(str(error)) from error
        print(f"{public}  public, to share: {read_public(public).decode()}")
        print(f"{secret}  secret, readable only by you")


if __name__ == "__main__":
    sys.exit(main())
