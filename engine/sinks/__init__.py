"""Where reports go: what every sink offers, and all sinks of a run as one. Leaves each format to its own module.

Lateness and failure, in words: sinks are written in turn on the caller's thread, so a slow file slows a file source (no
frame may be lost) and makes a live source drop (counted). Subscribers never slow anything. The first sink that fails
stops the run with its error; the others are closed properly, and every finished row stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..packets import Origin
from .base import Sink
from .files import _check_path
from .group import Sinks

if TYPE_CHECKING:
    from ..settings import OutputSettings


def open_sinks(settings: OutputSettings, units: Sequence[str], origins: Sequence[Origin]) -> Sinks:
    """The sinks that the settings ask for, not yet entered. `units` are the bundle's, in its order."""
    sinks: list[Sink] = []
    files, screen = settings.files, settings.screen
    streams = [origin.stream for origin in origins]
    if settings.publish.bind.lower() not in ("", "none"):
        from .zeromq import Publisher

        sinks.append(Publisher(settings.publish))
    for path in (files.csv, files.jsonl, files.parquet, files.render, files.subtitles):
        _check_path(path, files.overwrite)
    if files.jsonl:
        from .tables import JsonLines

        sinks.append(JsonLines(files.jsonl))
    if files.csv:
        from .tables import CsvTable

        sinks.append(CsvTable(files.csv, units))
    if files.parquet:
        from .parquet import ParquetTable

        sinks.append(ParquetTable(files.parquet, units))
    if files.subtitles:
        from .subtitles import Subtitles

        sinks.append(Subtitles(files.subtitles, streams))
    if files.render:
        from .render import Render

        sinks.append(Render(files.render, origins))
    if screen.metrics:
        from .prometheus import Metrics

        sinks.append(Metrics(screen.metrics))
    if screen.show:
        from .preview import Preview

        sinks.append(Preview())
    if screen.demo and not screen.quiet:
        from .demo import DemoText

        sinks.append(DemoText())
    if not screen.quiet:
        from .progress import open_progress

        sinks.append(open_progress(origins))
    return Sinks(sinks, streams)
