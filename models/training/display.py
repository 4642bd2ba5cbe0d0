"""Shows a training: a bar on a terminal, an occasional line in a log file, and TensorBoard curves."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..terminal import LINE_S, clock
from .position import Position


class Display:
    """One per run, in the first process only."""

    def __init__(self, folder: Path | None, *, shown: bool = True) -> None:
        """Curves go to folder/tensorboard; without a folder there are none."""
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

    def step(self, at: Position, done: float, loss: float | None, speed: Mapping[str, float]) -> None:
        """`done` is 0..1 over the whole run, `loss` the last one known."""
        done = min(1.0, done)
        left = clock(at.elapsed_s / done - at.elapsed_s) if done > 0 else "?"
        parts = [f"loss {loss:.4f}"] if loss is not None else []
        parts += [f"test F1 {at.best_f1:.3f}"] if at.best_epoch >= 0 else []
        parts += [_speed(speed), f"{left} left"]
        self.show(f"epoch {at.epoch + 1} step {at.step}", done, "  ".join(parts))

    def epoch(self, at: Position, row: Mapping[str, Any]) -> None:
        """One line, and the curves, for a row of metrics.jsonl."""
        self.curves(at.step, {key: value for key, value in row.items() if isinstance(value, float)})
        tested = f", test F1 {row['test_f1']:.3f} (best {at.best_f1:.3f})" if "test_f1" in row else ""
        self.say(f"Epoch {at.epoch + 1}: loss {row.get('loss', float('nan')):.4f}{tested}, {_speed(row, ', ')}")

    def show(self, title: str, done: float, text: str) -> None:
        """`done` is 0..1 over the whole run."""
        if self._bar is not None:
            self._bar.update(self._task, description=title, completed=done, text=text)
        elif time.monotonic() - self._line_s > LINE_S:
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


def _speed(values: Mapping[str, Any], separator: str = "  ") -> str:
    return f"{values.get('images_s', 0):.1f} images/s{separator}{values.get('wait_share', 0):.0%} waiting for data"
