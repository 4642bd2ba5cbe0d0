"""Opens the sinks, which is where reports go: subscribers, files, displays.

Sinks are written one after the other on one thread, so a slow file slows down a file source (which must not lose
frames) and makes a live source drop frames (which are counted). Subscribers never slow anything down. The first sink
that fails stops the run with its error; the others are closed properly, and every finished row stays readable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vlfau.models.errors import UserError

from ..packets import Origin
from .base import Sink
from .files import check_path
from .group import Sinks

if TYPE_CHECKING:
    from ..settings import FileSettings, OutputSettings, PublishSettings, ScreenSettings


def open_sinks(settings: OutputSettings, units: Sequence[str], origins: Sequence[Origin]) -> Sinks:
    """The sinks that the settings name, not yet entered. `units` are those of the bundle, in its order."""
    sinks = [
        *_messages(settings.publish),
        *_files(settings.files, units, origins),
        *_displays(settings.screen, origins),
    ]
    return Sinks(sinks, [origin.stream for origin in origins])


def _messages(publish: PublishSettings) -> Iterator[Sink]:
    if publish.bind.lower() not in ("", "none"):
        from .zeromq import Publisher

        yield Publisher(publish)
    elif publish.curve_secret or publish.allow:
        raise UserError("--curve-secret and --allow protect what --bind publishes, and --bind is none. Leave them out.")


def _files(files: FileSettings, units: Sequence[str], origins: Sequence[Origin]) -> Iterator[Sink]:
    for path in (files.csv, files.jsonl, files.parquet, files.render, files.subtitles):
        check_path(path, files.overwrite)
    if files.jsonl:
        from .tables import JsonLines

        yield JsonLines(files.jsonl)
    if files.csv:
        from .tables import CsvTable

        yield CsvTable(files.csv, units)
    if files.parquet:
        from .parquet import ParquetTable

        yield ParquetTable(files.parquet, units)
    if files.subtitles:
        from .subtitles import Subtitles

        yield Subtitles(files.subtitles, [origin.stream for origin in origins])
    if files.render:
        from .render import Render

        yield Render(files.render, origins)


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
