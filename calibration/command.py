"""`vlfau-calibrate`: fits INT8 ranges, temperatures and thresholds after training, and reports on both."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlfau.models.bundle import Bundle, open_bundle, write_manifest
from vlfau.models.data import DataChoice
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime
from vlfau.models.settings import add_flags, finite, read
from vlfau.models.terminal import command

from .observers import OBSERVERS

EPILOG = """examples:
  vlfau-calibrate int8 bundles/mine --pictures crops/        INT8 from a folder of crops, a list, a video or shards
  vlfau-calibrate decisions bundles/mine --data DISFA        a temperature and a threshold per action unit
  vlfau-calibrate report bundles/mine --data DISFA           F1, AUC, ECE, time and size per precision
"""


@command("vlfau-calibrate")
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    work = {"int8": _quantise, "fp8": _quantise, "decisions": _decisions, "report": _report}
    work[options.what](open_bundle(options.bundle), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlfau-calibrate",
        description="Fit INT8 ranges, thresholds and temperatures after training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("int8", "fp8"):
        quantise = commands.add_parser(name, help=f"write encoder.{name}.onnx into the bundle")
        quantise.add_argument("bundle", help="a folder written by vlfau-export")
        quantise.add_argument("--pictures", type=Path, required=True, help="folder, list of paths, video, or shards")
        quantise.add_argument("--count", type=int, default=256, help="crops to use (default: 256)")
        quantise.add_argument(
            "--observer", default="percentile", choices=OBSERVERS, help="how ranges are chosen (default: percentile)"
        )
        quantise.add_argument(
            "--allow", type=finite, default=0.02, help="largest mean change of a unit's probability (default: 0.02)"
        )
        quantise.add_argument("--leave", nargs="*", default=[], metavar="LAYER", help="layers to leave in float")
    decisions = commands.add_parser("decisions", help="fit a temperature and a threshold per unit")
    decisions.add_argument("bundle", help="a folder written by vlfau-export")
    decisions.add_argument("--precision-wanted", type=finite, help="reach this precision per unit, instead of best F1")
    decisions.add_argument(
        "--prior", type=finite, nargs="+", help="share of active frames in use, for all units or one per unit"
    )
    report = commands.add_parser("report", help="compare the precisions of a bundle")
    report.add_argument("bundle", help="a folder written by vlfau-export, or 'embedded'")
    report.add_argument(
        "--output", type=Path, default=Path("calibration-report"), help="folder (default: calibration-report)"
    )
    report.add_argument("--variants", nargs="+", help="RUNTIME:PRECISION; the first is the reference")
    for fitted in (decisions, report):
        fitted.add_argument("--count", type=int, default=2000, help="images to use at most (default: 2000)")
        add_flags(fitted, DataChoice, title="labelled data")
    return parser


def _quantise(bundle: Bundle, options: argparse.Namespace) -> None:
    import onnx

    from vlfau.models.runtimes.half_precision import to_single

    from .pictures import crops
    from .quantise import layers, log_odds, observe, quantise
    from .search import probability_loss, search

    if options.count < 2:
        raise UserError(
            f"--count must be at least 2: half of the images sets the ranges, half checks them; got {options.count}."
        )
    model = onnx.load(str(bundle.path("encoder.onnx")))
    if bundle.manifest.precision != "fp32":
        model = to_single(model)
    images = crops(options.pictures, bundle.manifest.side, options.count)
    fit, held_out = images[::2], images[1::2]
    limits = observe(model, fit, options.observer)
    if options.what == "fp8":  # ONNX Runtime cannot run it, so layers cannot be compared
        quantised = quantise(model, limits, kind="fp8", leave=options.leave)
        written = add_encoder(bundle, "fp8", quantised, {"observer": options.observer, "crops": len(fit)})
        print(f"Written: {written.folder / 'encoder.fp8.onnx'}. Not verified: only TensorRT on a GPU runs it.")
        return
    loss = probability_loss(log_odds(model, held_out), held_out)
    result = search(model, limits, loss, options.allow, leave=options.leave)
    total = len(layers(model))
    print(f"{total - len(result.left)} of {total} products in INT8, ranges from {len(fit)} crops ({options.observer}).")
    for name, worst in result.trail:
        print(f"  left in float: {name}; then the worst unit changes by {worst:.4f}")
    for unit, lost in zip(bundle.manifest.units, result.loss):
        print(f"  {unit} changes by {lost:.4f} on average")
    facts = {
        "observer": options.observer,
        "crops": len(images),
        "left": list(result.left),
        "harm": result.harm,
        "trail": [list(step) for step in result.trail],
        "mean_change": dict(zip(bundle.manifest.units, result.loss)),
    }
    written = add_encoder(bundle, "int8", result.model, facts)
    print(f"Written: {written.folder / 'encoder.int8.onnx'}, listed in the manifest and used where INT8 is fastest.")
    print(json.dumps({"left": list(result.left), "worst_change": max(result.loss)}))


def add_encoder(bundle: Bundle, kind: str, model: Any, facts: dict[str, Any]) -> Bundle:
    """Adds a graph to the bundle, checked where a CPU can run it; one that fails its self-test is removed again."""
    import onnx

    from .quantise import log_odds

    name, selftest = f"encoder.{kind}.onnx", bundle.path("selftest.npz")
    stored: dict[str, Any] = bundle.selftest()
    before = selftest.read_bytes()
    onnx.save(model, bundle.folder / name)
    if kind == "int8":
        stored["log_odds_int8"] = log_odds(model, stored["crops"])
        np.savez(selftest, **stored)
    manifest = replace(
        bundle.manifest,
        files={**bundle.manifest.files, name: ""},
        provenance=bundle.manifest.provenance | {kind: facts},
    )
    write_manifest(bundle.folder, manifest)
    reopened = open_bundle(bundle.folder)
    try:
        if kind == "int8":
            open_runtime(reopened, "onnxruntime", precision=kind).close()
    except BaseException:
        (bundle.folder / name).unlink()
        selftest.write_bytes(before)
        write_manifest(bundle.folder, bundle.manifest)
        raise
    return reopened


def _decisions(bundle: Bundle, options: argparse.Namespace) -> None:
    from .decisions import Goal, fit_decisions
    from .pictures import labelled

    data = labelled(read(DataChoice, None, options), bundle.manifest, options.count)
    with open_runtime(bundle, "openvino", precision="fp32") as runtime:
        log_odds = np.concatenate(
            [runtime.predict(data.crops[i : i + 16]).log_odds for i in range(0, len(data.crops), 16)]
        )
    prior = tuple(options.prior) if options.prior else None
    fitted = fit_decisions(log_odds, data.labels, data.subjects, Goal(options.precision_wanted, prior))
    print(
        "| AU | temperature | threshold | F1 before | after | ECE before | after | |\n|---|---|---|---|---|---|---|---|"
    )
    columns = (fitted.before.unit_f1, fitted.after.unit_f1, fitted.before.unit_ece, fitted.after.unit_ece)
    for unit, t, cut, note, *shares in zip(
        bundle.manifest.units, fitted.temperatures, fitted.thresholds, fitted.notes, *columns
    ):
        cells = " | ".join("" if share is None else f"{100 * share:.1f}" for share in shares)
        print(f"| {unit} | {t:.2f} | {cut:.2f} | {cells} | {note} |")
    fitted.write(bundle, data.source)
    print(f"Written to {bundle.folder}/manifest.json; the figures are for subjects that were not fitted on.")
    after = {"f1": [fitted.before.f1, fitted.after.f1], "ece": [fitted.before.ece, fitted.after.ece]}
    print(json.dumps(after))


def _report(bundle: Bundle, options: argparse.Namespace) -> None:
    from .pictures import labelled
    from .report import compare, usual_variants, write

    data = labelled(read(DataChoice, None, options), bundle.manifest, options.count)
    chosen, notes = usual_variants(bundle)
    if options.variants:
        variants = [tuple(one.split(":", 1)) for one in options.variants]
        if any(len(one) != 2 for one in variants):
            raise UserError(f"A variant is RUNTIME:PRECISION, such as openvino:int8; got {' '.join(options.variants)}.")
        chosen, notes = [(one[0], one[1]) for one in variants], []
    rows = compare(bundle, data, chosen)
    print(write(options.output, bundle, data, rows, notes).read_text(encoding="utf-8"))
    facts = {row.name: {"f1": row.f1, "auc": row.auc, "ece": row.ece, "ms": row.ms} for row in rows}
    print(json.dumps({"bundle": bundle.manifest.name, "checksum": bundle.checksum, "rows": facts}))


if __name__ == "__main__":
    sys.exit(main())
