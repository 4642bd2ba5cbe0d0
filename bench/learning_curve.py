"""What more training bought: figures over images seen and hours, from one or more runs.

    python bench/learning_curve.py runs/first runs/second [--plot FILE.png]
    python bench/learning_curve.py runs/... --data SHARDS [--shared FOLDER] [--output DIR]

Runs that continue each other (`vlfau-train --start-from`) are listed in order and add up. Copies of a run folder that
were made during training come before it: their weights are points on the way. F1 on the run's own test images, at a
probability of 0.5, comes from its logs. With --data the last weights of every folder are scored as in `ablation.py`: on
subjects that no run saw and, with --shared, on the real clips. Scores are stored in --output. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measuring.facts import about, heading, table
from measuring.judging import FIGURES, judge, three_digits

from vlfau.models.errors import UserError
from vlfau.models.training.run_folder import RunFolder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of vlfau-train, in the order of training")
    parser.add_argument(
        "--data", type=Path, help="score every folder's last weights on held-out subjects of these shards"
    )
    parser.add_argument("--shared", type=Path, help="folder with real/score.py and its clips")
    parser.add_argument("--output", type=Path, default=Path("runs/curve"), help="for the scores (runs/curve)")
    parser.add_argument("--plot", type=Path, help="draw the curve to this file")
    options = parser.parse_args()
    try:
        logged, ends = curve(options.runs)
        judged = [scored_once(end, options) for end in ends] if options.data else []
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not logged:
        print("None of these runs has finished an epoch with a test, so there is no curve.", file=sys.stderr)
        return 2
    facts = about()
    print(heading(facts))
    shown = [(*place(row), f"{row['loss_au']:.3f}", f"{row['f1']:.3f}") for row in logged]
    print(table([("run", "images seen", "hours", "loss", "test F1"), *shown]))
    if judged:
        measured = [(*place(row), *(three_digits(row[key]) for key in FIGURES)) for row in judged]
        print("\nScores of the weights at the end of each folder\n")
        print(table([("run", "images seen", "hours", *FIGURES.values()), *measured]))
    if options.plot:
        draw(logged, judged, options.plot)
        print(f"wrote {options.plot}")
    print(json.dumps({**facts, "curve": logged, "judged": judged}))
    return 0


def curve(runs: list[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row per tested epoch, and one per folder at its end; images and hours count from the start of the first run."""
    logged: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    before, end, config = (0, 0.0), (0, 0.0), None
    for folder in runs:
        run = RunFolder(folder)
        if run.config() != config:  # another run, not a later copy of the same one
            before, config = end, run.config()
        for row in run.rows("epoch"):
            images, hours = before[0] + row["images"], before[1] + row["elapsed_s"] / 3600
            if "test_f1" in row and (not logged or images > logged[-1]["images"]):
                at = {"run": folder.name, "images": images, "hours": hours}
                logged.append({**at, "loss_au": row["loss_au"], "f1": row["test_f1"]})
            end = images, hours
        ends.append({"run": folder.name, "folder": folder, "images": end[0], "hours": end[1]})
    return logged, ends


def scored_once(end: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """FIGURES at the end of a folder, computed or read from --output."""
    row = {key: end[key] for key in ("run", "images", "hours")}
    done = options.output / f"{end['run']}.json"
    if not done.is_file():
        options.output.mkdir(parents=True, exist_ok=True)
        figures = judge(end["folder"], options.output / end["run"], options.data, options.shared)
        done.write_text(json.dumps(figures) + "\n", encoding="utf-8")
        print(
            end["run"], *(f"{name} {three_digits(figures[key])}" for key, name in FIGURES.items()), sep=", ", flush=True
        )
    return {**row, **json.loads(done.read_text(encoding="utf-8"))}


def place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["run"], f"{row['images']:,}", f"{row['hours']:.2f}"


def draw(logged: list[dict[str, Any]], judged: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["images"] / 1000 for row in logged], [row["f1"] for row in logged], ".-", label="F1 renders, logged")
    for key, name in FIGURES.items():
        rows = [row for row in judged if row[key] is not None]
        if rows:
            axes.plot([row["images"] / 1000 for row in rows], [row[key] for row in rows], "o-", label=name)
    axes.set(xlabel="images seen, thousands", ylim=(0, 1))
    above = axes.secondary_xaxis("top")
    ticks = logged[:: max(1, len(logged) // 6)]
    above.set_xticks([row["images"] / 1000 for row in ticks], [f"{row['hours']:.2f}" for row in ticks])
    above.set_xlabel("hours of training")
    figure.legend(loc="outside right upper", frameon=False)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
