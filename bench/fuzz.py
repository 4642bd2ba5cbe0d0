"""The engine against damaged input, from a seed: clips, bundles, raw peers, flags, configuration files and messages.

    python bench/fuzz.py [--seconds 120] [--cases N] [--only clips,wire] [--seed N] [--output FOLDER]
    python bench/fuzz.py --replay FILE.json

Each case runs in a separate process, which may die, hang or grow. What counts as bad: the end by a signal, no end
within --limit seconds, a traceback, an exit code other than 0, 1 and 2, a refusal without a sentence, torn rows, inputs
that have changed, times that run backwards, escape codes that are printed raw, memory that grows without need, messages
that a subscriber lost because of another, and nonsense that was accepted.

clips      36 kinds of clip (14 containers, 17 codecs), damaged in 18 ways, read by the engine with stand-ins for its
           networks, some with --render; one in twelve by the command with its own networks
bundles    manifests, graphs and self-tests, through the engine, OpenVINO or the command
wire       peers that speak broken ZMTP to a publisher whose other subscriber may lose nothing
flags      values that make no sense, outputs that are inputs, odd sources, closed standard streams
config     TOML, by value and by byte
messages   a hostile publisher before `subscribe` and `vlfau-watch --once`

Of each fault the first case is minimised (steps are left out while the fault stays) and kept in the output folder as
NAME.json, damaged clips beside it; `--replay` runs it again, and so does the name of a case (clips-17) with its --seed.
With --output a later call goes on where the last one stopped. A table, one JSON line last; exit code 1 if anything was
bad.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

from measuring import children
from measuring.facts import about, heading, table
from measuring.fuzz_cases import COMMAND, DRAWS, WATCH, Case, draw
from measuring.fuzz_seeds import BUNDLE
from measuring.fuzz_verdict import BAD, COUNTED, READ, REFUSED, Outcome, judge
from measuring.nursery import HERE, Nursery

from vlfau.models.bundle import MANIFEST
from vlfau.models.errors import UserError
from vlfau.models.terminal import command

# One round of all targets: cheap ones come more often.
ROUND = (*("clips", "flags", "config", "clips", "messages", "bundles"), *("clips", "flags", "wire", "clips"))
TRIES = 30  # runs that minimising a case may take
ACCOUNT, SEEDS, WORK = "fuzz.jsonl", "seeds", "work"
LIMIT_S = 30.0


@dataclass
class Account:
    """The cases done, one line of JSON each; the first line holds the seed."""

    path: Path
    seed: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> set[tuple[str, int]]:
        return {(row["target"], row["number"]) for row in self.rows}

    @property
    def faults(self) -> dict[str, dict[str, Any]]:
        """The first row of each fault."""
        first: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            for finding in row["findings"]:
                first.setdefault(finding, row)
        return first

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def open_account(folder: Path, seed: int | None) -> Account:
    """Goes on with that of the folder. A line that was cut off counts as not written."""
    path = folder / ACCOUNT
    if not path.exists():
        account = Account(path, SystemRandom().randrange(10**9) if seed is None else seed)
        path.write_text(json.dumps({"seed": account.seed}) + "\n", encoding="utf-8")
        return account
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    first, *rest = map(json.loads, whole.splitlines() or [b"{}"])
    if "seed" not in first or seed not in (None, first["seed"]):
        raise UserError(f"{path} has the seed {first.get('seed')}. Leave out --seed, or give another --output.")
    path.write_bytes(whole + b"\n")
    return Account(path, first["seed"], rest)


class Fuzzer:
    """Runs cases one after the other."""

    def __init__(self, folder: Path, nursery: Nursery, limit_s: float) -> None:
        self.folder, self.limit_s = folder, limit_s
        self._nursery, self._runs = nursery, 0

    def run(self, case: Case, kept: Path | None = None, keep: Path | None = None) -> tuple[Outcome, float]:
        """`kept` replaces the damaged clip; `keep` is where to store it."""
        self._runs += 1
        folder = self.folder / WORK / str(self._runs)
        request = {
            "case": dataclasses.asdict(case),
            "seeds": str((self.folder / SEEDS).resolve()),
            "kept": str(kept.resolve()) if kept else None,
        }
        slow = 2 if case.how == COMMAND else 1
        ending = self._nursery.run(request, folder, self.limit_s * slow)
        outcome = judge(ending, folder, command=is_command(case))
        if keep is not None and case.target == "clips":
            for file in (folder / HERE).glob("clip.*"):
                shutil.copy(file, keep.with_suffix(file.suffix))
        shutil.rmtree(folder, ignore_errors=True)
        return outcome, ending.seconds

    def minimised(self, case: Case, finding: str) -> Case:
        """Without the steps that the finding does not need."""
        tries, size = 0, max(1, len(case.steps) // 2)
        while tries < TRIES and case.steps:
            at = 0
            while at < len(case.steps) and tries < TRIES:
                shorter = dataclasses.replace(case, steps=case.steps[:at] + case.steps[at + size :])
                tries += 1
                outcome, seconds = self.run(shorter)
                if finding in map(str, outcome.findings):
                    case = shorter
                else:
                    at += size
                if seconds > self.limit_s / 2:  # a hang costs the whole limit each time
                    tries += TRIES // 6
            if size == 1:
                break
            size //= 2
        return case


def is_command(case: Case) -> bool:
    """Whether the exit code of the process is that of a command, and there is no other result."""
    return case.target in ("flags", "config") or case.how in (COMMAND, WATCH)


def plan(targets: Sequence[str], done: set[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Without end. A case's number counts within its target, so that it is the same whatever else runs."""
    numbers: Counter[str] = Counter()
    turns = [target for target in ROUND if target in targets]
    while True:
        for target in turns:
            number = numbers[target]
            numbers[target] += 1
            if (target, number) not in done:
                yield target, number


