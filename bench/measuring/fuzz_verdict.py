"""What came of a case, by what its process left: an exit code or a signal, its last words, rows, and its inputs."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring.facts import is_json
from measuring.fuzz_runs import NO_FILE, OUTCOME, PROMISES, digest
from measuring.nursery import ERR, HERE, OUT, Ending

READ, REFUSED, BAD = "read", "refused", "bad"
CRASH, HANG, TRACEBACK, TORN, LOST = "crash", "hang", "traceback", "torn row", "lost input"
COUNTED = (CRASH, HANG, TRACEBACK, TORN, LOST)  # have columns of their own; what else is wrong shares one
FRAME = re.compile(r'^  File "([^"]+)", line \d+,? in (\S+)', re.MULTILINE)
RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)  # the first line that is not indented
TRACE = "Traceback (most recent call last)"
LAST_WORDS = (TRACE, "Exception in thread", "exception not rethrown", "Fatal Python error")
# C0 without tab and line ends, C1, and what turns the direction of writing
RAW = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FORGED = re.compile("^vlfau-stream: FORGED", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    kind: str
    where: str  # of findings of one kind, those at one place count as one fault

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}"


@dataclass(frozen=True)
class Outcome:
    verdict: str
    findings: tuple[Finding, ...]
    detail: str


def judge(ending: Ending, folder: Path, *, command: bool) -> Outcome:
    """`command` says that the exit code and the last words are those of a command; else there is an OUTCOME."""
    printed, said = _words(folder / OUT), _words(folder / ERR)
    promises = _json(folder / PROMISES)
    findings = [*_end(ending, said), *_promises(folder / HERE, promises)]
    if (raw := RAW.search(printed + said)) is not None:
        findings.append(Finding("raw escape", f"in {'what is printed' if RAW.search(printed) else 'messages'}"))
        said = f"{raw[0]!r}: {said}"
    if FORGED.search(said):
        findings.append(Finding("raw escape", "a name begins a line"))
    outcome = _json(folder / OUTCOME)
    verdict = outcome.get("verdict", READ)
    if ending.status and (unbroken := promises.get("unbroken")):
        findings.append(Finding("ended by a message", unbroken))
    if "problem" in outcome:
        findings.append(Finding(outcome["problem"], outcome["where"]))
    if not findings and command:
        verdict = READ if ending.status == 0 else REFUSED
        if ending.status == 0 and promises.get("nonsense"):
            findings.append(Finding("accepted", ", ".join(promises["nonsense"])))
        findings += _exit_code(ending.status, said, bool(promises.get("mute")))
    elif not findings and (ending.status or not outcome):
        findings.append(Finding("exit code", f"{ending.status}{'' if outcome else ' without a result'}"))
    detail = " | ".join(filter(None, (outcome.get("detail", ""), said[-1500:] if findings or command else "")))
    return Outcome(BAD if findings else verdict, tuple(dict.fromkeys(findings)), detail)


def _words(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def _end(ending: Ending, said: str) -> Iterator[Finding]:
    """How the process ended, and whether it did so with a sentence."""
    if ending.hung:
        yield Finding(HANG, f"in {_ours(said)}")
    elif ending.swollen:
        yield Finding("memory", f"in {_ours(said)}")
    elif ending.status < 0:
        yield Finding(CRASH, f"{signal.Signals(-ending.status).name} in {_ours(said)}")
    elif any(words in said for words in LAST_WORDS):
        last = said[max(0, said.rfind(TRACE)) :]
        raised = RAISED.findall(last)
        yield Finding(TRACEBACK, f"{raised[0] if raised else 'unknown'} in {_ours(last, innermost_last=True)}")


def _ours(said: str, innermost_last: bool = False) -> str:
    """The innermost function of the project in a traceback (innermost last), or in what faulthandler writes."""
    frames = FRAME.findall(said)
    ours = [(file, name) for file, name in frames if "/engine/" in file or "/models/" in file]
    if not ours:
        ours = frames
    if not ours:
        return "an unknown place"
    file, name = ours[-1 if innermost_last else 0]
    return f"{'/'.join(Path(file).parts[-2:])} {name}"


def _exit_code(status: int, said: str, mute: bool) -> Iterator[Finding]:
    if status not in (0, 1, 2):
        yield Finding("exit code", str(status))
    elif status and not (mute and status == 2) and not re.search(r"^(vlfau-\w+|usage):", said, re.MULTILINE):
        yield Finding("exit code", f"{status} without a sentence")


def _promises(here: Path, promises: dict[str, Any]) -> Iterator[Finding]:
    for name, before in promises.get("unchanged", {}).items():
        if before != NO_FILE and digest(here / name) != before:
            yield Finding(LOST, Path(name).suffix or name)
    for name, (kind, before) in promises.get("rows", {}).items():
        if digest(here / name) not in (NO_FILE, before) and not whole_rows(here / name, kind):
            yield Finding(TORN, kind)


def whole_rows(file: Path, kind: str) -> bool:
    data = file.read_bytes()
    if not data:
        return True
    lines = data.splitlines()
    if not data.endswith(b"\n"):
        return False
    if kind == "jsonl":
        return all(is_json(line) for line in lines)
    try:
        rows = list(csv.reader(io.StringIO(data.decode(errors="replace"), newline="")))
    except csv.Error:
        return False
    return len({len(row) for row in rows}) <= 1
