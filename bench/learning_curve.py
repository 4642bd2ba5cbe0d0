"""What more training bought: figures over pictures seen and hours, from one or more runs.

    python bench/learning_curve.py runs/first runs/second [--plot FILE.png]
    python bench/learning_curve.py runs/... --data SHARDS [--shared FOLDER] [--output DIR]

Runs that began with each other's weights (`vlfau-train --start-from`) are given in their order and add up. Copies of a
run folder, made while it trained, stand before it: their weights are points on the way. From the logs comes F1 on the
pictures that the run tested on, at a probability of 0.5. With --data the last weights of every folder are judged as
`ablation.py` judges: on people whom none of them saw and, with --shared, on the real clips. What was judged is kept in
--output. One JSON line last.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measuring.facts import about, heading, table
from measuring.judging import FIGURES, judge, told

from vlfau.models.errors import UserError
from vlfau.models.training.run_folder import RunFolder


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", type=Path, help="run folders of vlfau-train, in the order of training")
    made.add_argument("--data", type=Path, help="judge every folder's last weights on these shards' held-out people")
    made.add_argument("--shared", type=Path, help="folder that holds real/score.py and its clips")
    made.add_argument("--output", type=Path, default=Path("runs/curve"), help="for what was judged (runs/curve)")
    made.add_argument("--plot", type=Path, help="also draw the curve")
    options = made.parse_args()
    try:
        logged, ends = curve(options.runs)
        judged = [judged_once(end, options) for end in ends] if options.data else []
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if not logged:
        print("None of these runs has finished an epoch with a test: nothing to draw.", file=sys.stderr)
        return 2
    facts = about()
    print(heading(facts))
    shown = [(*place(row), f"{row['loss_au']:.3f}", f"{row['f1']:.3f}") for row in logged]
    print(table([("run", "pictures seen", "hours", "loss", "test F1"), *shown]))
    if judged:
        measured = [(*place(row), *(told(row[key]) for key in FIGURES)) for row in judged]
        print("\nJudged by the weights at that point\n")
        print(table([("run", "pictures seen", "hours", *FIGURES.values()), *measured]))
    if options.plot:
        draw(logged, judged, options.plot)
        print(f"wrote {options.plot}")
    print(json.dumps({**facts, "curve": logged, "judged": judged}))
    return 0


def curve(runs: list[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row per tested epoch, and one per folder where it ends; pictures and hours count from the first run's start."""
    logged: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    before, end, config = (0, 0.0), (0, 0.0), None
    for folder in runs:
        run = RunFolder(folder)
        if run.config() != config:  # another run, no later copy of the same one
            before, config = end, run.config()
        for row in run.rows("epoch"):
            images, hours = before[0] + row["images"], before[1] + row["elapsed_s"] / 3600
            if "test_f1" in row and (not logged or images > logged[-1]["images"]):
                at = {"run": folder.name, "images": images, "hours": hours}
                logged.append({**at, "loss_au": row["loss_au"], "f1": row["test_f1"]})
            end = images, hours
        ends.append({"run": folder.name, "folder": folder, "images": end[0], "hours": end[1]})
    return logged, ends


def judged_once(end: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """FIGURES at the end of a folder; read, where that is done."""
    row = {key: end[key] for key in ("run", "images", "hours")}
    done = options.output / f"{end['run']}.json"
    if not done.is_file():
        options.output.mkdir(parents=True, exist_ok=True)
        figures = judge(end["folder"], options.output / end["run"], options.data, options.shared)
        done.write_text(json.dumps(figures) + "\n", encoding="utf-8")
        print(end["run"], *(f"{name} {told(figures[key])}" for key, name in FIGURES.items()), sep=", ", flush=True)
    return {**row, **json.loads(done.read_text(encoding="utf-8"))}


def place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["run"], f"{row['images']:,}", f"{row['hours']:.2f}"


def draw(logged: list[dict[str, Any]], judged: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["images"] / 1000 for row in logged], [row["f1"] for row in logged], ".-", label="F1 renders, logged")
    for key, name in FIGURES.items():
        known = [row for row in judged if row[key] is not None]
        if known:
            axes.plot([row["images"] / 1000 for row in known], [row[key] for row in known], "o-", label=name)
    axes.set(xlabel="pictures seen, thousands", ylim=(0, 1))
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
