"""Writes bench/RESULTS.md: every bench in a short form, one after the other, with what each printed.

    make bench                                                   or: python bench/results.py
    python bench/results.py --shards FOLDER --shared FOLDER      with those that need renders, or real clips
    python bench/results.py --only latency soak                  these anew; the others stay as they were written

Takes about a quarter of an hour on two cores; nothing else should run meanwhile, and each section says how busy the
machine was before it. A bench that cannot run says why, unless an earlier run of it stands there already. The file is
never edited by hand: a test holds the README's figures against it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from measuring.facts import about, commit, heading, is_json, load
from measuring.shared_folder import from_environment

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ROOT / "bench" / "RESULTS.md"
PLOTS = "bench/plots"
SHARDS, SHARED, SCRFD = "SHARDS", "SHARED", "SHARED/detectors/scrfd_500m_kps.onnx"  # what stands for the user's folders


@dataclass(frozen=True)
class Bench:
    name: str
    title: str
    command: tuple[str, ...]  # after `python bench/`
    where: tuple[str, ...] = ()  # arguments that are left out where their file is not there
    usual: bool = True  # else only by --only
    limit_s: float = 1800.0

    @property
    def needs(self) -> set[str]:
        return {folder for folder in (SHARDS, SHARED) if any(part.startswith(folder) for part in self.command)}


BENCHES = (
    Bench(
        "latency",
        "Latency: capture to receipt",
        ("latency.py", "--quick", "--plots", PLOTS),
    ),
    Bench("overhead", "The engine's own share", ("overhead.py", "--shards", SHARDS, "--seconds", "5")),
    Bench("throughput", "Throughput beside the machine's floor", ("throughput.py", "--seconds", "0.5")),
    Bench(
        "peers",
        "Peers: what people would take instead",
        ("peers.py", "--seconds", "10", "--limit", "15"),
        ("--insightface-model", SCRFD),
    ),
    Bench(
        "accuracy",
        "Accuracy of the embedded bundle on held-out renders",
        ("accuracy.py", "--data", SHARDS, "--hold-out", "0.02", "--images", "2000", "--caption-images", "500"),
    ),
    Bench("faces", "The embedded bundle on real clips", ("real_faces.py", "--shared", SHARED)),
    Bench("detectors", "Detectors on real clips", ("detectors.py", "--every", "8", "--shared", SHARED)),
    Bench("precisions", "What INT8 costs and gains", ("precisions.py", "--data", SHARDS)),
    Bench("tracking", "Following faces", ("tracking.py", "--shards", SHARDS, "--scenes", "3")),
    Bench("outputs", "What each output costs", ("outputs.py",)),
    Bench(
        "soak", "Soak: two minutes with every fault", ("soak.py", "--minutes", "2", "--plot", "bench/plots/soak.png")
    ),
    Bench(
        "hours",
        "Soak: two hours",
        ("soak.py", "--minutes", "120", "--plot", "bench/plots/soak-hours.png"),
        usual=False,
        limit_s=9000.0,
    ),
    Bench("rendering", "Rendering speed", ("rendering.py", "--assets", "SHARED/faces3d")),
    Bench("training", "Training speed", ("training.py", "speed", "compact", "--seconds", "5", "--no-compile")),
    Bench(
        "targets",
        "One face on a CPU: the embedded bundle and Swin-Base beside PyTorch",
        ("throughput.py", "embedded", "paper", "--batch", "1", "--torch", "--targets"),
        usual=False,
    ),
    Bench("engines", "TensorRT-RTX engines built without a GPU", ("engines.py",), usual=False),
    Bench(
        "overfit",
        "Learning 64 pictures by heart",
        ("training.py", "overfit"),
        usual=False,
    ),
    Bench(
        "curve",
        "What more training bought",
        (
            *("learning_curve.py", "runs/1", "runs/2", "runs/3", "runs/4-early", "runs/4"),
            *("--data", SHARDS, "--shared", SHARED, "--plot", "bench/plots/curve.png"),
        ),
        usual=False,
        limit_s=3600.0,
    ),
    Bench(
        "fewer",
        "The first two of these runs with 5,000 of the 50,000 renders",
        ("learning_curve.py", "runs/1-fewer", "runs/2-fewer", "--data", SHARDS, "--shared", SHARED),
        usual=False,
        limit_s=3600.0,
    ),
    Bench(
        "ablation",
        "What buys accuracy",
        ("ablation.py", "--data", SHARDS, "--shared", SHARED, "--minutes", "9"),
        usual=False,
        limit_s=9000.0,
    ),
    Bench(
        "install",
        "The first minutes on a clean machine",
        ("first_minutes.py", "--check", "--train"),
        usual=False,
    ),
)


@dataclass(frozen=True)
class Ran:
    command: tuple[str, ...]  # as it was given, with names for places
    code: int
    out: str
    error: str
    seconds: float
    load_before: float


def run(bench: Bench, places: dict[str, Path]) -> Ran:
    """In the repository's root, as a reader would. `places` are the folders that there are."""
    there = all(Path(stands_for(part, places)).exists() for part in bench.where if is_place(part))
    asked = (*bench.command, *(bench.where if there else ()))
    arguments = [stands_for(part, places) for part in asked]
    before, began = load(), time.perf_counter()
    command = [sys.executable, str(ROOT / "bench" / arguments[0]), *arguments[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=bench.limit_s)
        code, out, error = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, error = 124, f"It took more than {bench.limit_s:.0f} s."
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    return Ran(asked, code, hidden(out, places), hidden(error, places), time.perf_counter() - began, before)


def is_place(part: str) -> bool:
    return part.partition("/")[0] in (SHARDS, SHARED)


def stands_for(part: str, places: dict[str, Path]) -> str:
    name, slash, rest = part.partition("/")
    return f"{places[name]}{slash}{rest}" if name in places and is_place(part) else part


def hidden(text: str, places: dict[str, Path]) -> str:
    """Without the paths of this machine."""
    known = {str(path): name for name, path in places.items()} | {str(ROOT): "."}
    home = os.path.expanduser("~")
    known |= {home: "~"} if len(home) > 1 else {}
    for path in sorted(known, key=len, reverse=True):
        text = text.replace(path, known[path])
    return text


def section(bench: Bench, ran: Ran) -> str:
    """Markdown: what to type, when and on what it ran, and what it printed but the JSON line."""
    shown = " ".join(ran.command)
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    how = f"load before {ran.load_before:.1f}, took {ran.seconds:.0f} s"
    lines = [
        f"## {bench.title}",
        "",
        f"`python bench/{shown}`, {when} UTC, commit {commit()}, {how}",
        "",
        *prose(without_json(ran.out)),
    ]
    if ran.code:
        told = (ran.error.strip().splitlines() or ["it said nothing"])[-1]
        lines += ["", f"**It ended with {ran.code}:** {told}"]
    return "\n".join(lines).rstrip() + "\n"


def without_json(text: str) -> list[str]:
    """What people read: results on the way are lines of JSON for programs, too."""
    lines = [line for line in text.rstrip().splitlines() if not (line.startswith("{") and is_json(line))]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def prose(lines: Sequence[str]) -> list[str]:
    """Tables stay, pictures are shown, figures in columns stay in columns, every other line stays one of its own."""
    made: list[str] = []
    for kind, group in groupby(lines, key=kind_of):
        part = list(group)
        if made and made[-1] and kind != "empty":
            made.append("")
        if kind == "picture":
            shown = [path.removeprefix("wrote bench/") for path in part if path.endswith(".png")]
            made += [f"![{Path(path).stem}]({path})" for path in shown]
        elif kind == "columns":
            made += ["```text", *part, "```"]
        elif kind == "line":
            made += [f"**{line.lstrip('# ')}**" if line.startswith("#") else line.rstrip() + "  " for line in part]
        else:
            made += part
    return made


def kind_of(line: str) -> str:
    if not line.strip():
        return "empty"
    if line.startswith("|"):
        return "table"
    if line.startswith("wrote bench/"):
        return "picture"
    return "columns" if "   " in line.strip() else "line"


def sections_of(text: str) -> dict[str, str]:
    """By title, as they stand in the file."""
    found: dict[str, str] = {}
    for part in ("\n" + text).split("\n## ")[1:]:
        found[part.partition("\n")[0]] = "## " + part.rstrip() + "\n"
    return found


def page(sections: dict[str, str], facts: dict[str, Any]) -> str:
    head = [
        "# Results",
        "",
        "Written by `make bench`, never by hand.",
        "",
        heading(facts).replace("\n", "  \n").rstrip(),
    ]
    order = [bench.title for bench in BENCHES if bench.title in sections]
    return "\n".join([*head, "", *(sections[title] for title in order)]).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    names = [bench.name for bench in BENCHES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, metavar="BENCH", help=f"of {', '.join(names)}")
    parser.add_argument("--shards", type=Path, metavar="FOLDER", help="written by vlfau-synthesize; $VLFAU_SHARDS")
    parser.add_argument("--shared", type=Path, metavar="FOLDER", help="real clips; $VLFAU_SHARED")
    parser.add_argument("--output", type=Path, default=WRITTEN, metavar="FILE")
    given = parser.parse_args(arguments)
    places = found_places(given.shards, given.shared)
    sections = sections_of(given.output.read_text(encoding="utf-8")) if given.output.is_file() else {}
    facts, codes = about(), {}
    for bench in BENCHES:
        if bench.name not in given.only if given.only else not bench.usual:
            continue
        if missing := bench.needs - set(places):
            where = " and ".join(f"--{name.lower()} FOLDER" for name in sorted(missing))
            print(f"{bench.name}: not run, it needs {where}", flush=True)
            sections.setdefault(bench.title, f"## {bench.title}\n\nNot run: it needs {where}.\n")
            continue
        print(f"{bench.name} ...", end=" ", flush=True)
        ran = run(bench, places)
        codes[bench.name] = ran.code
        print(f"{ran.seconds:.0f} s" + (f", ended with {ran.code}" if ran.code else ""), flush=True)
        if ran.code:
            print(ran.error[-4000:], file=sys.stderr)
        sections[bench.title] = section(bench, ran)
        given.output.write_text(page(sections, facts), encoding="utf-8")  # after each: an interrupt loses one at most
    given.output.write_text(page(sections, facts), encoding="utf-8")
    print(json.dumps({"bench": "results", **facts, "codes": codes}))
    return 1 if any(codes.values()) else 0


def found_places(shards: Path | None, shared: Path | None) -> dict[str, Path]:
    """The folders that are there, absolute."""
    asked = {
        SHARDS: shards or Path(os.environ.get("VLFAU_SHARDS", "renders")),
        SHARED: shared or from_environment(),
    }
    return {name: path.resolve() for name, path in asked.items() if path is not None and path.is_dir()}


if __name__ == "__main__":
    sys.exit(main())
