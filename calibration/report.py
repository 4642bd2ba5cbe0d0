"""Precisions side by side: what each costs in F1, AUC and calibration, and what it gains in time and size.

All precisions see the same images, with the same temperatures and thresholds. If the bundle's own were fitted on these
images, each image is scored with values fitted without its subject.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlfau.models import metrics
from vlfau.models.bundle import Bundle
from vlfau.models.errors import UserError
from vlfau.models.metrics import number, sigmoid
from vlfau.models.openvino_core import openvino_core
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.base import Runtime, SelfTestFailed
from vlfau.models.runtimes.graphs import encoder_file, has_precision
from vlfau.models.runtimes.rewriting import in_half

from .decisions import Goal, cross_fit
from .intervals import MEASURES, Difference, Predictions, differences
from .pictures import Labelled

CAPTIONED = 32  # faces whose sentences are compared
TITLES = {"f1": "F1", "auc": "AUC", "ece": "ECE"}


@dataclass(frozen=True)
class Row:
    """One precision. Shares on the 0..1 scale, None where undefined."""

    name: str  # "openvino int8"
    f1: float | None  # mean of the units
    auc: float | None
    ece: float | None  # of all units pooled
    units: dict[str, tuple[float | None, ...]]  # "f1", "auc", "ece" -> per unit
    differences: dict[str, list[Difference | None]] | None  # from the first row; per unit, the last for all units
    ms: float | None  # median per face, batch 1
    megabytes: float  # of the encoder
    captions: float | None  # share of tokens equal to the first row's, for the same decided states
    texts: float | None  # share of sentences that are equal as a whole
    reliability: tuple[tuple[float, float], ...]  # mean probability and share of positives, of filled bins
    failed: str = ""  # why there are no figures


@dataclass(frozen=True, eq=False)
class Outputs:
    """Of one precision."""

    log_odds: NDArray[np.float64]  # (n, A)
    tokens: NDArray[np.int64] | None  # (rows, T)


def usual_variants(bundle: Bundle) -> tuple[list[tuple[str, str]], list[str]]:
    """FP32, the half precisions and INT8, as far as this machine runs them, and notes on those that are missing."""
    variants, notes = [("openvino", "fp32")], []
    if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        variants.append(("openvino", "bf16"))
    else:
        notes.append("BF16 is missing: this processor does not support it.")
    if find_spec("onnxruntime"):
        variants.append(("onnxruntime", "fp16"))
        notes.append("FP16 is the graph that GPUs run: its accuracy carries over to them, its time on a CPU does not.")
    else:
        notes.append("FP16 is missing: onnxruntime is not installed.")
    if has_precision(bundle, "int8"):
        variants.append(("openvino", "int8"))
        variants += [("onnxruntime", "int8")] if find_spec("onnxruntime") else []
    else:
        notes.append("INT8 is missing: add it with vlfau-calibrate int8.")
    return variants, notes


def compare(bundle: Bundle, data: Labelled, variants: Sequence[tuple[str, str]]) -> list[Row]:
    """`variants` are (runtime, precision); the first is the reference. Timing is interleaved: load hits all alike.

    One that fails its self-test has a row without figures, unless it is the reference.
    """
    failed: dict[int, Row] = {}
    with ExitStack() as opened:
        runtimes: list[Runtime] = []
        for i, variant in enumerate(variants):
            try:
                runtimes.append(opened.enter_context(_open(bundle, *variant, opened)))
            except SelfTestFailed as error:
                if not runtimes:
                    raise
                failed[i] = _failed(bundle, *variant, str(error))
        outputs: list[Outputs] = []
        states: NDArray[np.bool_] | None = None
        for runtime in runtimes:
            output, states = _outputs(runtime, data, states)
            outputs.append(output)
        values = _decisions(bundle, data, outputs[0].log_odds)
        predictions = [_predictions(output, *values) for output in outputs]
        times = _times(runtimes, data.crops[:1])
        rows = [
            _row(runtime, data, outputs[0], output, predictions[0] if i else None, its, ms)
            for i, (runtime, output, its, ms) in enumerate(zip(runtimes, outputs, predictions, times))
        ]
    for i, row in failed.items():  # in ascending order, so each lands at its place
        rows.insert(i, row)
    return rows


def _failed(bundle: Bundle, runtime: str, precision: str, reason: str) -> Row:
    size = bundle.path(encoder_file(precision)).stat().st_size / 1e6
    units: dict[str, tuple[float | None, ...]] = dict.fromkeys(MEASURES, (None,) * len(bundle.manifest.units))
    return Row(f"{runtime} {precision}", None, None, None, units, None, None, size, None, None, (), reason)


def fitted_here(bundle: Bundle, data: Labelled) -> bool:
    """Whether the bundle's decisions come from these images."""
    source = bundle.manifest.provenance.get("decisions", {}).get("source")
    return source is not None and Path(str(source)).name == data.source


