"""Plots of an evaluation: F1 next to the paper's, reliability, a map of the units' features, attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..errors import UserError

OURS, PAPER, FLOOR = "#2a6f97", "#e09f3e", "#b8b8b8"


def f1_bars(path: Path, score: dict[str, Any]) -> None:
    """F1 per unit, next to the paper's if it reports one; the floor as a line."""
    units = score["units"]
    place = np.arange(len(units))
    with _figure(path, (0.55 * len(units) + 2.5, 3.6)) as axes:
        axes.bar(place - 0.2, _percent(units, "f1"), 0.4, color=OURS, label="ours")
        if any(row["paper_f1"] is not None for row in units.values()):
            axes.bar(place + 0.2, _percent(units, "paper_f1"), 0.4, color=PAPER, label="paper")
        floor = _percent(units, "all_ones_f1")
        axes.hlines(floor, place - 0.45, place + 0.45, color=FLOOR, label="always yes")
        axes.set_xticks(place, [unit.removeprefix("AU") for unit in units])
        axes.set(xlabel="action unit", ylabel="F1 (%)", ylim=(0, 100))
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))


def reliability(path: Path, labels: NDArray[np.int8], probabilities: NDArray[np.float32]) -> None:
    predicted, observed, size = metrics.reliability(labels, probabilities)
    filled = size > 0
    with _figure(path, (4, 4)) as axes:
        axes.plot([0, 1], [0, 1], color=FLOOR, label="calibrated")
        axes.plot(predicted[filled], observed[filled], "o-", color=OURS, label="all units")
        axes.set(xlabel="predicted probability", ylabel="share of active", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False)


def feature_map(
    folder: Path,
    features: NDArray[np.floating],
    units: Sequence[str],
    subjects: NDArray[np.integer],
    *,
    limit: int = 1000,
) -> list[Path]:
    """The paper's figure 4: t-SNE of the features (n, A, d), coloured by unit and by subject."""
    faces = max(2, min(len(features), limit // len(units)))
    chosen = np.linspace(0, len(features) - 1, faces).astype(int)
    points = _on_plane(features[chosen].reshape(faces * len(units), -1))
    unit = np.tile(np.arange(len(units)), faces)
    _, subject = np.unique(np.repeat(subjects[chosen], len(units)), return_inverse=True)
    paths = []
    for name, colour, labels in (("units", unit, units), ("subjects", subject, None)):
        path = folder / f"features_by_{name}.png"
        with _figure(path, (6, 5)) as axes:
            dots = axes.scatter(*points.T, c=colour, s=5, cmap="tab20" if labels else "viridis")
            axes.set_xticks([])
            axes.set_yticks([])
            if labels:
                handles = dots.legend_elements(num=None)[0]
                axes.legend(handles, labels, frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        paths.append(path)
    return paths


def attention(
    path: Path,
    crop: NDArray[np.uint8],
    spatial: NDArray[np.floating],
    units: Sequence[str],
    probabilities: NDArray[np.floating],
) -> None:
    """The spatial branch's attention of each unit (A, L) over one face; probabilities (A,) in the titles."""
    side = round(spatial.shape[1] ** 0.5)
    tiles = []
    for unit, flat, probability in zip(units, spatial, probabilities):
        grid = flat.reshape(side, side).astype(np.float32)
        grid = (grid - grid.min()) / max(float(np.ptp(grid)), 1e-6)
        wide = cv2.resize(grid, crop.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
        heat = cv2.applyColorMap((255 * wide).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
        tile = cv2.resize(cv2.addWeighted(crop, 0.6, np.ascontiguousarray(heat), 0.4, 0), (160, 160))
        cv2.putText(tile, f"{unit} {probability:.2f}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)
        tiles.append(tile)
    columns = 6
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise UserError(f"{path} cannot be written. Check the folder and the free space.")


def _on_plane(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, d) -> (n, 2)"""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise _missing("scikit-learn") from None
    perplexity = min(30.0, (len(features) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features))


def _percent(units: dict[str, dict[str, Any]], key: str) -> list[float]:
    return [float("nan") if row[key] is None else 100 * row[key] for row in units.values()]


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """One pair of axes, saved at the end; drawn without a display and without pyplot's global state."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise _missing("matplotlib") from None
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    yield figure.add_subplot()
    figure.savefig(path)


def _missing(package: str) -> UserError:
    return UserError(f"Plots need {package}: pip install 'vlfau-stream[train]', or use --no-plots.")
