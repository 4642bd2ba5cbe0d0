"""The fuzzer: equal seeds give equal bytes, each detector sees what it is for, and a run goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from bench_modules import BENCH, bench_module

from vlfau.models.bundle import Bundle, Manifest
from vlfau.models.errors import UserError

fuzz = bench_module("fuzz")
mutations = bench_module("measuring.mutations")
cases = bench_module("measuring.fuzz_cases")
runs = bench_module("measuring.fuzz_runs")
wire = bench_module("measuring.fuzz_wire")
verdict = bench_module("measuring.fuzz_verdict")
nursery = bench_module("measuring.nursery")

DATA = bytes(range(256)) * 4
HEADER = b"frame,pts\n"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips and a bundle of the fuzzer, made once."""
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    code = "import sys, pathlib, measuring.fuzz_seeds as s; s.make(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=BENCH, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


# Mutations


def test_the_same_seed_gives_the_same_bytes(mutations: ModuleType) -> None:
    def damaged(seed: int) -> bytes:
        steps = json.loads(json.dumps(mutations.damage(Random(seed), len(DATA), ["other"])))
        return bytes(mutations.apply(DATA, steps, lambda name: b"other"))

    assert [damaged(seed) for seed in range(100)] == [damaged(seed) for seed in range(100)]
    assert len({damaged(seed) for seed in range(100)}) > 80


def test_every_kind_of_damage_changes_bytes_and_any_of_its_steps_can_be_left_out(mutations: ModuleType) -> None:
    assert len(mutations.DAMAGES) >= 15
    for kind, draw in mutations.DAMAGES.items():
        results = set()
        for seed in range(20):
            steps = draw(Random(seed), len(DATA), ["other"])
            results.add(mutations.apply(DATA, steps, lambda name: b"other"))
            for data in (DATA[:3], b"\0", b""):
                for k in range(len(steps)):
                    mutations.apply(data, steps[:k] + steps[k + 1 :], lambda name: b"other")
        assert results - {DATA}, kind


