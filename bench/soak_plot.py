"""The picture of a soak: memory, latency and rate over time, with the faults marked. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from latency_plots import COLOUR, MARK, plots


def draw(path: Path, samples: Sequence[dict[str, float]], faults: Sequence[tuple[float, str]], title: str) -> None:
    shown = plots()
    figure, axes = shown.subplots(3, 1, figsize=(8, 6), sharex=True, layout="constrained")
    times = np.array([row["s"] for row in samples]) / 60
    for place, (name, unit) in zip(
        axes, (("memory_mb", "memory, MB"), ("p95_ms", "latency, ms"), ("fps", "reports/s"))
    ):
        place.plot(
            times, [row[name] for row in samples], color=COLOUR, linewidth=1.2, label="p95" if "ms" in name else ""
        )
        place.set_ylabel(unit)
        place.set_ylim(bottom=0)
        for at, what in faults:
            place.axvline(at / 60, color=MARK, linewidth=0.8, linestyle=":" if what.endswith("over") else "-")
    axes[1].plot(times, [row["p50_ms"] for row in samples], color="#a9d6e5", linewidth=1.2, label="p50")
    axes[1].legend(fontsize=7, loc="upper right")
    for at, what in faults:
        if not what.endswith("over"):
            axes[0].annotate(
                what, (at / 60, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=40, va="bottom"
            )
    axes[2].set_xlabel("minutes")
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    shown.close(figure)
