"""Precisions side by side: what each costs in F1, AUC and calibration, and what it gains in time and size.

All precisions answer the same pictures; differences to FP32 carry a paired bootstrap interval over subjects.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfau.models import metrics
from vlfau.models.bundle import Bundle
from vlfau.models.errors import UserError
from vlfau.models.runtime import Runtime
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.graphs import encoder_file

from .pictures import Labelled

DRAWS = 1000
CAPTIONED = 32  # faces whose sentences are compared


@dataclass(frozen=True)
class Row:
    """One precision. Shares on the 0..1 scale, None where nothing can be said."""

    name: str  # "openvino int8"
    f1: float | None
    auc: float | None
    ece: float | None
    unit_f1: tuple[float | None, ...]
    unit_auc: tuple[float | None, ...]
    unit_ece: tuple[float | None, ...]
    f1_difference: tuple[float, float, float] | None  # to the first row: value, low, high (95 %)
    ms: float  # a face, batch 1, median
    megabytes: float  # of the encoder
    captions: float | None  # share of tokens equal to the first row's, for the same decided states
    texts: float | None  # share of sentences wholly equal


@dataclass(frozen=True, eq=False)
class Answer:
    """What one precision said."""

    log_odds: NDArray[np.float32]  # (n, A)
    probabilities: NDArray[np.float32]
    states: NDArray[np.bool_]
    tokens: NDArray[np.int64] | None  # (rows, T)


def compare(bundle: Bundle, data: Labelled, variants: Sequence[tuple[str, str]]) -> list[Row]:
    """`variants` are (runtime, precision); the first is the reference. Times are interleaved: load hits all alike."""
    runtimes = [open_runtime(bundle, runtime, precision=precision) for runtime, precision in variants]
    try:
        answers: list[Answer] = []
        for runtime in runtimes:
            answers.append(_answer(runtime, data, answers[0].states if answers else None))
        times = _times(runtimes, data.crops[:1])
        return [
            _row(bundle, runtime, data, answer, answers[0] if i else None, ms)
            for i, (runtime, answer, ms) in enumerate(zip(runtimes, answers, times))
        ]
    finally:
        for runtime in runtimes:
            runtime.close()


def _answer(runtime: Runtime, data: Labelled, told: NDArray[np.bool_] | None) -> Answer:
    predictions = [
        runtime.predict(data.crops[i : i + runtime.max_batch]) for i in range(0, len(data.crops), runtime.max_batch)
    ]
    states = np.concatenate([p.states for p in predictions])
    tokens = []
    if runtime.bundle.has_captions:
        decided, at = (states if told is None else told), 0
        for prediction in predictions:
            if at >= CAPTIONED:
                break
            active = decided[at : at + len(prediction)].astype(np.float32)
            rows = np.argwhere(np.ones_like(active)).astype(np.int64)
            memory = runtime.executor.take(prediction.memory, range(len(prediction)))
            said = runtime.executor.caption(memory, active, rows)
            tokens += [np.asarray(said["local_tokens"]), np.asarray(said["global_tokens"])]
            at += len(prediction)
    return Answer(
        np.concatenate([p.log_odds for p in predictions]),
        np.concatenate([p.probabilities for p in predictions]),
        states,
        np.concatenate(tokens) if tokens else None,
    )


def _times(runtimes: Sequence[Runtime], crop: NDArray[np.uint8], rounds: int = 40) -> list[float]:
    took: list[list[float]] = [[] for _ in runtimes]
    for _ in range(rounds):
        for runtime, mine in zip(runtimes, took):
            start = time.perf_counter()
            runtime.predict(crop)
            mine.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(mine[3:])) for mine in took]


def _row(bundle: Bundle, runtime: Runtime, data: Labelled, answer: Answer, first: Answer | None, ms: float) -> Row:
    f1 = metrics.f1(metrics.counts(data.labels, answer.states))
    auc = metrics.auc(data.labels, answer.log_odds)
    ece = [
        metrics.calibration_error(data.labels[:, [a]], answer.probabilities[:, [a]])
        for a in range(data.labels.shape[1])
    ]
    captions = texts = None
    if answer.tokens is not None:
        reference = answer.tokens if first is None or first.tokens is None else first.tokens
        captions = float((answer.tokens == reference).mean())
        texts = float((answer.tokens == reference).all(1).mean())
    return Row(
        f"{runtime.executor.name} {runtime.executor.precision}",
        _number(metrics.mean(f1)),
        _number(metrics.mean(auc)),
        _number(metrics.calibration_error(data.labels, answer.probabilities)),
        tuple(map(_number, f1)),
        tuple(map(_number, auc)),
        tuple(map(_number, ece)),
        None if first is None else f1_difference(data.labels, first.states, answer.states, data.subjects),
        ms,
        bundle.path(encoder_file(runtime.executor.precision)).stat().st_size / 1e6,
        captions,
        texts,
    )


def f1_difference(
    labels: NDArray[np.int8], first: NDArray[np.bool_], second: NDArray[np.bool_], subjects: NDArray[Any], seed: int = 0
) -> tuple[float, float, float]:
    """Mean F1 of the second minus the first, with the 95 % interval of a paired bootstrap over subjects."""

    def mean_f1(tables: NDArray[Any]) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a draw without any positive label has no mean
            return np.asarray(np.nanmean(metrics.f1(tables), axis=-1))

    names = np.unique(subjects)
    whole = mean_f1(metrics.counts(labels, second)) - mean_f1(metrics.counts(labels, first))
    if len(names) < 2:
        return float(whole), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    means = []
    for states in (first, second):
        tables = np.stack([metrics.counts(labels[subjects == name], states[subjects == name]) for name in names])
        means.append(mean_f1(np.einsum("ds,sak->dak", drawn, tables)))
    low, high = np.nanpercentile(means[1] - means[0], [2.5, 97.5])
    return float(whole), float(low), float(high)


def markdown(bundle: Bundle, data: Labelled, rows: Sequence[Row]) -> str:
    people = len(np.unique(data.subjects))
    lines = [f"# Precisions of {bundle.manifest.name}", ""]
    lines += [f"{len(data.labels)} pictures of {people} subjects from {data.source}. F1, AUC and ECE in percent.", ""]
    lines += ["| | F1 | to the first (95 %) | AUC | ECE | equal words | equal sentences | ms a face | MB |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        to_first = (
            ""
            if row.f1_difference is None
            else "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * value for value in row.f1_difference))
        )
        shares = (_percent(row.auc), _percent(row.ece), _percent(row.captions), _percent(row.texts))
        lines.append(
            f"| {row.name} | {_percent(row.f1)} | {to_first} | {' | '.join(shares)} | {row.ms:.2f} | "
            f"{row.megabytes:.1f} |"
        )
    for title, field in (("F1", "unit_f1"), ("AUC", "unit_auc"), ("ECE", "unit_ece")):
        lines += ["", f"## {title}", "", f"| AU | {' | '.join(row.name for row in rows)} |"]
        lines += ["|---" * (len(rows) + 1) + "|"]
        for a, unit in enumerate(bundle.manifest.units):
            lines.append(f"| {unit} | {' | '.join(_percent(getattr(row, field)[a]) for row in rows)} |")
    return "\n".join(lines) + "\n"


def write(folder: Path, bundle: Bundle, data: Labelled, rows: Sequence[Row]) -> Path:
    """report.md, report.json and, where matplotlib is installed, report.png."""
    if not rows:
        raise UserError("Nothing to report: no precision was measured.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(bundle, data, rows), encoding="utf-8")
    table = {"bundle": bundle.manifest.name, "checksum": bundle.checksum, "units": bundle.manifest.units}
    (folder / "report.json").write_text(json.dumps(table | {"rows": [asdict(row) for row in rows]}, indent=1))
    _plot(folder / "report.png", bundle, rows)
    return folder / "report.md"


def _plot(path: Path, bundle: Bundle, rows: Sequence[Row]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(bundle.manifest.units))
    for i, row in enumerate(rows):
        heights = [100 * (value or 0.0) for value in row.unit_f1]
        axes.bar(places + (i - (len(rows) - 1) / 2) * 0.8 / len(rows), heights, 0.8 / len(rows), label=row.name)
    axes.set_xticks(places, bundle.manifest.units, rotation=45)
    axes.set_ylabel("F1, %")
    axes.legend()
    figure.savefig(path, dpi=120)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