def fuzz(fuzzer: Fuzzer, account: Account, targets: Sequence[str], cases: int | None, seconds: float | None) -> None:
    began = time.monotonic()
    for count, (target, number) in enumerate(plan(targets, account.done)):
        if (cases is not None and count >= cases) or (seconds is not None and time.monotonic() - began > seconds):
            return
        case = draw(target, number, account.seed, fuzzer.folder / SEEDS)
        outcome, took = fuzzer.run(case)
        new = [str(finding) for finding in outcome.findings if str(finding) not in account.faults]
        row = {"target": target, "number": number, "how": case.how, "base": case.base, "verdict": outcome.verdict}
        row |= {"findings": [*map(str, outcome.findings)], "detail": outcome.detail[-600:], "seconds": took}
        account.add(row)
        for k, finding in enumerate(new):
            path = fuzzer.folder / f"{case.name}{f'-also-{k}' if k else ''}.json"
            store(fuzzer, case, finding, account.seed, outcome, path)


def store(fuzzer: Fuzzer, case: Case, finding: str, seed: int, outcome: Outcome, path: Path) -> None:
    smaller = fuzzer.minimised(case, finding)
    fuzzer.run(smaller, keep=path)
    body = {"finding": finding, "seed": seed, "case": dataclasses.asdict(smaller), "detail": outcome.detail[-3000:]}
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print(
        f"{case.name} ({case.how}{case.base and f' {case.base}'}): {finding}\n    python bench/fuzz.py --replay {path}",
        flush=True,
    )


def replay(fuzzer: Fuzzer, what: str, seed: int | None) -> int:
    path = Path(what)
    if path.is_file():
        case = Case(**json.loads(path.read_bytes())["case"])
        kept = next((file for file in path.parent.glob(f"{path.stem}.*") if file.suffix != ".json"), None)
    else:
        target, _, number = what.rpartition("-")
        if target not in DRAWS or not number.isdecimal() or seed is None:
            raise UserError(f"There is no file {what}. Give one, or a case such as clips-17 with its --seed.")
        case, kept = draw(target, int(number), seed, fuzzer.folder / SEEDS), None
    outcome, took = fuzzer.run(case, kept)
    print(json.dumps(dataclasses.asdict(case))[:2000])
    print(f"{outcome.verdict} in {took:.1f} s", *outcome.findings, outcome.detail, sep="\n")
    return int(outcome.verdict == BAD)


