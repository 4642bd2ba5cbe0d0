"""The interface of sinks."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..wire import End, Report, Status, Text

if TYPE_CHECKING:
    from typing_extensions import Self

KNOWN_TRACKS = 256  # tracks of a stream whose last sentence is remembered

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB, upright: the frame that the boxes of the report refer to


class Sink:
    """One destination of reports. Entered, used and left on one thread, or under one lock."""

    needs_pixels: ClassVar[bool] = False
    incomplete = False  # set before closing if the run failed, so that the next one continues its files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> bool:
        """False delays the start, for example until subscribers have joined."""
        return True

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        """Called for every frame. `pixels` is given if `needs_pixels`, and must not be changed."""

    def text(self, text: Text) -> None:
        """Called when a sentence changes."""

    def status(self, status: Status) -> None:
        """Called every second for each stream."""

    def end(self, end: End) -> None:
        """Called when a stream is over; others may go on."""

    def close(self) -> None:
        """Called once when everything is over, also after a failure."""