def _decisions(
    bundle: Bundle, data: Labelled, log_odds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Temperatures and thresholds, per unit, or per unit and image."""
    if fitted_here(bundle, data) and len(np.unique(data.subjects)) > 1:
        goal = bundle.manifest.provenance["decisions"].get("wanted") or {}
        prior = goal.get("prior")
        return cross_fit(
            log_odds, data.labels, data.subjects, Goal(goal.get("precision"), tuple(prior) if prior else None)
        )
    return np.array(bundle.manifest.temperatures, float), np.array(bundle.manifest.thresholds, float)


def _predictions(output: Outputs, temperatures: NDArray[np.float64], thresholds: NDArray[np.float64]) -> Predictions:
    probabilities = sigmoid(output.log_odds / temperatures)
    return Predictions(output.log_odds, probabilities, probabilities >= thresholds)


def _open(bundle: Bundle, runtime: str, precision: str, opened: ExitStack) -> Runtime:
    if (runtime, precision) == ("onnxruntime", "fp16"):
        folder = opened.enter_context(TemporaryDirectory(prefix="vlfau-half-"))
        bundle = in_half(bundle, Path(folder) / "bundle")
    return open_runtime(bundle, runtime, precision=precision)


def _outputs(runtime: Runtime, data: Labelled, states: NDArray[np.bool_] | None) -> tuple[Outputs, NDArray[np.bool_]]:
    """Sentences describe `states`, the first precision's for all; where None, its own, which are returned."""
    predictions = [
        runtime.predict(data.crops[i : i + runtime.max_batch]) for i in range(0, len(data.crops), runtime.max_batch)
    ]
    if states is None:
        states = np.concatenate([p.states for p in predictions])
    tokens, at = [], 0
    for prediction in predictions if runtime.bundle.has_captions else []:
        if at >= CAPTIONED:
            break
        active = states[at : at + len(prediction)].astype(np.float32)
        rows = np.argwhere(np.ones_like(active)).astype(np.int64)
        memory = runtime.executor.take(prediction.memory, range(len(prediction)))
        sentences = runtime.executor.caption(memory, active, rows)
        tokens += [np.asarray(sentences["local_tokens"]), np.asarray(sentences["global_tokens"])]
        at += len(prediction)
    log_odds = np.concatenate([p.log_odds for p in predictions]).astype(float)
    return Outputs(log_odds, np.concatenate(tokens) if tokens else None), states


def _times(runtimes: Sequence[Runtime], crop: NDArray[np.uint8], rounds: int = 40) -> list[float]:
    times: list[list[float]] = [[] for _ in runtimes]
    for _ in range(rounds):
        for runtime, its in zip(runtimes, times):
            start = time.perf_counter()
            runtime.predict(crop)
            its.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(its[3:])) for its in times]


def _row(
    runtime: Runtime,
    data: Labelled,
    first: Outputs,
    output: Outputs,
    reference: Predictions | None,
    predictions: Predictions,
    ms: float,
) -> Row:
    labels = data.labels
    ece = [metrics.calibration_error(labels[:, [a]], predictions.probabilities[:, [a]]) for a in range(labels.shape[1])]
    f1, auc = metrics.f1(metrics.counts(labels, predictions.states)), metrics.auc(labels, predictions.log_odds)
    captions = texts = None
    if output.tokens is not None and first.tokens is not None:
        same = output.tokens == first.tokens
        captions, texts = float(same.mean()), float(same.all(1).mean())
    p, q, size = metrics.reliability(labels, predictions.probabilities)
    return Row(
        f"{runtime.executor.name} {runtime.executor.precision}",
        number(metrics.mean(f1)),
        number(metrics.mean(auc)),
        number(metrics.calibration_error(labels, predictions.probabilities)),
        {name: tuple(map(number, values)) for name, values in (("f1", f1), ("auc", auc), ("ece", ece))},
        None if reference is None else differences(labels, data.subjects, reference, predictions),
        ms,
        runtime.bundle.path(encoder_file(runtime.executor.precision)).stat().st_size / 1e6,
        captions,
        texts,
        tuple((float(a), float(b)) for a, b, k in zip(p, q, size) if k),
    )


