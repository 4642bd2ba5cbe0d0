"""Opens the sinks, which is where reports go: subscribers, files, displays.

Sinks are written one after the other on one thread, so a slow file slows down a file source (which must not lose
frames) and makes a live source drop frames (which are counted). Subscribers never slow anything down. The first sink
that fails stops the run with its error; the others are closed properly, and every finished row stays readable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlfau.models.errors import UserError
from vlfau.models.terminal import plain

from ..packets import Origin
from .base import Sink
from .files import Say, silent
from .group import Sinks
from .outputs import check_outputs, expanded

if TYPE_CHECKING:
    from ..settings import FileSettings, OutputSettings, PublishSettings, ScreenSettings


def open_sinks(
    settings: OutputSettings, units: Sequence[str], origins: Sequence[Origin], inputs: Iterable[Path] = ()
) -> Sinks:
    """The sinks that the settings name, not yet entered. `units` are those of the bundle, in its order.

    `inputs` are files and folders that the run reads besides its sources and keys. None of them is written over.
    """
    keys = [path for path in (settings.publish.curve_secret, settings.publish.allow) if path is not None]
    sources = [file for origin in origins for file in origin.files]
    _check_files(settings.files, origins, [*inputs, *keys, *sources])
    sinks = [
        *_messages(settings.publish),
        *_files(settings.files, units, origins, silent if settings.screen.quiet else _print),
        *_displays(settings.screen, origins),
    ]
    return Sinks(sinks, [origin.stream for origin in origins])


def _messages(publish: PublishSettings) -> Iterator[Sink]:
    if publish.bind.lower() not in ("", "none"):
        from .zeromq import Publisher

        yield Publisher(publish)
    elif publish.curve_secret or publish.allow:
        raise UserError("--curve-secret and --allow protect what --bind publishes, and --bind is none. Leave them out.")


def _check_files(files: FileSettings, origins: Sequence[Origin], inputs: Iterable[Path]) -> None:
    streams = [origin.stream for origin in origins]
    outputs = {
        "--jsonl": expanded(files.jsonl),
        "--csv": expanded(files.csv),
        "--parquet": expanded(files.parquet),
        "--subtitles": expanded(files.subtitles, streams),
        "--render": expanded(files.render, streams),
    }
    check_outputs(outputs, inputs, files.overwrite)


def _print(line: str) -> None:
    print(plain(line), file=sys.stderr, flush=True)


def _files(files: FileSettings, units: Sequence[str], origins: Sequence[Origin], say: Say) -> Iterator[Sink]:
    if files.jsonl:
        from .tables import JsonLines

        yield JsonLines(files.jsonl, say=say)
    if files.csv:
        from .tables import CsvTable

        yield CsvTable(files.csv, units, say)
    if files.parquet:
        from .parquet import ParquetTable

        yield ParquetTable(files.parquet, units, say=say)
    if files.subtitles:
        from .subtitles import Subtitles

        yield Subtitles(files.subtitles, [origin.stream for origin in origins], say)
    if files.render:
        from .render import Render

        yield Render(files.render, origins, say)


def _displays(screen: ScreenSettings, origins: Sequence[Origin]) -> Iterator[Sink]:
    if screen.metrics:
        from .prometheus import Metrics

        yield Metrics(screen.metrics)
    if screen.show:
        from .preview import Preview

        yield Preview()
    if screen.quiet:
        return
    if screen.demo:
        from .demo import DemoText

        yield DemoText()
    from .progress import open_progress

    yield open_progress(origins)
