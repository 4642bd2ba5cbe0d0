"""How well a bundle follows real faces: the engine plays the clips, and the reference's `score.py` scores them.

    python bench/real_faces.py --shared FOLDER [--model embedded] [--output DIR] [--write | --brief]

Plays every clip in `FOLDER/real` through `vlfau-stream`, without the neutral baseline and with it, and scores the
reports with `FOLDER/real/score.py`. Stills of faces at rest, as the reference sees them, are played, too: units that
are on in them are false alarms. Real faces are for measuring only; nothing is fitted on them. `--brief` skips the
baseline and the stills. The last line is JSON.

`--write` stores the results in the bundle's manifest: the figures, the tiers that follow from them (SOLID and FAIR
below; a unit without a reference signal stays experimental), and the baseline if it scored better.
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring.facts import about, heading, table
from measuring.shared_folder import add_flag, require
from numpy.typing import NDArray

from vlfau.models.bundle import Bundle, open_bundle, write_manifest
from vlfau.models.errors import UserError

Scores = dict[str, Any]  # the last line of score.py

# A still is at rest when every blendshape is below REST except these, which resting faces show too.
REST, SHOWN_AT_REST = 0.3, ("_neutral", "eyeLook", "eyeBlink", "eyeSquint")
ABSENT = 0.1  # of a unit's signal, as score.py takes it from the mesh
BASELINE_S = 5.0
SOLID, FAIR = (0.95, 0.6), (0.85, 0.3)  # least AUC and within-clip correlation of a unit of this tier
CLIPS = 3  # in which a unit must move to have a tier


def main() -> int:
    options = _parser().parse_args()
    try:
        real = require(options.shared, "real/score.py") / "real"
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    facts = about()
    print(heading(facts))
    scores: list[Scores] = []
    with tempfile.TemporaryDirectory() as scratch:
        output = options.output or Path(scratch)
        for name, seconds in (("off", 0.0),) if options.brief else (("off", 0.0), ("on", BASELINE_S)):
            reports = output / f"baseline-{name}"
            reports.mkdir(parents=True, exist_ok=True)
            for clip in sorted((real / "clips").iterdir()):
                stream(clip, reports / f"{clip.stem}.jsonl", options.model, seconds)
            print(f"\nNeutral baseline {name}" + (f" ({seconds:g} s)" if seconds else ""))
            scores.append(score(real / "score.py", reports))
        if options.brief:
            print(json.dumps({**facts, "baseline_off": scores[0]}))
            return 0
        off, on = scores
        better = max((off, on), key=lambda scores: scores["core_auc"] + scores["core_within"] + scores["core_pooled"])
        tiers = {unit: tier(row) for unit, row in better["aus"].items()}
        print("\nTiers: " + ", ".join(f"{unit} {name}" for unit, name in tiers.items()))
        alarms = false_alarms(real, output / "stills", options.model)
        print("\nOn in stills, baseline off")
        print(table([("unit", "in faces at rest", "where the unit is absent"), *alarms]))
    figures = {"baseline_off": off, "baseline_on": on, "false_alarms": {unit: shares for unit, *shares in alarms}}
    if options.write:
        write(open_bundle(options.model), tiers, BASELINE_S if better is on else 0.0, facts | figures)
    print(json.dumps({**facts, **figures, "tiers": tiers}))
    return 0


def stream(source: Path, reports: Path, model: str, baseline_s: float) -> None:
    command = [sys.executable, "-m", "vlfau.engine.commands.stream", str(source), "--jsonl", str(reports)]
    command += ["--model", model, "--baseline", str(baseline_s), "--explain", "never", "--bind", "none", "--quiet"]
    done = subprocess.run([*command, "--runtime", "openvino"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"vlfau-stream failed on {source.name}: {done.stderr.strip()}")


def score(script: Path, reports: Path) -> Scores:
    done = subprocess.run([sys.executable, script, "--reports", reports], capture_output=True, text=True, check=True)
    *lines, last = done.stdout.strip().splitlines()
    print("\n".join(lines))
    scores: Scores = json.loads(last)
    return scores


def tier(row: dict[str, float]) -> str:
    for name, (area, within) in (("solid", SOLID), ("fair", FAIR)):
        # a figure that is not a number fails the comparison
        if row["clips"] >= CLIPS and row["auc"] >= area and row["within"] >= within:
            return name
    return "experimental"


def write(bundle: Bundle, tiers: dict[str, str], baseline_s: float, figures: dict[str, Any]) -> None:
    keys = {"commit", "date", "baseline_off", "baseline_on", "false_alarms"}
    changed = replace(
        bundle.manifest,
        tiers=tuple(tiers.get(unit, "experimental") for unit in bundle.manifest.units),
        baseline_seconds=baseline_s,
        provenance=bundle.manifest.provenance | {"real_faces": {key: figures[key] for key in sorted(keys)}},
    )
    write_manifest(bundle.folder, changed)


def false_alarms(real: Path, folder: Path, model: str) -> list[tuple[str, str, str]]:
    """(unit, stills at rest, stills without this unit), each as "stills in which it is on/stills"."""
    reference = np.load(real / "reference.npz")
    names = [str(name) for name in reference["blendshape_names"]]
    shapes, mesh = reference["stills.blendshapes"], reference["stills.landmarks"]
    moving = [i for i, name in enumerate(names) if not name.startswith(SHOWN_AT_REST)]
    rest = shapes[:, moving].max(1) < REST
    scoring = runpy.run_path(str(real / "score.py"))
    folder.mkdir(parents=True, exist_ok=True)
    on: dict[str, dict[int, bool]] = {}
    for number, name in enumerate(reference["stills.name"]):
        reports = folder / f"{name}.jsonl"
        stream(next((real / "stills").glob(f"{name}.*")), reports, model, 0.0)
        faces = [
            face for line in reports.read_text(encoding="utf-8").splitlines() for face in json.loads(line)["faces"]
        ]
        faces = [face for face in faces if face["valid"]]
        if faces:
            largest = max(faces, key=lambda face: face["box"][2] - face["box"][0])
            for unit, state in largest["aus"].items():
                on.setdefault(unit, {})[number] = state["on"]
    rows = []
    for unit, states in on.items():
        seen = "-"
        if unit in scoring["SIGNALS"]:
            seen = _share(states, scoring["signal"](unit, shapes, names, mesh) < ABSENT)
        rows.append((unit, _share(states, rest), seen))
    return rows


def _share(states: dict[int, bool], chosen: NDArray[np.bool_]) -> str:
    among = [state for number, state in states.items() if chosen[number]]
    return f"{sum(among)}/{len(among)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="folder of a bundle (default: embedded)")
    add_flag(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help="store figures, tiers and baseline in the manifest")
    either.add_argument("--brief", action="store_true", help="clips only, without the baseline")
    parser.add_argument("--output", type=Path, help="folder to keep the reports in")
    return parser


if __name__ == "__main__":
    sys.exit(main())