def test_heads_are_those_of_packets(mutations: ModuleType) -> None:
    steps = [step for seed in range(20) for step in mutations.heads(Random(seed), 20 * 188)]
    assert all(name == "flip" and at % 188 < 24 and at < 20 * 188 for name, at, _ in steps)
    assert len({at // 188 for _, at, _ in steps}) > 10


def test_trees_bend_anywhere_and_paths_that_lead_nowhere_change_nothing(mutations: ModuleType) -> None:
    tree = {"a": [1, {"b": "x"}], "c": "y"}
    bends = [mutations.bend(Random(seed), tree) for seed in range(200)]
    assert {tuple(path[:1]) for _, path, *_ in bends} == {("a",), ("c",)}
    assert {len(path) for _, path, *_ in bends} == {1, 2, 3}
    assert tree == {"a": [1, {"b": "x"}], "c": "y"}
    assert mutations.bent(tree, ["set", ["c", "d", "e"], 1]) == tree
    assert mutations.bent(tree, ["remove", ["a", 1, "b"]]) == {"a": [1, {}], "c": "y"}
    assert mutations.string_paths(tree) == [["a", 1, "b"], ["c"]]


def test_long_and_deep_values_are_short_in_a_case_and_written_out_in_the_file(mutations: ModuleType) -> None:
    assert len(mutations.text({"a": f"{mutations.DEEP}100000"})) > 200_000
    assert mutations.text([f"{mutations.LONG}5", f"{mutations.DIGITS}3"]).split() == [b"[", b'"xxxxx",', b"777", b"]"]


@pytest.mark.parametrize("target", ["clips", "bundles", "wire", "flags", "config", "messages"])
def test_a_case_is_told_by_its_seed_and_number(cases: ModuleType, seeds: Path, target: str) -> None:
    drawn = [cases.draw(target, number, 5, seeds) for number in range(30)]
    assert repr(drawn) == repr([cases.draw(target, number, 5, seeds) for number in range(30)])
    assert repr(drawn) != repr([cases.draw(target, number, 6, seeds) for number in range(30)])
    assert repr([json.loads(json.dumps(case.steps)) for case in drawn]) == repr([case.steps for case in drawn])


def test_flags_never_open_the_machine_to_others(cases: ModuleType) -> None:
    flags = {flag for flag, _ in cases.FLAGS}
    assert {"--bind", "--metrics", "--csv", "--start", "--config"} <= flags
    assert not flags & {"--allow-public", "--show", "--demo"}
    assert not any("0.0.0.0" in place or "*:" in place for place in cases.PLACES)


# Detectors: a child that does each of these is seen

CONTROLS = """
import ctypes, json, os, pathlib, signal, sys, threading, time
from measuring.fuzz_runs import promise

def perform(request, folder):
    rows, old = pathlib.Path("rows.jsonl"), pathlib.Path("old")
    old.write_text("old")
    promise(folder, [old], {"rows.jsonl": "jsonl", "rows.csv": "csv"})
    if not request["command"]:
        (folder / "outcome.json").write_text('{"verdict": "read", "detail": ""}')
    match request["case"]:
        case "fine": rows.write_text('{"a": 1}\\n')
        case "sentence": print("vlfau-stream: No.", file=sys.stderr); return 2
        case "segfault": ctypes.string_at(0)
        case "killed": os.kill(os.getpid(), signal.SIGKILL)
        case "hang": time.sleep(60)
        case "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN); os.system("sleep 60")
        case "traceback": [][1]
        case "thread": t = threading.Thread(target=lambda: [][1]); t.start(); t.join()
        case "code": return 7
        case "silence": return 2
        case "broken": promise(folder, [], unbroken="x"); print("vlfau-watch: No.", file=sys.stderr); return 2
        case "nonsense": promise(folder, [], nonsense=["--x nan"])
        case "mute": promise(folder, [], mute=True); return 2
        case "torn row": rows.write_text('{"a": 1}\\n{"a"')
        case "half row": rows.write_text('{"a": 1}')
        case "torn table": pathlib.Path("rows.csv").write_text("a,b\\n1\\n")
        case "lost": old.write_text("")
        case "gone": old.unlink()
        case "swap": old.rename("x"); old.write_text("new")
        case "memory": held = bytearray(os.urandom(1 << 20) * 600); time.sleep(60)
        case "escape": print("\\x1b[31m")
        case "bidi": print("\\u202e", file=sys.stderr)
        case "forged": print("vlfau-stream: x\\nvlfau-stream: FORGED", file=sys.stderr); return 2
        case "problem": (folder / "outcome.json").write_text('{"problem": "flood", "where": "x", "detail": ""}')
    return 0
"""


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("controls")
    (folder / "fuzz_controls.py").write_text(CONTROLS, encoding="utf-8")
    sys.path.insert(0, str(BENCH))
    try:
        from measuring.nursery import Nursery

        with Nursery("fuzz_controls", folder) as opened:
            yield opened
    finally:
        sys.path.remove(str(BENCH))


@pytest.mark.parametrize(
    ("case", "command", "expected"),
    [
        ("fine", False, None),
        ("fine", True, None),
        ("sentence", True, None),
        ("segfault", False, "crash: SIGSEGV"),
        ("killed", True, "crash: SIGKILL"),
        ("hang", False, "hang: in"),
        ("deaf", True, "hang: in"),
        ("traceback", True, "traceback: IndexError in"),
        ("traceback", False, "traceback: IndexError in"),
        ("thread", True, "traceback: IndexError in"),
        ("code", True, "exit code: 7"),
        ("silence", True, "exit code: 2 without a sentence"),
        ("broken", True, "ended by a message: x"),
        ("mute", True, None),
        ("nonsense", True, "accepted: --x nan"),
        ("torn row", False, "torn row: jsonl"),
        ("half row", True, "torn row: jsonl"),
        ("torn table", False, "torn row: csv"),
        ("lost", False, "lost input"),
        ("gone", True, "lost input"),
        ("swap", True, "lost input"),
        ("memory", False, "memory: in"),
        ("escape", True, "raw escape"),
        ("bidi", True, "raw escape"),
        ("forged", True, "raw escape"),
        ("problem", False, "flood: x"),
    ],
)
def test_what_a_child_does_is_seen(
    verdict: ModuleType, controls: Any, tmp_path: Path, case: str, command: bool, expected: str | None
) -> None:
    limit_s = 2.0 if case in ("hang", "deaf") else 30.0
    folder = tmp_path / "one"
    ending = controls.run({"case": case, "command": command}, folder, limit_s, most_mb=300.0)
    outcome = verdict.judge(ending, folder, command=command)
    if expected is None:
        assert outcome.findings == ()
        assert outcome.verdict == ("refused" if case in ("sentence", "mute") else "read")
    else:
        assert outcome.verdict == "bad"
        assert any(str(finding).startswith(expected) for finding in outcome.findings), outcome


def test_one_child_leaves_nothing_to_the_next(verdict: ModuleType, controls: Any, tmp_path: Path) -> None:
    for k, case in enumerate(("segfault", "fine", "traceback", "fine", "code", "fine")):
        ending = controls.run({"case": case, "command": True}, tmp_path / str(k))
        assert (not verdict.judge(ending, tmp_path / str(k), command=True).findings) == (case == "fine")


def test_times_that_do_not_rise_and_rows_that_are_missing_are_seen(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Reports(list[Any]):
        def __enter__(self) -> Reports:
            return self

        def __exit__(self, *_: object) -> None:
            (tmp_path / "rows.jsonl").write_bytes(b"{}\n" * 2)

    def came_of(*times: float) -> Any:
        reports = Reports(SimpleNamespace(frame=k, pts=pts) for k, pts in enumerate(times))
        return runs.read(lambda: reports, "x")

    assert came_of(0.0, 0.04)["verdict"] == "read"
    assert came_of(0.04, 0.0)["problem"] == "times backwards"
    assert came_of(0.0, 0.0)["problem"] == "times backwards"
    assert came_of(0.0, float("nan"))["problem"] == "times backwards"
    assert came_of(0.0, 0.04, 0.08)["problem"] == "torn row"


def test_nonsense_that_a_bundle_got_through_is_seen(runs: ModuleType, seeds: Path) -> None:
    table = json.loads((seeds / "bundle" / "manifest.json").read_bytes())

    def odd(**changes: Any) -> str:
        return str(runs.oddities(Bundle(seeds / "bundle", Manifest(**table | changes))))

    assert odd() == ""
    assert odd(thresholds=[float("nan")] * 5) == "thresholds"
    assert odd(temperatures=[0.0] * 5, name=5) == "temperatures, name"
    assert odd(files=table["files"] | {"../x": ""}) == "names of files"


def test_what_another_peer_does_to_a_subscriber_is_seen(wire: ModuleType) -> None:
    def verdict(seen: int = 10, again: int = 1, silence: float = 0.1, grown: float = 5.0) -> Any:
        innocent = SimpleNamespace(seen=list(range(seen)), again=again, silence=silence)
        return wire.wire_verdict(innocent, 10, grown).get("problem")

    assert verdict() is None
    assert verdict(seen=9) == "lost message"
    assert verdict(again=5000) == "flood"
    assert verdict(silence=9.0) == "silence"
    assert verdict(grown=500.0) == "memory"


# The command


def test_plans_do_not_depend_on_what_else_runs(fuzz: ModuleType) -> None:
    alone, mixed = fuzz.plan(["wire"], set()), fuzz.plan(["clips", "wire"], {("wire", 1)})
    assert [next(alone) for _ in range(3)] == [("wire", 0), ("wire", 1), ("wire", 2)]
    assert [number for target, number in (next(mixed) for _ in range(20)) if target == "wire"] == [0, 2, 3]


def test_minimising_keeps_the_step_that_matters(fuzz: ModuleType, cases: ModuleType, verdict: ModuleType) -> None:
    class Pretended(fuzz.Fuzzer):  # type: ignore[misc,name-defined]
        def run(self, case: Any, kept: Path | None = None, keep: Path | None = None) -> tuple[Any, float]:
            findings = (verdict.Finding("crash", "x"),) if [7] in case.steps else ()
            return verdict.Outcome("bad", findings, ""), 0.0

    case = cases.Case("clips", 0, "light", "x", [[k] for k in range(20)])
    assert Pretended(Path(), None, 1.0).minimised(case, "crash: x").steps == [[7]]


def test_an_account_that_was_cut_off_is_gone_on_with(fuzz: ModuleType, tmp_path: Path) -> None:
    account = fuzz.open_account(tmp_path, 3)
    account.add({"target": "wire", "number": 0, "findings": []})
    with account.path.open("a", encoding="utf-8") as file:
        file.write('{"target": "wi')
    again = fuzz.open_account(tmp_path, None)
    assert (again.seed, again.done) == (3, {("wire", 0)})
    again.add({"target": "wire", "number": 1, "findings": []})
    assert fuzz.open_account(tmp_path, 3).done == {("wire", 0), ("wire", 1)}
    with pytest.raises(UserError, match="seed 3"):
        fuzz.open_account(tmp_path, 4)


@pytest.mark.timeout(280)
def test_a_short_run_and_its_continuation(
    fuzz: ModuleType, seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seeds").symlink_to(seeds)
    plain = ["--seed", "11", "--output", str(tmp_path), "--only", "clips,flags,config,wire,messages"]
    for more, count in ((6, 6), (4, 10)):
        status = fuzz.main([*plain, "--cases", str(more)])
        printed = capsys.readouterr().out.splitlines()
        last = json.loads(printed[-1])
        assert last["seed"] == 11
        assert last["rows"][-1] | {"target": "all", "cases": str(count)} == last["rows"][-1]
        assert status == int(bool(last["faults"]))
        assert any(line.startswith("| target") for line in printed)
    rows = [json.loads(line) for line in (tmp_path / "fuzz.jsonl").read_bytes().splitlines()[1:]]
    assert len({(row["target"], row["number"]) for row in rows}) == 10
    for finding in last["faults"]:
        kept = [path for path in tmp_path.glob("*.json") if json.loads(path.read_bytes())["finding"] == finding]
        assert len(kept) == 1
    assert not (tmp_path / "work").exists()


@pytest.mark.timeout(280)
def test_a_kept_case_is_replayed(fuzz: ModuleType, cases: ModuleType, seeds: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "seeds").symlink_to(seeds)
    case = {"target": "clips", "number": 0, "how": "light", "base": "mpeg4.mp4", "steps": []}
    (tmp_path / "one.json").write_text(json.dumps({"case": case}), encoding="utf-8")
    plain = ["--output", str(tmp_path), "--replay"]
    assert fuzz.main([*plain, str(tmp_path / "one.json")]) == 0
    assert "24 reports" in capsys.readouterr().out
    (tmp_path / "one.mp4").write_bytes((seeds / "short.mp4").read_bytes())  # what was kept comes first
    assert fuzz.main([*plain, str(tmp_path / "one.json")]) == 0
    assert "6 reports" in capsys.readouterr().out
    assert fuzz.main([*plain, "clips-1"]) == 2, "a name needs a seed"
