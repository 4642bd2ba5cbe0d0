"""The headline figures: time from a frame's capture until a subscriber has its report, and where that time goes.

    python bench/latency.py                      every case with the runtime that `auto` chooses, then with each other
    python bench/latency.py --quick              the same in a few seconds each: under four minutes on two cores
    python bench/latency.py --runtime auto --repeats 5 --json A.json --plots DIR
    python bench/latency.py --compare A.json B.json
    python bench/latency.py --runtime auto --repeats 5 --against OTHER/bin/python

Each case is one `vlfau-stream` process that plays encoded 720p30 clips of 1 to 8 faces on 1 to 4 streams, in real time
(paced) and as fast as it can (unpaced); this process subscribes over TCP as any client would and records when each
message arrives. Capture is when the decoder hands over a frame. The clips are the package's demo clip or --source, side
by side; with --source the case of one face plays that file unchanged. The first two seconds of a run (at most half of
it) are not counted; the longest latency in them is a separate column. Unpaced, frames wait in the queues between the
stages, so latency shows how many wait.

--json stores every latency. Two installations are compared fairly when they take turns: --against does that, or
`for i in 1 2 3 4 5; do A/bin/python bench/latency.py --json A.json --append; B/bin/python ...; done`.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measuring.clips import GRIDS, find_source, write_clip
from measuring.comparison import compare, percentile, quantiles
from measuring.facts import about, heading, table
from measuring.stages import shares
from measuring.streaming import Case, Run, run

from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.runtimes import RUNTIMES

STREAMS = (2, 4)  # in addition to one
QUICK_S, FULL_S = 6.0, 20.0  # of video in each case
QUICK_UNPACED_S = 10.0  # which takes a third of that
QUICK_BUDGET_S = 200.0  # no case starts later, so that even the slowest ends within four minutes
RunsByCase = dict[str, list[Run]]  # by the name of the case, one entry per repeat


def cases(runtimes: Sequence[str], faces: Sequence[int], streams: Sequence[int]) -> list[Case]:
    """One face first, paced and unpaced, because those figures are quoted."""
    plan = [(count, 1) for count in faces] + [(1, count) for count in streams]
    return [Case(name, *place, paced) for name in runtimes for place in plan for paced in (True, False)]


def planned(options: argparse.Namespace, bundle: Bundle) -> list[Case]:
    if options.runtime:
        return cases(options.runtime, options.faces, options.streams)
    faces, streams = (options.faces[:1], []) if options.quick else (options.faces, options.streams)
    return cases(["auto"], options.faces, options.streams) + cases(installed(bundle), faces, streams)


def installed(bundle: Bundle) -> list[str]:
    """Runtimes that this machine can run; prints a line about each that it cannot."""
    from vlfau.models.runtimes.choose import probe

    names = []
    for name, reason in probe(bundle, None, None).items():
        if reason is None or (name == "torch" and find_spec("torch")):  # slow on a CPU, but it runs
            names.append(name)
        else:
            print(f"without {name}: {reason}")
    return names


def measure(options: argparse.Namespace, pythons: Sequence[str]) -> list[RunsByCase]:
    """The runs of each Python's installation. Repeats and installations take turns, so a slow minute affects all."""
    source = find_source(options.source)
    plan = planned(options, open_bundle(options.model))  # a wrong name fails before clips are made
    paced_s = options.seconds or (QUICK_S if options.quick else FULL_S)
    unpaced_s = options.seconds or (QUICK_UNPACED_S if options.quick else FULL_S)
    until = time.monotonic() + (QUICK_BUDGET_S if options.quick else float("inf"))
    results: list[RunsByCase] = [{} for _ in pythons]
    with tempfile.TemporaryDirectory(prefix="vlfau-latency-") as folder:
        clips = {}
        for faces in sorted({case.faces for case in plan}):
            clips[faces] = Path(folder) / f"faces{faces}.mp4"
            if faces == 1 and options.source is not None:
                clips[faces] = source
            else:
                write_clip(clips[faces], source, faces, max(paced_s, unpaced_s))
        for repeat, case in ((repeat, case) for repeat in range(options.repeats) for case in plan):
            if any(same_as_auto(case, runs) for runs in results):
                continue
            if time.monotonic() > until:
                print(f"not run, because --quick is out of time: {case.name}")
                continue
            if sys.stderr.isatty():
                print(f"{case.name}, repeat {repeat + 1} of {options.repeats}", file=sys.stderr)
            try:
                for python, runs in zip(pythons, results):
                    seconds = paced_s if case.paced else unpaced_s
                    done = run(case, clips[case.faces], options.model, seconds, python)
                    runs.setdefault(case.name, []).append(done)
            except UserError as error:
                if options.runtime or case.runtime == "auto":
                    raise
                print(f"without {case.name}: {error}")
    if not all(results):
        raise UserError("No case ran, for the reasons above. Name an available runtime with --runtime NAME.")
    return results


