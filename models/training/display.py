"""What a person sees of a training: a bar on a terminal, a line now and then in a log file, and TensorBoard curves."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_EVERY_S = 30.0  # in a log file


class Display:
    """One per run, in the first process only."""

    def __init__(self, folder: Path | None, *, shown: bool = True) -> None:
        """Curves go to folder/tensorboard; without a folder nowhere."""
        self.console = Console(file=sys.stderr, quiet=not shown, highlight=False)
        self._bar: Progress | None = None
        self._line_s = 0.0
        self._curves: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.say("TensorBoard curves are off: pip install tensorboard.")
            else:
                self._curves = SummaryWriter(str(folder / "tensorboard"))
        if shown and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self._task = self._bar.add_task("training", total=1.0, text="")
            self._bar.start()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def show(self, title: str, done: float, text: str) -> None:
        """`done` is 0..1 over the whole run."""
        if self._bar is not None:
            self._bar.update(self._task, description=title, completed=done, text=text)
        elif time.monotonic() - self._line_s > LINE_EVERY_S:
            self._line_s = time.monotonic()
            self.say(f"{title} {done:4.0%} {text}")

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        if self._curves is not None:
            for name, value in values.items():
                self._curves.add_scalar(name, value, step)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._curves is not None:
            self._curves.close()
