"""Plots: latencies and their stages (`latency.py`), memory and faults over time (`soak.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring.stages import shares
from numpy.typing import NDArray

from vlfau.models.errors import UserError

COLOUR, MARK = "#2a6f97", "#e09f3e"


def histogram(folder: Path, latencies: NDArray[np.float64], title: str) -> list[Path]:
    shown = plots()
    figure, axes = shown.subplots(figsize=(6, 3.4), layout="constrained")
    axes.hist(latencies, bins=min(60, max(10, len(latencies) // 5)), color=COLOUR)
    for share in (50, 95, 99):
        at = float(np.percentile(latencies, share))
        axes.axvline(at, color=MARK, linewidth=1)
        axes.annotate(f"p{share}", (at, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="capture to receipt (ms)", ylabel="frames")
    figure.suptitle(title, fontsize=9)
    return _save(shown, figure, folder / "latency")


def waterfall(folder: Path, stages: dict[str, float], title: str) -> list[Path]:
    """Mean milliseconds by stage, each starting where the previous one ends."""
    shown = plots()
    figure, axes = shown.subplots(figsize=(6, 0.35 * len(stages) + 1.4), layout="constrained")
    begins = np.concatenate([[0.0], np.cumsum(list(stages.values()))])[:-1]
    bars = axes.barh(list(stages), list(stages.values()), left=begins, color=COLOUR)
    labels = [f"{stages[stage]:.2f} ({share:.0%})" for stage, share in shares(stages).items()]
    axes.bar_label(bars, labels=labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.17)
    axes.set(xlabel="mean milliseconds since capture")
    figure.suptitle(title, fontsize=9)
    return _save(shown, figure, folder / "stages")


def plots() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise UserError("--plots needs matplotlib, which is not installed. Run: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(plots: Any, figure: Any, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    plots.close(figure)
    return paths


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