def same_as_auto(case: Case, runs: RunsByCase) -> bool:
    """Whether `auto` chose this runtime, so that its cases have been run."""
    took = {one.runtime.partition(" ")[0] for name, done in runs.items() if name.startswith("auto,") for one in done}
    return case.runtime in took


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """One row: quantiles over the frames of all repeats, sums of what was lost, means of the rest."""
    row: dict[str, Any] = {"fps": float(np.mean([run.fps for run in runs]))}
    row |= quantiles(np.concatenate([run.latencies for run in runs]))
    row["jitter_ms"] = float(np.mean([run.jitter_ms for run in runs]))
    for key in ("dropped", "lost", "frames"):
        row[key] = sum(getattr(run, key) for run in runs)
    for key in ("faces", "cpu_percent", "start_s", "warm_ms", "decode_ms"):
        row[key] = float(np.mean([getattr(run, key) for run in runs]))
    row["peak_mb"] = max(run.peak_mb for run in runs)
    row["stages_ms"] = {stage: float(np.mean([run.stages[stage] for run in runs])) for stage in runs[0].stages}
    return row | {"runtime": runs[0].runtime, "device": runs[0].device}


# Output


def show(rows: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    print(heading(facts))
    columns = {"fps": "fps", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "max_ms": "max"}
    columns |= {"warm_ms": "first 2 s", "jitter_ms": "jitter", "faces": "faces found", "cpu_percent": "CPU %"}
    columns |= {"peak_mb": "MB", "start_s": "start s"}
    counts = ("dropped", "lost", "frames")
    lines = [["case", "runs on", *columns.values(), *counts]]
    for name, row in rows.items():
        figures = (f"{row[key]:.1f}" for key in columns)
        lines.append([name, row["runtime"], *figures, *(str(row[key]) for key in counts)])
    print("Capture to receipt in ms (the longest of the first 2 s in its own column); CPU in percent of one core.\n")
    print(table(lines))
    print("\nMean ms in each stage, waiting included, and its share of the sum; decoding happens before capture.\n")
    stages = list(next(iter(rows.values()))["stages_ms"])
    lines = [["case", *stages, "(decode)"]]
    for name, row in rows.items():
        spent = row["stages_ms"]
        cells = (f"{spent[stage]:.2f} ({share:.0%})" for stage, share in shares(spent).items())
        lines.append([name, *cells, f"{row['decode_ms']:.2f}"])
    print(table(lines))


def headline(rows: dict[str, dict[str, Any]], facts: dict[str, Any], runtime: str) -> dict[str, Any]:
    """The start of the last line: one face with this runtime; None if that case did not run."""
    paced, unpaced = (rows.get(Case(runtime, 1, 1, pace).name, {}) for pace in (True, False))
    quoted = {"bench": "latency", "fps": unpaced.get("fps")}
    quoted |= {key: paced.get(key) for key in ("p50_ms", "p95_ms", "p99_ms")}
    quoted["dropped"] = sum(row["dropped"] for row in rows.values())
    network = next(iter(rows.values()))
    return quoted | facts | {"network_on": network["device"], "runtime": network["runtime"], "rows": rows}


def keep(path: Path, runs: RunsByCase, last: dict[str, Any], append: bool) -> None:
    samples: dict[str, Any] = load(path)["samples"] if append and path.exists() else {}
    for name, new in samples_of(runs).items():
        old = samples.setdefault(name, {"latencies_ms": [], "fps": []})
        for key in old:
            old[key] += new[key]
    path.write_text(json.dumps(last | {"samples": samples}), encoding="utf-8")


def samples_of(runs: RunsByCase) -> dict[str, Any]:
    return {
        name: {
            "latencies_ms": [np.round(one.latencies, 3).tolist() for one in done],
            "fps": [one.fps for one in done],
        }
        for name, done in runs.items()
    }


def load(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = stored["samples"]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}. Name files written by --json.") from None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} holds no latencies. Name files written by --json.") from None
    return stored


