"""Accuracy of the embedded bundle, or any other, on any labelled layout: per action unit and per precision.

    python bench/accuracy.py --data SHARDS                    the embedded bundle, in every precision of this machine
    python bench/accuracy.py mine mine-int8 --data DISFA --layout graphau
    python bench/accuracy.py mine --variants openvino:fp32 openvino:int8 --data list.csv

Data is opened as for `vlfau-evaluate` (the part that training held out; folds for BP4D and DISFA) and scored by the
same code: F1 and AUC as means over units, ECE over all of them, differences to the first row with a paired bootstrap
over subjects. Units missing on either side are skipped and listed. Faithful: the share of unit sentences that match the
decided state, and of face sentences that name exactly the decided units. Tokens: those of the true sentences, each
predicted from the true ones before it, by the torch weights in the bundle. False alarms: units decided active in images
in which none is labelled (--neutral adds a folder of such images without labels). The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from measuring.facts import about, heading, table
from numpy.typing import NDArray

from vlfau.calibration.intervals import Predictions, differences
from vlfau.calibration.pictures import crops
from vlfau.calibration.report import usual_variants
from vlfau.models import metrics
from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.data import DataChoice, open_data, unseen
from vlfau.models.data.samples import Points, Samples
from vlfau.models.errors import UserError
from vlfau.models.evaluation.protocol import PartPredictions, score
from vlfau.models.evaluation.reader import BundleReader
from vlfau.models.evaluation.run import run_through
from vlfau.models.runtimes.rewriting import in_half
from vlfau.models.settings import add_flags, read

ENOUGH = 0.5  # of the units must be labelled for an image without an active one to count as neutral

SENTENCES = {
    "local_token_accuracy": "unit tokens",
    "global_token_accuracy": "face tokens",
    "local_faithful": "faithful unit sentences",
    "global_faithful": "faithful face sentences",
}


class Widened:
    """Samples under another list of units; the labels of units that they do not code are unknown."""

    def __init__(self, samples: Samples, units: tuple[str, ...]) -> None:
        self._samples, self.units = samples, units
        self.labels = np.full((len(samples), len(units)), -1, np.int8)
        self.intensity = np.full((len(samples), len(units)), np.nan, np.float32)
        for place, unit in enumerate(units):
            if unit in samples.units:
                column = samples.units.index(unit)
                self.labels[:, place], self.intensity[:, place] = (
                    samples.labels[:, column],
                    samples.intensity[:, column],
                )
        self.subjects, self.subject_names, self.blocks = samples.subjects, samples.subject_names, samples.blocks
        self.descriptions = samples.descriptions

    def __len__(self) -> int:
        return len(self._samples)

    def crop(self, index: int, epoch: int = 0) -> NDArray[np.uint8]:
        return self._samples.crop(index, epoch)

    def points(self, index: int, epoch: int = 0) -> Points:
        return self._samples.points(index, epoch)

    def face(self, index: int) -> int:
        return self._samples.face(index)


def held_out(choice: DataChoice, side: int, units: tuple[str, ...]) -> tuple[Samples, list[str]]:
    """The part that training held out, under the network's units, and notes about it."""
    part = next(iter(open_data(choice, side, report=lambda _: None)))
    if part.test is None or not len(part.test):
        raise UserError(f"{choice.data} has no test part, because nothing is held out. Set --hold-out above 0.")
    both = [unit for unit in units if unit in part.test.units]
    if not both:
        raise UserError(
            f"{choice.data} codes {' '.join(part.test.units)}; the bundle has none of these units. Use other data."
        )
    notes = [f"tested on {part}"]
    if missing := [unit for unit in units if unit not in both]:
        notes.append(f"not coded in the data: {' '.join(missing)}")
    if unknown := [unit for unit in part.test.units if unit not in units]:
        notes.append(f"not in the bundle: {' '.join(unknown)}")
    return Widened(part.test, units), notes


def fitted_on(choice: DataChoice, provenance: dict[str, Any]) -> list[str]:
    """A note if the thresholds were fitted on the same data."""
    decisions = provenance.get("decisions", {})
    if choice.data is None or decisions.get("source") != choice.data.name:
        return []
    return [
        f"thresholds were fitted on half of these subjects; on the others F1 is {percent(decisions['after']['f1'])} %"
    ]


def false_alarms(outcome: PartPredictions) -> dict[str, Any]:
    """Units decided active in images in which no unit is labelled active."""
    labelled = (outcome.labels >= 0).mean(1) >= min(ENOUGH, (outcome.labels >= 0).mean(1).max(initial=0))
    return alarms(outcome.states[labelled & (outcome.labels >= 0).any(1) & (outcome.labels <= 0).all(1)], outcome.units)


def alarms(states: NDArray[np.bool_], units: Sequence[str]) -> dict[str, Any]:
    """states (n, A) of n images without an active unit."""
    if not len(states):
        return {"pictures": 0, "any": None, "units_each": None, "units": {}}
    return {
        "pictures": len(states),
        "any": float(states.any(1).mean()),  # share of images with at least one
        "units_each": float(states.sum(1).mean()),
        "units": dict(zip(units, states.mean(0).round(4).tolist())),
    }


def row_of(outcome: PartPredictions, first: PartPredictions | None) -> dict[str, Any]:
    """Figures of one bundle in one precision; None where there is nothing to measure."""
    scores = score(outcome)
    for place, unit in enumerate(outcome.units):
        error = metrics.calibration_error(outcome.labels[:, [place]], outcome.probabilities[:, [place]])
        scores["units"][unit]["ece"] = float(error) if np.isfinite(error) else None
    sentences = scores["captions"] or {}
    row = {key: scores[key] for key in ("f1", "f1_interval_95", "auc", "pictures", "subjects", "units")}
    row |= {"ece": scores["calibration_error"], "neutral": false_alarms(outcome), "captions": sentences}
    if first is not None:
        compared = differences(outcome.labels, outcome.subjects, _predictions(first), _predictions(outcome))
        row["to_first"] = {name: values[-1] for name, values in compared.items()}
    return row


