"""Counters: quantiles over a whole run in constant memory, rates, drops by cause."""

from __future__ import annotations

import time

import numpy as np
import pytest

from vlfau.engine import wire
from vlfau.engine.counters import RECENT, Counters, Latencies


def latency(total: float) -> wire.LatencyMs:
    return wire.milliseconds(decode=1.0, detect=0.0, align=0.5, predict=2.0, explain=0.0, total=total)


def test_quantiles_of_a_whole_run_are_within_two_percent_and_the_recent_ones_exact() -> None:
    values = np.random.default_rng(0).lognormal(3, 0.7, 5000)
    latencies = Latencies()
    for value in values:
        latencies.add(latency(float(value)))
    whole, recent = latencies.overall()["total"], latencies.recent()["total"]
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert getattr(whole, name) == pytest.approx(np.quantile(values, share), rel=0.02)
        assert getattr(recent, name) == pytest.approx(np.quantile(values[-RECENT:], share), rel=1e-3)
    assert whole.p95 != pytest.approx(recent.p95, rel=0.001), "the two differ"


def test_without_measurements_there_are_no_quantiles() -> None:
    assert Latencies().overall() == {}
    assert Latencies().recent() == {}


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9, -1.0])
def test_extreme_values_fit(value: float) -> None:
    latencies = Latencies()
    latencies.add(latency(value))
    assert np.isfinite(latencies.overall()["total"].p50)


def test_drops_are_summed_over_causes() -> None:
    counters = Counters("cam")
    assert (counters.dropped, counters.all_drops()) == (0, {})
    counters.drop("unreadable", 2)
    counters.late = lambda: 5
    assert counters.dropped == 7
    assert counters.all_drops() == {"unreadable": 2, "late": 5}


def test_rates_are_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counters = Counters("cam")
    rates = []
    for frames in (30, 30, 30, 30, 30, 0, 0, 0, 0, 0):
        now[0] += 1
        counters.frames_in += frames
        counters.frames_out += frames // 2
        status = counters.status({}, "", "", "", "", {})
        rates.append((status.fps_in, status.fps_out))
    assert rates[3] == (30.0, 15.0)
    assert rates[-1] == (0.0, 0.0)


def test_an_end_carries_the_totals() -> None:
    counters = Counters("cam", frames_in=10, frames_out=8, highest_track=2)
    end = counters.end("lost", "gone")
    assert (end.reason, end.error, end.frames_in, end.frames_out, end.tracks) == ("lost", "gone", 10, 8, 3)
    assert counters.ended
    assert counters.state == "ended"
