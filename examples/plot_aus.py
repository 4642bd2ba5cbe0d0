"""Action units over time: vlfau-stream talk.mp4 --csv talk.csv, then python examples/plot_aus.py talk.csv talk.png"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ACTIVE, REST = "#0f766e", "#cbd5e1"


def main(table: str, picture: str, face: str | None = None) -> None:
    with open(table, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["success"] == "1"]
    if not rows:
        sys.exit(f"{table} has no rows with action units.")
    face = face or max(
        {row["face_id"] for row in rows}, key=[row["face_id"] for row in rows].count
    )  # the most frequent
    rows = [row for row in rows if row["face_id"] == face]
    units = [name[:-2] for name in rows[0] if name.endswith("_r")]
    seconds = np.array([float(row["timestamp"]) for row in rows])

    figure, axes = plt.subplots(len(units), 1, sharex=True, figsize=(10, 0.42 * len(units) + 1), layout="constrained")
    for axis, unit in zip(np.atleast_1d(axes), units):
        probability = np.array([float(row[f"{unit}_r"]) / 5 for row in rows])  # _r is 5 * probability
        on = np.array([row[f"{unit}_c"] == "1" for row in rows])
        axis.fill_between(seconds, probability, color=REST, linewidth=0)
        axis.fill_between(seconds, probability, where=on, color=ACTIVE, linewidth=0)
        axis.set(ylim=(0, 1.05), xlim=(seconds[0], seconds[-1]), yticks=[])
        axis.set_ylabel(unit, rotation=0, ha="right", va="center")
        axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_xlabel("seconds")
    figure.suptitle(f"face {face}: probability of each action unit, dark where it is on")
    figure.savefig(picture, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
