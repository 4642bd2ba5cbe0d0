"""Writes bench/RESULTS.md: runs every bench in a short form and stores what each printed.

    make bench                                                   or: python bench/results.py
    python bench/results.py --shards FOLDER --shared FOLDER      also those that need renders or real clips
    python bench/results.py --only latency soak                  only these; the other sections stay

Takes about a quarter of an hour on two cores; nothing else should run meanwhile, and each section states the load
before it. A bench that cannot run is listed with the reason, unless the file has a section of it from an earlier run.
The file is never edited by hand: a test compares the README's figures with it. The last line is JSON.
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
# Placeholders for the user's folders.
SHARDS, SHARED = "SHARDS", "SHARED"
SCRFD = "SHARED/detectors/scrfd_500m_kps.onnx"


@dataclass(frozen=True)
class Bench:
    name: str
    title: str
    command: tuple[str, ...]  # after `python bench/`
    where: tuple[str, ...] = ()  # arguments that are left out if their file does not exist
    usual: bool = True  # otherwise only with --only
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
    Bench("throughput", "Throughput against the machine's floor", ("throughput.py", "--seconds", "0.5")),
    Bench(
        "peers",
        "Peers: what people would use instead",
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
        "One face on a CPU: the embedded bundle and Swin-Base against PyTorch",
        ("throughput.py", "embedded", "paper", "--batch", "1", "--torch", "--targets"),
        usual=False,
    ),
    Bench("engines", "TensorRT-RTX engines built without a GPU", ("engines.py",), usual=False),
    Bench(
        "overfit",
        "Overfitting 64 images",
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
class BenchRun:
    command: tuple[str, ...]  # with placeholders for the user's folders
    code: int
    out: str
    error: str
    seconds: float
    load_before: float


def run(bench: Bench, places: dict[str, Path]) -> BenchRun:
    """Runs it in the repository's root, as a reader would. `places` are the folders that exist."""
    there = all(Path(stands_for(part, places)).exists() for part in bench.where if is_place(part))
    parts = (*bench.command, *(bench.where if there else ()))
    arguments = [stands_for(part, places) for part in parts]
    before, began = load(), time.perf_counter()
    command = [sys.executable, str(ROOT / "bench" / arguments[0]), *arguments[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=bench.limit_s)
        code, out, error = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, error = 124, f"It took longer than {bench.limit_s:.0f} s."
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    return BenchRun(parts, code, hidden(out, places), hidden(error, places), time.perf_counter() - began, before)


def is_place(part: str) -> bool:
    return part.partition("/")[0] in (SHARDS, SHARED)


def stands_for(part: str, places: dict[str, Path]) -> str:
    name, slash, rest = part.partition("/")
    return f"{places[name]}{slash}{rest}" if name in places and is_place(part) else part


def hidden(text: str, places: dict[str, Path]) -> str:
    """The text without paths of this machine."""
    names = {str(path): name for name, path in places.items()} | {str(ROOT): "."}
    home = os.path.expanduser("~")
    names |= {home: "~"} if len(home) > 1 else {}
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


def section(bench: Bench, ran: BenchRun) -> str:
    """Markdown: the command, when and where it ran, and what it printed except JSON."""
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
        last = (ran.error.strip().splitlines() or ["no message"])[-1]
        lines += ["", f"**It exited with {ran.code}:** {last}"]
    return "\n".join(lines).rstrip() + "\n"


def without_json(text: str) -> list[str]:
    """The lines for readers; JSON lines, which programs read, may also come before the last."""
    lines = [line for line in text.rstrip().splitlines() if not (line.startswith("{") and is_json(line))]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def prose(lines: Sequence[str]) -> list[str]:
    """Keeps tables, shows plots, puts columns into code blocks, and keeps every other line separate."""
    markdown: list[str] = []
    for kind, group in groupby(lines, key=kind_of):
        part = list(group)
        if markdown and markdown[-1] and kind != "empty":
            markdown.append("")
        if kind == "plot":
            shown = [path.removeprefix("wrote bench/") for path in part if path.endswith(".png")]
            markdown += [f"![{Path(path).stem}]({path})" for path in shown]
        elif kind == "columns":
            markdown += ["```text", *part, "```"]
        elif kind == "line":
            markdown += [f"**{line.lstrip('# ')}**" if line.startswith("#") else line.rstrip() + "  " for line in part]
        else:
            markdown += part
    return markdown


def kind_of(line: str) -> str:
    if not line.strip():
        return "empty"
    if line.startswith("|"):
        return "table"
    if line.startswith("wrote bench/"):
        return "plot"
    return "columns" if "   " in line.strip() else "line"


def sections_of(text: str) -> dict[str, str]:
    """Sections of the file by title."""
    sections: dict[str, str] = {}
    for part in ("\n" + text).split("\n## ")[1:]:
        sections[part.partition("\n")[0]] = "## " + part.rstrip() + "\n"
    return sections


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
    parser.add_argument("--only", nargs="+", choices=names, metavar="BENCH", help=f"only these, of {', '.join(names)}")
    parser.add_argument("--shards", type=Path, metavar="FOLDER", help="rendered shards (default: $VLFAU_SHARDS)")
    parser.add_argument("--shared", type=Path, metavar="FOLDER", help="real clips (default: $VLFAU_SHARED)")
    parser.add_argument("--output", type=Path, default=WRITTEN, metavar="FILE")
    options = parser.parse_args(arguments)
    places = existing_places(options.shards, options.shared)
    sections = sections_of(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    facts, codes = about(), {}
    for bench in BENCHES:
        if bench.name not in options.only if options.only else not bench.usual:
            continue
        if missing := bench.needs - set(places):
            where = " and ".join(f"--{name.lower()} FOLDER" for name in sorted(missing))
            print(f"{bench.name}: not run, because it needs {where}", flush=True)
            sections.setdefault(bench.title, f"## {bench.title}\n\nNot run: it needs {where}.\n")
            continue
        print(f"{bench.name} ...", end=" ", flush=True)
        ran = run(bench, places)
        codes[bench.name] = ran.code
        print(f"{ran.seconds:.0f} s" + (f", exited with {ran.code}" if ran.code else ""), flush=True)
        if ran.code:
            print(ran.error[-4000:], file=sys.stderr)
        sections[bench.title] = section(bench, ran)
        options.output.write_text(page(sections, facts), encoding="utf-8")  # so that an interrupt loses one at most
    options.output.write_text(page(sections, facts), encoding="utf-8")
    print(json.dumps({"bench": "results", **facts, "codes": codes}))
    return 1 if any(codes.values()) else 0


def existing_places(shards: Path | None, shared: Path | None) -> dict[str, Path]:
    """The absolute paths of the folders that exist."""
    folders = {
        SHARDS: shards or Path(os.environ.get("VLFAU_SHARDS", "renders")),
        SHARED: shared or from_environment(),
    }
    return {name: path.resolve() for name, path in folders.items() if path is not None and path.is_dir()}


if __name__ == "__main__":
    sys.exit(main())
