"""`vlfau-calibrate`: what is fitted after training, INT8 ranges and decisions, and the report about both."""

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
from vlfau.models.settings import add_flags, read
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
    made = argparse.ArgumentParser(
        prog="vlfau-calibrate",
        description="Fit what comes after training: INT8 ranges, thresholds and temperatures.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = made.add_subparsers(dest="what", required=True)
    for name in ("int8", "fp8"):
        part = parts.add_parser(name, help=f"write encoder.{name}.onnx into the bundle")
        part.add_argument("bundle", help="a folder written by vlfau-export")
        part.add_argument("--pictures", type=Path, required=True, help="folder, list of paths, video, or shards")
        part.add_argument("--count", type=int, default=256, help="crops to use (default: 256)")
        part.add_argument("--observer", default="percentile", choices=OBSERVERS, help="(default: percentile)")
        part.add_argument(
            "--allow", type=float, default=0.02, help="mean change of a unit's probability (default: 0.02)"
        )
        part.add_argument("--leave", nargs="*", default=[], metavar="LAYER", help="layers to leave in float")
    decisions = parts.add_parser("decisions", help="fit a temperature and a threshold per unit")
    decisions.add_argument("bundle", help="a folder written by vlfau-export")
    decisions.add_argument("--precision-wanted", type=float, help="instead of best F1: this precision per unit")
    decisions.add_argument("--prior", type=float, nargs="+", help="share of active frames where it will be used")
    report = parts.add_parser("report", help="compare the precisions of a bundle")
    report.add_argument("bundle", help="a folder written by vlfau-export, or 'embedded'")
    report.add_argument("--output", type=Path, default=Path("calibration-report"))
    report.add_argument("--variants", nargs="+", help="RUNTIME:PRECISION, the first is the reference")
    for part in (decisions, report):
        part.add_argument("--count", type=int, default=2000, help="pictures to use at most (default: 2000)")
        add_flags(part, DataChoice, title="labelled data")
    return made


def _quantise(bundle: Bundle, options: argparse.Namespace) -> None:
    import onnx

    from vlfau.models.runtimes.half_precision import to_single

    from .pictures import crops
    from .quantise import layers, log_odds, observe, quantise
    from .search import probability_loss, search

    if options.count < 2:
        raise UserError(f"One half of the pictures gives the ranges, the other judges: {options.count} is too few.")
    model = onnx.load(str(bundle.path("encoder.onnx")))
    if bundle.manifest.precision != "fp32":
        model = to_single(model)
    pictures = crops(options.pictures, bundle.manifest.side, options.count)
    fit, hold = pictures[::2], pictures[1::2]  # ranges from one half, the search judges on the other
    limits = observe(model, fit, options.observer)
    if options.what == "fp8":  # ONNX Runtime cannot run it, so there is nothing to search with
        made = quantise(model, limits, kind="fp8", leave=options.leave)
        written = add_encoder(bundle, "fp8", made, {"observer": options.observer, "crops": len(fit)})
        print(f"Written: {written.folder / 'encoder.fp8.onnx'}. Not verified: only TensorRT on a GPU can run it.")
        return
    found = search(model, limits, probability_loss(log_odds(model, hold), hold), options.allow, leave=options.leave)
    total = len(layers(model))
    print(f"{total - len(found.left)} of {total} products in INT8, ranges from {len(fit)} crops ({options.observer}).")
    for name, worst in found.trail:
        print(f"  left in float: {name}, then the worst unit changes by {worst:.4f}")
    for unit, lost in zip(bundle.manifest.units, found.loss):
        print(f"  {unit} changes by {lost:.4f} on average")
    facts = {
        "observer": options.observer,
        "crops": len(pictures),
        "left": list(found.left),
        "harm": found.harm,
        "trail": [list(step) for step in found.trail],
        "mean_change": dict(zip(bundle.manifest.units, found.loss)),
    }
    written = add_encoder(bundle, "int8", found.model, facts)
    print(f"Written: {written.folder / 'encoder.int8.onnx'}, in the manifest and used where INT8 is fastest.")
    print(json.dumps({"left": list(found.left), "worst_change": max(found.loss)}))


def add_encoder(bundle: Bundle, kind: str, model: Any, facts: dict[str, Any]) -> Bundle:
    """Into the bundle, proven where a CPU can; a graph that fails its self-test is taken out again."""
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
    made = open_bundle(bundle.folder)
    try:
        if kind == "int8":
            open_runtime(made, "onnxruntime", precision=kind).close()
    except BaseException:
        (bundle.folder / name).unlink()
        selftest.write_bytes(before)
        write_manifest(bundle.folder, bundle.manifest)
        raise
    return made


def _decisions(bundle: Bundle, options: argparse.Namespace) -> None:
    from .decisions import Wanted, fit_decisions
    from .pictures import labelled

    data = labelled(read(DataChoice, None, options), bundle.manifest, options.count)
    with open_runtime(bundle, "openvino", precision="fp32") as runtime:
        log_odds = np.concatenate(
            [runtime.predict(data.crops[i : i + 16]).log_odds for i in range(0, len(data.crops), 16)]
        )
    prior = tuple(options.prior) if options.prior else None
    found = fit_decisions(log_odds, data.labels, data.subjects, Wanted(options.precision_wanted, prior))
    print(
        "| AU | temperature | threshold | F1 before | after | ECE before | after | |\n|---|---|---|---|---|---|---|---|"
    )
    columns = (found.before.unit_f1, found.after.unit_f1, found.before.unit_ece, found.after.unit_ece)
    for unit, t, cut, note, *shares in zip(
        bundle.manifest.units, found.temperatures, found.thresholds, found.notes, *columns
    ):
        told = " | ".join("" if share is None else f"{100 * share:.1f}" for share in shares)
        print(f"| {unit} | {t:.2f} | {cut:.2f} | {told} | {note} |")
    found.write(bundle, data.source)
    print(f"Written into {bundle.folder}/manifest.json; the figures are of subjects that were not fitted on.")
    after = {"f1": [found.before.f1, found.after.f1], "ece": [found.before.ece, found.after.ece]}
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
