"""What more training bought: F1 on held-out people over pictures seen and hours, from the logs of one or more runs.

    python bench/learning_curve.py runs/first runs/second [--plot FILE.png]

Runs that began with each other's weights (`vlfau-train --start-from`) are given in their order and add up. F1 is at a
probability of 0.5, before decisions are calibrated, on the pictures that the run tested on. One JSON line last.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from facts import about, heading, table


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", type=Path, help="run folders of vlfau-train, in the order of training")
    made.add_argument("--plot", type=Path, help="also draw the curve")
    options = made.parse_args()
    rows = curve(options.runs)
    if not rows:
        print("None of these runs has finished an epoch with a test: nothing to draw.", file=sys.stderr)
        return 2
    facts = about()
    print(heading(facts))
    shown = [(r["run"], f"{r['images']:,}", f"{r['hours']:.2f}", f"{r['loss_au']:.3f}", f"{r['f1']:.3f}") for r in rows]
    print(table([("run", "pictures seen", "hours", "loss", "test F1"), *shown]))
    if options.plot:
        draw(rows, options.plot)
        print(f"wrote {options.plot}")
    print(json.dumps({**facts, "curve": rows}))
    return 0


def curve(runs: list[Path]) -> list[dict[str, Any]]:
    """One row per tested epoch; pictures and hours count from the first run's first step."""
    rows: list[dict[str, Any]] = []
    images, hours = 0, 0.0
    for run in runs:
        path = run / "metrics.jsonl"
        if not path.is_file():
            sys.exit(f"{path} is missing: {run} is no run folder of vlfau-train.")
        epochs = [
            row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if row["kind"] == "epoch"
        ]
        for row in epochs:
            if "test_f1" in row:
                at = {"images": images + row["images"], "hours": hours + row["elapsed_s"] / 3600}
                rows.append({"run": run.name, **at, "loss_au": row["loss_au"], "f1": row["test_f1"]})
        if epochs:
            images, hours = images + epochs[-1]["images"], hours + epochs[-1]["elapsed_s"] / 3600
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["images"] / 1000 for row in rows], [row["f1"] for row in rows], "o-", color="#0a7d70")
    axes.set(xlabel="pictures seen, thousands", ylabel="mean F1 on held-out people", ylim=(0, None))
    above = axes.secondary_xaxis("top")
    ticks = rows[:: max(1, len(rows) // 6)]
    above.set_xticks([row["images"] / 1000 for row in ticks], [f"{row['hours']:.1f}" for row in ticks])
    above.set_xlabel("hours of training")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
