"""`vlfau-watch`: shows the reports of a running engine in the terminal, or as a picture."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from vlfau.models.settings import finite
from vlfau.models.terminal import command

from ..subscriber import DEFAULT_ADDRESS, Subscription, subscribe
from ..wire import AnyMessage, Report
from .board import Board, save_picture
from .completion import add_completion

REFRESH_S = 0.1
SETTLE_S = 1.2  # how long --once and --snapshot wait for a status, which is sent every second


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="vlfau-watch", description="Watch a running vlfau-stream from a terminal.")
    result.add_argument(
        "address", nargs="?", default=DEFAULT_ADDRESS, help="where the engine publishes (default: %(default)s)"
    )
    result.add_argument("--stream", default="", metavar="NAME", help="show only this stream")
    result.add_argument("--once", action="store_true", help="print the view once and exit")
    result.add_argument("--snapshot", type=Path, metavar="FILE.svg", help="store the view as a picture and exit")
    result.add_argument(
        "--timeout",
        type=finite,
        default=10.0,
        metavar="SECONDS",
        help="how long --once and --snapshot wait for a message",
    )
    result.add_argument("--server-key", metavar="KEY", help="public key of an engine that encrypts, or its file")
    result.add_argument("--curve-secret", type=Path, metavar="FILE", help="your secret key file of vlfau-keys")
    add_completion(result)
    return result


@command("vlfau-watch")
def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars need Unicode; other terminals still get the text
    board = Board(options.address)
    try:
        with _subscribe(options) as messages:
            if options.once or options.snapshot:
                listen(messages, board, options.timeout)
            else:
                watch(messages, board)
        if options.snapshot:
            save_picture(board, str(options.snapshot))
        if options.once:
            _Console().print(board)
    except KeyboardInterrupt:  # the usual way to exit
        return


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Called while the error is handled; `command` knows what to do."""
        raise


def _subscribe(options: argparse.Namespace) -> Subscription[AnyMessage]:
    return subscribe(
        options.address,
        [f"{kind}/{options.stream}" for kind in ("au", "status", "end")],
        stop_at_end=False,
        server_key=options.server_key,
        secret=options.curve_secret,
        receive_queue=1000,
    )


def listen(messages: Subscription[AnyMessage], board: Board, timeout_s: float) -> None:
    """Receives messages until there is a report and, if one arrives in time, a status."""
    give_up = time.monotonic() + timeout_s
    settled = give_up
    while time.monotonic() < settled:
        try:
            message = messages.receive(timeout_s=min(0.1, timeout_s))
        except TimeoutError:
            continue
        finally:
            board.unreadable = messages.unreadable
        if message is None:
            return
        board.add(message)
        if isinstance(message, Report) and settled == give_up:
            settled = min(time.monotonic() + SETTLE_S, give_up)
        if board.reports and board.statuses:
            return
    if not board.streams:
        raise TimeoutError(f"No message from {board.address} within {timeout_s:g} s. {messages.why_none()}")


def watch(messages: Subscription[AnyMessage], board: Board) -> None:
    with Live(board, screen=True, auto_refresh=False) as live:
        while True:
            live.refresh()
            shown = time.monotonic()  # however long drawing takes, messages are received as well
            while (left_s := REFRESH_S - (time.monotonic() - shown)) > 0:
                try:
                    message = messages.receive(timeout_s=left_s)
                except TimeoutError:
                    break
                finally:
                    board.unreadable = messages.unreadable
                if message is not None:
                    board.add(message)


if __name__ == "__main__":
    sys.exit(main())