def _predictions(outcome: PartPredictions) -> Predictions:
    return Predictions(outcome.probabilities, outcome.probabilities, outcome.states)  # AUC depends on the order only


def variants(bundle: Bundle, names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(runtime, precision) pairs, and notes about those that are not available."""
    if not names:
        return usual_variants(bundle)
    pairs = [(runtime, precision) for runtime, _, precision in (one.partition(":") for one in names)]
    if not all(precision for _, precision in pairs):
        raise UserError(f"--variants takes RUNTIME:PRECISION, such as openvino:int8, got {' '.join(names)}.")
    return pairs, []


def measure(options: argparse.Namespace, choice: DataChoice) -> tuple[dict[str, dict[str, Any]], list[str]]:
    rows: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    first: PartPredictions | None = None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlfau-accuracy-")))
        for number, where in enumerate(options.bundle):
            bundle = open_bundle(where)
            chosen, missing = variants(bundle, options.variants)
            provenance = bundle.manifest.provenance
            samples, about_data = held_out(unseen(choice, provenance), bundle.manifest.side, bundle.manifest.units)
            about_data += fitted_on(choice, provenance)
            notes += [note for note in (*about_data, *missing) if note not in notes]
            plain = crops(options.neutral, bundle.manifest.side, options.images) if options.neutral else None
            for runtime, precision in chosen:
                taken = bundle
                if (runtime, precision) == ("onnxruntime", "fp16"):
                    taken = in_half(bundle, folder / f"half{number}")
                try:
                    reader = BundleReader(taken, runtime, precision)
                except UserError as error:
                    notes.append(f"without {runtime} {precision}: {error}")
                    continue
                stack.callback(reader.runtime.close)
                captions = options.caption_images
                outcome = run_through(reader, samples, images=options.images, caption_images=captions)
                first_units = first is not None and first.units == outcome.units
                name = f"{where} {runtime} {precision}" if len(options.bundle) > 1 else f"{runtime} {precision}"
                rows[name] = row_of(outcome, first if first_units else None)
                if plain is not None:
                    rows[name]["neutral_folder"] = alarms(reader.runtime.predict(plain).states, reader.units)
                first = first or outcome
    if not rows:
        raise UserError(f"No precision could be opened. {' '.join(notes)}")
    return rows, notes


def show(rows: dict[str, dict[str, Any]], notes: Sequence[str], facts: dict[str, Any]) -> None:
    print(heading(facts))
    print("\n".join(notes) + "\n")
    lines = [["%", "F1", "95 %", "to first row", "AUC", "ECE", *SENTENCES.values(), "false alarms", "units per image"]]
    for name, row in rows.items():
        low, high = row["f1_interval_95"]
        difference = row.get("to_first", {}).get("f1")
        to_first = "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * x for x in difference)) if difference else ""
        interval = f"{percent(low)} to {percent(high)}"
        sentences = (percent(row["captions"].get(key)) for key in SENTENCES)
        neutral = row["neutral"]
        each = "" if neutral["units_each"] is None else f"{neutral['units_each']:.2f}"
        cells = [percent(row["f1"]), interval, to_first, percent(row["auc"]), percent(row["ece"])]
        lines.append([name, *cells, *sentences, percent(neutral["any"]), each])
    print(table(lines))
    some = next(iter(rows.values()))
    print(f"\n{some['pictures']} images of {some['subjects']} subjects, {some['neutral']['pictures']} of them neutral.")
    for title, key in (("F1", "f1"), ("AUC", "auc"), ("ECE", "ece")):
        by_unit(title, rows, {name: {unit: of[key] for unit, of in row["units"].items()} for name, row in rows.items()})
    by_unit("False alarms in neutral images", rows, {name: row["neutral"]["units"] for name, row in rows.items()})
    for name, row in rows.items():
        if other := row.get("neutral_folder"):
            print(f"{name}: {percent(other['any'])} % of {other['pictures']} images in --neutral have false alarms")


def by_unit(title: str, rows: dict[str, dict[str, Any]], values: dict[str, dict[str, float | None]]) -> None:
    units = next(iter(rows.values()))["units"]
    lines = [[unit, *(percent(values[name].get(unit)) for name in rows)] for unit in units]
    print(f"\n{title} by unit, %\n\n{table([['', *rows], *lines])}")


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="*", default=["embedded"], help="folders written by vlfau-export")
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="RUNTIME:PRECISION", help="default: all that are available"
    )
    parser.add_argument("--images", type=int, default=1000, help="evenly spread (default: 1000)")
    parser.add_argument(
        "--caption-images", type=int, default=100, help="images to describe in sentences (default: 100)"
    )
    parser.add_argument("--neutral", type=Path, metavar="FOLDER", help="images of faces at rest, without labels")
    add_flags(parser, DataChoice, title="data")
    options = parser.parse_args(arguments)
    try:
        choice = read(DataChoice, None, options)
        if choice.data is None:
            raise UserError("Add --data FOLDER, in any layout that vlfau-train reads, or with rendered shards.")
        rows, notes = measure(options, dataclasses.replace(choice, units=()))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    facts = about()
    show(rows, notes, facts)
    print(json.dumps({"bench": "accuracy", **facts, "data": choice.data.name, "notes": notes, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
