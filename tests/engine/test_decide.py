"""Decisions over time: hysteresis, smoothing, the learned baseline, and when sentences are due."""

from __future__ import annotations

import numpy as np
import pytest

from vlfau.engine.prediction.baseline import LIMIT, NEUTRAL, Baseline
from vlfau.engine.prediction.decide import Decision, TrackState
from vlfau.engine.settings import PredictSettings, explain_interval
from vlfau.models.errors import UserError

THRESHOLDS = np.array([0.5, 0.3], np.float32)


def track_state(baseline_s: float = 0.0, **settings: object) -> TrackState:
    return TrackState(PredictSettings(**settings), THRESHOLDS, baseline_s)  # type: ignore[arg-type]


def logit(*probabilities: float) -> np.ndarray:
    p = np.array(probabilities, np.float32)
    return np.asarray(np.log(p / (1 - p)))


def run(track: TrackState, rows: list[tuple[float, float]], fps: float = 25.0) -> list[Decision]:
    return [track.decide(logit(*row), i / fps) for i, row in enumerate(rows)]


def rested(log_odds: np.ndarray, seconds: float, fps: float = 25.0) -> np.ndarray:
    """A whole track at once: (T, A) -> (T, A) relative to the face at rest, frame by frame as the engine does it."""
    baseline = Baseline(log_odds.shape[1], seconds)
    return np.stack([row - baseline.update(row, 1 / fps) for row in log_odds]).astype(np.float32)


def test_the_bundles_thresholds_decide() -> None:
    decided = run(track_state(), [(0.49, 0.31), (0.51, 0.29)])
    assert decided[0].states.tolist() == [False, True]
    assert decided[1].states.tolist() == [True, True], "0.29 is within the hysteresis of 0.3"
    assert decided[0].probabilities == pytest.approx([0.49, 0.31])


def test_hysteresis_stops_the_flicker_that_is_there_without_it() -> None:
    rows = [(0.5 + (0.02 if i % 2 else -0.02), 0.1) for i in range(40)]

    def changes(hysteresis: float) -> int:
        states = [d.states[0] for d in run(track_state(hysteresis=hysteresis), rows)]
        return int(np.diff(np.array(states).astype(int)).__abs__().sum())

    assert changes(0.05) == 1
    assert changes(0.0) == 39


def test_off_below_the_hysteresis() -> None:
    assert [d.states[0] for d in run(track_state(), [(0.6, 0.1), (0.46, 0.1), (0.44, 0.1)])] == [True, True, False]


def test_a_unit_with_a_low_threshold_goes_off_too() -> None:
    low = TrackState(PredictSettings(), np.array([0.04, 0.3], np.float32), 0.0)
    decided = [d.states.tolist() for d in run(low, [(0.05, 0.1), (0.02, 0.1)])]
    assert decided == [[True, False], [False, False]], "a fixed step below 0.04 would never be reached"


def test_smoothing_delays_a_step_by_its_time_constant_whatever_the_frame_rate() -> None:
    for fps in (10.0, 25.0, 100.0):
        n = int(2 * fps)
        rows = [(0.1, 0.1)] * n + [(0.9, 0.9)] * n
        level = [logit(float(d.probabilities[0]))[0] for d in run(track_state(smooth=0.3), rows, fps)]
        reached = next(i for i, z in enumerate(level[n:]) if z >= logit(0.1)[0] + 0.632 * 2 * logit(0.9)[0])
        assert reached / fps == pytest.approx(0.3, abs=1.01 / fps)
    assert run(track_state(), rows)[n].probabilities[0] == pytest.approx(0.9)  # off by default: no delay


def test_a_clock_that_jumps_does_not_upset_smoothing() -> None:
    track = track_state(smooth=0.3)
    track.decide(logit(0.1, 0.1), 5.0)
    for pts in (5.0, -1e9, 1e9, 4.0):
        assert np.isfinite(track.decide(logit(0.9, 0.1), pts).probabilities).all()


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("every", [1, 1, 1, 1, 1, 1]),
        ("never", [0, 0, 0, 0, 0, 0]),
        ("change", [1, 0, 1, 0, 0, 1]),
        ("interval:0.1", [1, 0, 0, 1, 0, 0]),  # 40 ms a frame
    ],
)
def test_when_sentences_are_due(when: str, expected: list[int]) -> None:
    track = track_state(explain=when)
    due = []
    for i, p in enumerate([0.1, 0.2, 0.9, 0.8, 0.8, 0.1]):
        decision = track.decide(logit(p, 0.1), i / 25)
        due.append(int(decision.explain))
        if decision.explain:
            track.describe(decision.states, i / 25)
    assert due == expected


@pytest.mark.parametrize("wrong", ["interval", "interval:", "interval:0", "interval:x", "always"])
def test_wrong_explain_settings_are_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="--explain"):
        explain_interval(wrong)


def test_the_baseline_finds_the_resting_level() -> None:
    """Two faces with different resting levels and the same movement come out the same; without it they do not."""
    random = np.random.default_rng(0)
    t = np.arange(1000)
    movement = np.where((t // 100) % 3 == 2, 4.0, 0.0) + random.normal(scale=0.2, size=1000)
    rest = np.array([-4.0, -1.0])
    log_odds = movement[:, None] + rest
    corrected = rested(log_odds, seconds=10.0)
    late = slice(500, None)
    assert np.abs(corrected[late, 0] - corrected[late, 1]).max() < 0.15
    assert np.abs(log_odds[late, 0] - log_odds[late, 1]).min() > 2.9
    resting = corrected[late][movement[late] < 2]
    assert resting.mean() == pytest.approx(NEUTRAL, abs=0.4)
    assert corrected[late][movement[late] > 2].mean() == pytest.approx(NEUTRAL + 4, abs=0.4)


def test_the_baseline_fades_in_and_has_a_limit() -> None:
    log_odds = np.full((500, 1), 2.0)  # never at rest: smiles from beginning to end
    corrected = rested(log_odds, seconds=10.0)[:, 0]
    assert corrected[0] > 1.9
    assert (np.diff(corrected) <= 1e-6).all()
    assert corrected[-1] == pytest.approx(2.0 - LIMIT)


def test_the_baseline_is_causal_and_the_same_offline_and_in_the_engine() -> None:
    log_odds = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    whole = rested(log_odds, seconds=4.0)
    assert np.array_equal(rested(log_odds[:120], seconds=4.0), whole[:120])
    track = track_state(baseline_s=4.0)
    decided = [track.decide(row, i / 25) for i, row in enumerate(log_odds)]
    levels = logit(*np.array([d.probabilities for d in decided]).ravel()).reshape(200, 2)
    assert levels == pytest.approx(whole, abs=1e-4)
    assert [d.rested for d in decided].index(True) == pytest.approx(99, abs=1)


def test_the_resting_level_is_a_percentile() -> None:
    baseline = Baseline(1, 5.0, percentile=0.25)
    values = np.random.default_rng(2).uniform(-6, 2, 4000)
    for value in values:
        baseline.update(np.array([value]), 0.01)
    assert baseline.resting()[0] == pytest.approx(np.quantile(values, 0.25), abs=0.15)


def test_the_baseline_follows_when_the_light_changes() -> None:
    baseline = Baseline(1, 5.0)
    for value in (-4.0, 0.0):
        for _ in range(25 * 240):
            baseline.update(np.array([value]), 0.04)
    assert baseline.resting()[0] > -0.2