def compare_files(first: Path, second: Path) -> dict[str, Any]:
    a, b = load(first), load(second)
    print(f"A: {first}, commit {a['commit']}, {a['device']}\nB: {second}, commit {b['commit']}, {b['device']}\n")
    if a["device"] != b["device"]:
        print("The devices differ, so the ratios depend on them as much as on the program.\n")
    ratios = compare_samples(a["samples"], b["samples"])
    if not ratios:
        raise UserError(f"{first} and {second} have no case in common. Run both with the same --runtime and cases.")
    commits = {"A": a["commit"], "B": b["commit"]}
    return {"bench": "latency --compare", "commits": commits, "device": b["device"], "ratios": ratios}


def compare_samples(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Prints and returns B over A for every case that both have."""
    by_case: dict[str, Any] = {}
    lines = [["case", "what", "B / A", "95 % interval", "verdict"]]
    for name in (name for name in a if name in b):
        runs = [[np.array(run, np.float64) for run in side[name]["latencies_ms"]] for side in (a, b)]
        rates = [[np.array([fps], np.float64) for fps in side[name]["fps"]] for side in (a, b)]
        ratios = {f"p{q}_ms": compare(runs[0], runs[1], percentile(q)) for q in (50, 95, 99)}
        if min(map(len, rates)) > 1:  # one rate per run: a single run has no spread
            ratios["fps"] = compare(rates[0], rates[1], lambda values: float(values.mean()))
        for key, ratio in ratios.items():
            lines.append(
                [name, key, f"{ratio.ratio:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", ratio.verdict],
            )
        by_case[name] = {
            key: {"ratio": r.ratio, "low": r.low, "high": r.high, "verdict": r.verdict} for key, r in ratios.items()
        }
    print(table(lines))
    return by_case


def draw(folder: Path, runs: RunsByCase, rows: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    """Plots the first case, which is one face, paced."""
    from measuring.plots import histogram, waterfall

    name = next(iter(runs))
    title = f"{name}\n{facts['device']}, commit {facts['commit']}"
    latencies = np.concatenate([run.latencies for run in runs[name]])
    for path in [*histogram(folder, latencies, title), *waterfall(folder, rows[name]["stages_ms"], title)]:
        print(f"wrote {path}")


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--source", type=Path, metavar="VIDEO", help="video with one face (default: the demo clip)")
    flags.add_argument("--model", default="embedded", metavar="BUNDLE")
    flags.add_argument("--runtime", nargs="+", choices=RUNTIMES, help="only these (default: auto, then all others)")
    flags.add_argument("--faces", type=int, nargs="*", default=list(GRIDS), choices=list(GRIDS))
    flags.add_argument(
        "--streams", type=int, nargs="*", default=list(STREAMS), help="numbers of streams, in addition to one"
    )
    flags.add_argument("--seconds", type=float, help=f"of video per case (default: {FULL_S:.0f}, less with --quick)")
    flags.add_argument("--repeats", type=int, default=1)
    flags.add_argument("--quick", action="store_true", help="under four minutes on two cores")
    flags.add_argument("--json", type=Path, metavar="FILE", help="store every latency, for --compare")
    flags.add_argument("--append", action="store_true", help="add to the runs in the file of --json")
    flags.add_argument("--plots", type=Path, metavar="DIR", help="write a histogram and a waterfall as PNG and SVG")
    flags.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="compare two files of --json, and run nothing"
    )
    flags.add_argument("--against", metavar="PYTHON", help="Python of another installation (B) to take turns with")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.compare:
            last = compare_files(*options.compare)
        else:
            runs, *others = measure(options, [sys.executable, *([options.against] if options.against else [])])
            rows, facts = {name: summary(done) for name, done in runs.items()}, about()
            show(rows, facts)
            if options.plots:
                draw(options.plots, runs, rows, facts)
            last = headline(rows, facts, options.runtime[0] if options.runtime else "auto")
            if others:
                print(f"\nA: {sys.executable}\nB: {options.against}\n")
                last["against"] = compare_samples(samples_of(runs), samples_of(others[0]))
            if options.json:
                keep(options.json, runs, last, options.append)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(last))
    return 0


if __name__ == "__main__":
    sys.exit(main())