def markdown(bundle: Bundle, data: Labelled, rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    subjects = len(np.unique(data.subjects))
    lines = [f"# Precisions of {bundle.manifest.name}", ""]
    lines += [f"{len(data.labels)} images of {subjects} subjects from {data.source}. F1, AUC and ECE in percent;"]
    lines += [f"differences from {rows[0].name}, with 95 % intervals of a paired bootstrap over subjects.", ""]
    if fitted_here(bundle, data):
        lines += [
            "The bundle's thresholds were fitted on these subjects. Here each is scored with values fitted without"
        ]
        lines += ["it, the same for all precisions.", ""]
    lines += [*notes, ""] if notes else []
    lines += ["| | F1 | | AUC | | ECE | | equal tokens | equal sentences | ms per face | MB |"]
    lines += ["|---" * 11 + "|"]
    for row in rows:
        cells = [row.name]
        for name in MEASURES:
            cells += [_percent(getattr(row, name)), _change(row, name, -1)]
        ms = "failed" if row.ms is None else f"{row.ms:.2f}"
        cells += [_percent(row.captions), _percent(row.texts), ms, f"{row.megabytes:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        lines += ["", row.failed] if row.failed else []
    for name in MEASURES:
        lines += [
            "",
            f"## {TITLES[name]}",
            "",
            f"| AU | {rows[0].name} |" + "".join(f" {r.name} | |" for r in rows[1:]),
        ]
        lines += ["|---" * (2 * len(rows)) + "|"]
        for a, unit in enumerate(bundle.manifest.units):
            cells = [unit, _percent(rows[0].units[name][a])]
            for row in rows[1:]:
                cells += [_percent(row.units[name][a]), _change(row, name, a)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(folder: Path, bundle: Bundle, data: Labelled, rows: Sequence[Row], notes: Sequence[str] = ()) -> Path:
    """report.md, report.json and, where matplotlib is installed, report.png."""
    if not rows:
        raise UserError("Nothing to report: no precision was measured.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(bundle, data, rows, notes), encoding="utf-8")
    table: dict[str, Any] = {"bundle": bundle.manifest.name, "checksum": bundle.checksum}
    table |= {"units": bundle.manifest.units, "data": data.source, "pictures": len(data.labels), "notes": list(notes)}
    (folder / "report.json").write_text(json.dumps(table | {"rows": [asdict(row) for row in rows]}, indent=1))
    _plot(folder / "report.png", bundle, rows)
    return folder / "report.md"


def _plot(path: Path, bundle: Bundle, rows: Sequence[Row]) -> None:
    """F1 per unit, and the reliability curve."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = [row for row in rows if not row.failed]
    figure = Figure(figsize=(13, 4), layout="constrained")
    bars, curve = figure.subplots(1, 2, width_ratios=(2.4, 1))
    places = np.arange(len(bundle.manifest.units))
    for i, row in enumerate(rows):
        heights = [100 * (value or 0.0) for value in row.units["f1"]]
        bars.bar(places + (i - (len(rows) - 1) / 2) * 0.8 / len(rows), heights, 0.8 / len(rows), label=row.name)
        curve.plot(*zip(*row.reliability), marker="o", markersize=3, label=row.name)
    bars.set_xticks(places, bundle.manifest.units, rotation=45)
    bars.set_ylabel("F1, %")
    bars.legend()
    curve.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    curve.set_xlabel("predicted probability")
    curve.set_ylabel("share of active units")
    figure.savefig(path, dpi=120)


def _change(row: Row, name: str, at: int) -> str:
    difference = row.differences[name][at] if row.differences is not None else None
    if difference is None:
        return ""
    value, low, high = (100 * share for share in difference)
    return f"{value:+.2f}" if np.isnan(low) else f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
