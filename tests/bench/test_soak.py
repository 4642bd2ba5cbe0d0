"""The soak bench: each mistake that it must notice, with a control, and a short real run with all faults."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from bench_modules import BENCH, bench_module
from media import numbered, write_clip

from vlfau.engine.wire import End, LatencyMs, Report, line

HOUR_NS = 3600 * 10**9
KINDS = ("source", "stall", "clock", "disk")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a running process are Linux's")


bench = bench_module("soak")
verdict = bench_module("measuring.soak_verdict")


@pytest.mark.parametrize("seconds", [20, 120, 7200])
def test_every_fault_has_its_time(bench: ModuleType, seconds: float) -> None:
    faults = bench.schedule(seconds)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(0.1 * seconds <= fault.at_s and fault.at_s + fault.lasts_s <= 0.9 * seconds for fault in faults)
    assert [fault.kind for fault in faults].count("disk") == 1
    rounds = [fault.kind for fault in faults].count("stall")
    assert rounds == (10 if seconds == 7200 else 1)
    disk = next(fault.at_s for fault in faults if fault.kind == "disk")
    assert all(fault.at_s + fault.lasts_s <= disk for fault in faults)


def samples(memory: list[float], p95: list[float]) -> list[dict[str, float]]:
    return [{"memory_mb": m, "p95_ms": p, "life": 0} for m, p in zip(memory, p95)]


def test_growth_is_distinguished_from_warming_up(verdict: ModuleType) -> None:
    warm, flat = [300.0, 350, 400], [20.0] * 9
    assert verdict.grown(samples(warm + [402.0] * 6, flat), 0.05, 0.5) == []
    leak = verdict.grown(samples(warm + [400.0] * 3 + [430.0] * 3, flat), 0.05, 0.5)
    assert leak == ["memory_mb grew from 400.0 to 430.0"]
    assert verdict.grown(samples(warm + [400.0] * 3 + [430.0] * 3, flat), 0.1, 0.5) == []
    late = verdict.grown(samples([400.0] * 9, [20.0] * 6 + [40.0] * 3), 0.05, 0.5)
    assert late == ["p95_ms grew from 20.0 to 40.0"]
    assert verdict.grown(samples([400.0] * 2, [20.0] * 2), 0.05, 0.5) == ["too short to judge"]
    second = [row | {"life": 1, "memory_mb": 900.0} for row in samples([400.0] * 3, [20.0] * 3)]
    assert verdict.grown(samples([400.0] * 9, flat) + second, 0.05, 0.5) == [], "another process is judged separately"


def report(seq: int, frame: int, *, total: float = 8.0, pts: float | None = None, captured_ns: int = 0) -> Report:
    spent = LatencyMs(decode=1, detect=1, align=1, predict=1, explain=0, total=total)
    return Report(seq, "cam", frame, frame / 30 if pts is None else pts, captured_ns, 0, spent, [])


def end(**changes: Any) -> End:
    return changed(End(0, "cam", "stopped", 0, 1.0, 12, 10, 10.0, 2, {"late": 2}, 0, {}), **changes)


def changed(message: End, **changes: Any) -> End:
    import msgspec

    return msgspec.structs.replace(message, **changes)


def test_a_listener_notices_what_is_wrong(verdict: ModuleType) -> None:
    def wrong(*reports: Report) -> list[str]:
        heard = verdict.Heard()
        for one in reports:
            heard.take(one, 0, 0)
        wrong: list[str] = heard.wrong
        return wrong

    assert wrong(report(0, 0), report(1, 1), report(2, 5)) == []
    assert wrong(report(0, 0), report(2, 2)) == ["cam: message 2 came as number 1"]
    assert wrong(report(0, 3), report(1, 3, pts=9)) == ["cam: time ran backwards at frame 3"]
    assert wrong(report(0, 3), report(1, 4, pts=0)) == ["cam: time ran backwards at frame 4"]
    assert wrong(report(0, 0, total=HOUR_NS / 1e6)) == ["cam: a latency of 3600000.0 ms"], "taken from the wall clock"
    heard = verdict.Heard()
    for seq, off in enumerate((0, 0, HOUR_NS, HOUR_NS, -HOUR_NS)):
        heard.take(report(seq, seq, captured_ns=5 * HOUR_NS + off + 10**9), 5 * HOUR_NS, 0)
    assert heard.jumps == 2


def life(verdict: ModuleType, folder: Path, reports: int, last: End, *, status: int = 130, rows: int = 10) -> Any:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(line(report(k, k)) for k in range(rows)))
    process = verdict.Life(SimpleNamespace(), None, path, status=status)
    for seq in range(reports):
        process.heard.take(report(seq, seq), 0, 0)
    process.heard.take(last, 0, 0)
    return process


def test_frame_counts_must_be_exact(verdict: ModuleType, tmp_path: Path) -> None:
    assert verdict.accounts(life(verdict, tmp_path, 10, end())) == []
    assert "13 decoded, 10 published + 2 dropped" in verdict.accounts(life(verdict, tmp_path, 10, end(frames_in=13)))[0]
    assert "9 of 10 reports arrived" in verdict.accounts(life(verdict, tmp_path, 9, end()))[0]
    assert verdict.accounts(life(verdict, tmp_path, 11, end())) == ["1 more reports arrived than were published"]
    assert verdict.accounts(life(verdict, tmp_path, 11, end(), status=2)) == [], "its row did not fit on the disk"
    assert "9 whole rows" in verdict.accounts(life(verdict, tmp_path, 10, end(), rows=9))[0]
    cut = life(verdict, tmp_path, 10, end())
    cut.rows_file.write_bytes(cut.rows_file.read_bytes() + b'{"v":1')
    assert "whole rows" in verdict.accounts(cut)[0]


def test_a_fault_without_a_trace_is_reported(verdict: ModuleType, tmp_path: Path) -> None:
    last = changed(end(reconnects=1), stream="camera0")
    first = life(verdict, tmp_path, 10, last)
    first.heard.jumps, first.heard.after_gap = 2, {"camera0": 5}
    faults = [(1.0, kind) for kind in (*KINDS, "stall over")]
    good = verdict.Soak(faults=faults, lives=[first], stalled={"heard": 9, "lost": 3, "wrong": 0, "meanwhile": 500})
    assert verdict.traces(good, 1) == []
    unhurt = dataclasses.replace(good, stalled=good.stalled | {"lost": 0})
    assert verdict.traces(unhurt, 1) == ["the stalled subscriber lost nothing"]
    slow = dataclasses.replace(good, stalled=unhurt.stalled | {"meanwhile": 30})
    assert verdict.traces(slow, 1) == [], "the queues of a slow machine held everything"
    first.heard.jumps, first.heard.after_gap = 0, {}
    first.heard.ends["camera0"] = changed(last, reconnects=0)
    assert len(verdict.traces(good, 1)) == 3


def test_a_looped_clip_has_rising_timestamps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from measuring import feeder

    write_clip(tmp_path / "clip.mp4", [numbered(k) for k in range(20)], fps=20)
    taken = list(itertools.islice(feeder.packets(tmp_path / "clip.mp4"), 50))
    decoded = [at for _, at, _ in taken]
    assert all(b > a for a, b in itertools.pairwise(decoded))
    assert max(shown for _, _, shown in taken) == pytest.approx(2.45, abs=0.11)  # the last round stops half-way
    assert sum(packet.is_keyframe and packet.pts == 0 for packet, _, _ in taken) == 3


def run(seconds: float, folder: Path, latency: str, memory: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCH / "soak.py"), "--minutes", str(seconds / 60), "--runtime", "openvino"]
    command += ["--latency", latency, "--memory", memory, "--plot", str(folder / "soak.png")]
    environment = os.environ | {"VLFAU_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240 + seconds)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def check(last: dict[str, Any]) -> None:
    assert last["wrong"] == []
    assert all(row["decoded"] == row["published"] + row["dropped"] for row in last["totals"])
    assert [(row["life"], row["exit"]) for row in last["totals"]] == [(0, 2), (0, 2), (1, 130), (1, 130)]
    assert {what for _, what in last["faults"]} == {"source", "source over", "stall", "stall over", "clock", "disk"}
    assert last["totals"][0]["reconnects"] > 0
    assert last["stalled"]["lost"] > 0 or last["stalled"]["meanwhile"] < 200  # what the queues may hold
    assert last["commit"]
    assert last["device"]


@pytest.mark.timeout(300)
def test_twenty_seconds_with_every_fault(tmp_path: Path) -> None:
    """Too short to judge growth on a busy machine, which loads sentences for half of that time; the rest is exact."""
    pytest.importorskip("matplotlib")
    check(run(20, tmp_path, latency="7", memory="0.5"))
    assert (tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_minutes_with_every_fault(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    check(run(120, tmp_path, latency="1", memory="0.05"))
