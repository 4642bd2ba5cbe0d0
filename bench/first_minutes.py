"""A new user's first ten minutes: the two commands at the top of the README, in a fresh clone and environment.

    python bench/first_minutes.py                  the first command: installs, plays the demo
    python bench/first_minutes.py --check          the second, too: installs what developers need, runs make check
    python bench/first_minutes.py --train          also the size of '.[train]'

The committed state is measured. Packages come from pip's configured index and not from its cache (--pip-cache allows
it), so figures include the network; `first_seen_s` is from the command to the first line with a result. Sizes are those
of the environment's packages without pip itself. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring.facts import PACKAGES, about, heading, table

ROOT = Path(__file__).resolve().parents[1]
SEEN = "seen:"  # what --demo prints before its results
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Took:
    """Seconds of a shell command."""

    whole_s: float
    first_seen_s: float | None
    code: int
    output: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure the second command, too, which takes minutes")
    parser.add_argument("--train", action="store_true", help="measure the size of .[train], too, which downloads torch")
    parser.add_argument("--pip-cache", action="store_true", help="let pip use its cache")
    options = parser.parse_args(arguments)
    first, second = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    rows, facts = [["", "seconds", "MB"]], about()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        steps = [("first", first)] + [("second", second)] * options.check
        steps += [("train", "pip install '.[train]'")] * options.train
        for name, command in steps:
            place = Path(folder) / name
            environment = fresh(place, pip_cache=options.pip_cache)
            before = packages_mb(place)
            took = run(command, clone, environment)
            if took.code:
                print(took.output[-4000:], file=sys.stderr)
                print(f"{command}\nexited with {took.code}. Its last lines are above.", file=sys.stderr)
                return 1
            size = packages_mb(place) - before
            if name == "first":
                facts["versions"] = versions(place)
            rows.append([f"`{command}`", f"{took.whole_s:.1f}", f"{size:.0f}"])
            facts |= {f"{name}_s": round(took.whole_s, 1), f"{name}_mb": round(size)}
            if took.first_seen_s is not None:
                rows.append(["  until the first result", f"{took.first_seen_s:.1f}", ""])
                facts[f"{name}_seen_s"] = round(took.first_seen_s, 1)
    print(heading(facts))
    print(table(rows))
    print(json.dumps(facts))
    return 0


def commands(readme: str) -> tuple[str, str]:
    """The two at the top."""
    first, second, *_ = (block.strip() for block in SHELL.findall(readme))
    return first, second


def fresh(place: Path, *, pip_cache: bool) -> dict[str, str]:
    """Creates a virtual environment. Returns the variables of a shell in which it is active."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "NODE_PATH", "VLFAU_SHARED", "VLFAU_SHARDS")
    inherited = {key: value for key, value in os.environ.items() if key not in left_out}
    path = f"{place / 'bin'}{os.pathsep}{inherited['PATH']}"
    own = {"PATH": path, "VIRTUAL_ENV": str(place), "VLFAU_CACHE": str(place / "cache"), "PYTHONUNBUFFERED": "1"}
    return inherited | own | ({} if pip_cache else {"PIP_NO_CACHE_DIR": "1"})


def run(command: str, folder: Path, environment: dict[str, str]) -> Took:
    began = time.perf_counter()
    lines, seen = [], None
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if seen is None and SEEN in line:
                seen = time.perf_counter() - began
    return Took(time.perf_counter() - began, seen, process.returncode, "".join(lines))


def versions(place: Path) -> dict[str, str]:
    """Of the packages that every bench names, as installed there."""
    program = (
        "import json, platform, sys\nfrom importlib.metadata import distributions\n"
        "installed = {one.metadata['Name'].lower(): one.version for one in distributions()}\n"
        "named = {name: installed[name] for name in sys.argv[1:] if name in installed}\n"
        "print(json.dumps({'python': platform.python_version()} | named))"
    )
    done = subprocess.run(
        [place / "bin" / "python", "-c", program, *PACKAGES], capture_output=True, text=True, check=True
    )
    numbers: dict[str, str] = json.loads(done.stdout)
    return numbers


def packages_mb(place: Path) -> float:
    return sum(path.lstat().st_size for path in (place / "lib").rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main())
