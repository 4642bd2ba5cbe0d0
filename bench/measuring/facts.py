"""What every bench prints with its figures: machine, date, commit, versions; and tables of them.

Also CPU time and memory of other processes. Imports the standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("vlfau-stream", "numpy", "av", "pyzmq", "opencv-python", "openvino", "onnxruntime", "torch", "tensorrt-rtx")
WRITTEN = (":!bench/RESULTS.md", ":!bench/RESULTS-gpu.md", ":!README.md")  # change with what a bench prints


def about(*packages: str) -> dict[str, Any]:
    """Versions of `packages` are added to those that every bench names."""
    return {
        "device": f"{processor()} ({os.cpu_count()} cores)",
        "load": load(),  # above the number of cores, other programs slowed this run
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "commit": commit(),
        "versions": {"python": platform.python_version()} | dict(_versions((*PACKAGES, *packages))),
    }


def heading(facts: dict[str, Any]) -> str:
    """The facts as two lines of text."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    first = f"{facts['device']}, load {facts['load']}, {facts['date']}, commit {facts['commit']}"
    return f"{first}\n{versions}\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table aligned for terminals: the first row is the header, the first column is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for k, row in enumerate(rows):
        first, *rest = zip(row, widths)
        lines.append("| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]) + " |")
        if not k:
            rule = "|".join("-" * (width + 1) + ":" for width in widths[1:])
            lines.append("|" + "-" * (widths[0] + 2) + ("|" + rule if rule else "") + "|")
    return "\n".join(lines)


def is_json(line: str | bytes) -> bool:
    """Whether a line is complete JSON."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load() -> float:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def commit() -> str:
    """Abbreviated; a plus means that files differ from that commit."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = [git, "-C", str(Path(__file__).parents[2])]
    number = subprocess.run([*here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = [*here, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN]
    return f"{number}{'+' * bool(subprocess.run(changed, capture_output=True).stdout.strip())}" if number else "unknown"


def _versions(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


# Other processes, from /proc; 0 on systems without it


def peak_mb(process: int | str = "self") -> float:
    """Since the program began. What wait4 reports includes the parent before the exec."""
    return _status_mb(process, "VmHWM")


def resident_mb(process: int | str = "self") -> float:
    return _status_mb(process, "VmRSS")


def _status_mb(process: int | str, field: str) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), 0.0)


def cpu_s(process: int | str) -> float:
    """Processor seconds so far."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