def summary(account: Account) -> list[list[str]]:
    head = ["target", "cases", READ, REFUSED, "crashes", "hangs", "tracebacks", "torn rows", "lost inputs", "other"]
    rows = [[*head, "cases a minute"]]
    for target in (*DRAWS, "all"):
        own = [row for row in account.rows if target in (row["target"], "all")]
        if not own:
            continue
        kinds = [{finding.partition(":")[0] for finding in row["findings"]} for row in own]
        bad = [sum(kind in found for found in kinds) for kind in COUNTED]
        other = sum(bool(found - {*COUNTED}) for found in kinds)
        verdicts = [sum(row["verdict"] == verdict for row in own) for verdict in (READ, REFUSED)]
        pace = 60 * len(own) / max(sum(row["seconds"] for row in own), 1e-3)
        rows.append([target, *map(str, (len(own), *verdicts, *bad, other)), f"{pace:.0f}"])
    return rows


def make_seeds(folder: Path) -> None:
    """Unless they exist: a resumed run uses the same bytes."""
    if (folder / BUNDLE / MANIFEST).exists():  # which is written last
        return
    done = subprocess.run(
        children.command("fuzz_seeds", folder), env=children.environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"The clips and the bundle could not be made.\n{done.stderr[-2000:]}")


@command("fuzz")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="of all cases; a fresh one is drawn and printed if left out")
    parser.add_argument("--cases", type=int, help="stop after this many")
    parser.add_argument("--seconds", type=float, help="stop after this long; 120 if --cases is left out, too")
    parser.add_argument("--only", default=",".join(DRAWS), metavar="TARGETS", help="default: %(default)s")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="the account and reproducers; goes on with it")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, help="seconds of a case, the command twice that (default: %(default)s)"
    )
    parser.add_argument("--replay", metavar="FILE", help="run one case again: its file, or its name with --seed")
    options = parser.parse_args(arguments)
    targets = options.only.split(",")
    if unknown := [target for target in targets if target not in DRAWS]:
        raise UserError(f"There is no target '{unknown[0]}'. Choose of {', '.join(DRAWS)}.")
    seconds = 120.0 if options.seconds is options.cases is None else options.seconds
    folder = options.output or Path(tempfile.mkdtemp(prefix="vlfau-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)  # of a run that was killed
    facts = about()
    bad = True
    try:
        make_seeds(folder / SEEDS)
        with Nursery("measuring.fuzz_runs") as nursery:
            fuzzer = Fuzzer(folder, nursery, options.limit)
            if options.replay:
                return replay(fuzzer, options.replay, options.seed)
            account = open_account(folder, options.seed)
            print(f"seed {account.seed}", flush=True)
            fuzz(fuzzer, account, targets, options.cases, seconds)
        bad = report(account, facts, folder)
        return int(bad)
    finally:
        shutil.rmtree(folder / WORK, ignore_errors=True)
        if options.output is None and (options.replay or not bad):
            shutil.rmtree(folder, ignore_errors=True)


def report(account: Account, facts: dict[str, Any], folder: Path) -> bool:
    """Prints the table and the line for programs; whether anything was bad."""
    rows = summary(account)
    print(f"\n{heading(facts)}\n{table(rows)}\n")
    for finding, row in account.faults.items():
        count = sum(finding in other["findings"] for other in account.rows)
        print(
            f"{count:5d} x {finding} (first {row['target']}-{row['number']} {row['how']} {row['base']}".rstrip() + ")"
        )
    counts = [dict(zip(rows[0], row)) for row in rows[1:]]
    last = {"bench": "fuzz", **facts, "seed": account.seed, "rows": counts, "faults": [*account.faults]}
    print(json.dumps(last | {"folder": str(folder)}))
    return bool(account.faults)


if __name__ == "__main__":
    sys.exit(main())
