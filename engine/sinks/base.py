"""What every sink offers."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..wire import End, Report, Status, Text

if TYPE_CHECKING:
    from typing_extensions import Self

KNOWN_TRACKS = 256  # tracks of a stream whose last sentence is remembered

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB, upright, as the report's boxes count


class Sink:
    """One way out. Entered, used and left on one thread, or under one lock."""

    needs_pixels: ClassVar[bool] = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> bool:
        """False holds the start, for example for subscribers that are awaited."""
        return True

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        """Every frame. `pixels` is there if `needs_pixels`; it must not be drawn into."""

    def text(self, text: Text) -> None:
        """A sentence changed."""

    def status(self, status: Status) -> None:
        """Every second."""

    def end(self, end: End) -> None:
        """A stream is over; others may go on."""

    def close(self) -> None:
        """Everything is over. Called once, also after a failure."""
