"""Temperatures and thresholds: known values are recovered, and figures are for subjects that were not fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_bundle import UNITS, small_bundle

from vlfau.calibration.decisions import Goal, fit_decisions, temperature, threshold
from vlfau.models.errors import UserError
from vlfau.models.metrics import sigmoid

TRUE_TEMPERATURES = np.array([0.5, 1.0, 2.0, 4.0, 1.0])


def world(images: int = 4000, subjects: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds whose true probability is sigmoid(x / T) with a known T per unit."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-1, 2, (images, len(TRUE_TEMPERATURES)))
    labels = (rng.random(true.shape) < sigmoid(true)).astype(np.int8)
    return true * TRUE_TEMPERATURES, labels, rng.integers(0, subjects, images)


def test_known_temperatures_are_recovered() -> None:
    temperatures = fit_decisions(*world()).temperatures
    assert np.allclose(temperatures, TRUE_TEMPERATURES, rtol=0.12)


def test_held_out_calibration_error_falls_unless_the_network_is_calibrated() -> None:
    log_odds, labels, subjects = world()
    overconfident = fit_decisions(log_odds, labels, subjects)
    calibrated = fit_decisions(log_odds / TRUE_TEMPERATURES, labels, subjects)
    assert overconfident.before.ece is not None
    assert overconfident.after.ece is not None
    assert overconfident.after.ece < 0.6 * overconfident.before.ece
    assert calibrated.after.ece == pytest.approx(calibrated.before.ece, abs=0.01)


def test_the_threshold_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(1)
    y = rng.random(500) < 0.2
    p = sigmoid(rng.normal(0, 1, 500) + 1.5 * y)

    def f1(cut: float) -> float:
        states = p >= cut
        return float(2 * (states & y).sum() / (states.sum() + y.sum()))

    best, note = threshold(p, y, np.ones(500), None)
    assert note == ""
    assert f1(best) == pytest.approx(max(f1(cut) for cut in p))
    assert f1(best) > f1(0.9)


def test_a_requested_precision_is_reached_with_the_most_recall() -> None:
    rng = np.random.default_rng(2)
    y = rng.random(2000) < 0.3
    p = sigmoid(rng.normal(0, 1, 2000) + 2 * y)
    cut, _ = threshold(p, y, np.ones(2000), 0.9)
    states = p >= cut
    assert y[states].mean() >= 0.9
    looser = p >= np.sort(p[~states])[-200]
    assert y[looser].mean() < 0.9
    cut, note = threshold(rng.random(2000), y, np.ones(2000), 0.9)
    assert "no threshold reaches precision" in note


def test_a_rarer_prior_raises_the_threshold() -> None:
    log_odds, labels, subjects = world()
    usual = fit_decisions(log_odds, labels, subjects)
    rare = fit_decisions(log_odds, labels, subjects, Goal(prior=(0.02,)))
    # Compared as log-odds, since the temperatures differ.
    cut = [np.log(np.array(d.thresholds) / (1 - np.array(d.thresholds))) * d.temperatures for d in (usual, rare)]
    assert (cut[1] > cut[0]).all()


def test_figures_are_for_subjects_that_were_not_fitted_on() -> None:
    """Random labels, and scores that only identify the subject: fitting on reported subjects would beat chance."""
    rng = np.random.default_rng(3)
    subjects = np.repeat(np.arange(10), 40)
    shift = rng.normal(0, 6, (10, 1))[subjects]
    labels = (rng.random((400, 1)) < 0.5).astype(np.int8)
    fitted = fit_decisions(shift + 0.0 * labels, labels, subjects)
    assert fitted.after.f1 is not None
    assert fitted.after.f1 < 0.72  # always yes scores 0.67


def test_unknown_labels_are_ignored() -> None:
    log_odds, labels, subjects = world(1500)
    hidden = labels.copy()
    hidden[::3] = -1
    shown = np.arange(1500) % 3 != 0
    a, b = fit_decisions(log_odds, hidden, subjects), fit_decisions(log_odds[shown], labels[shown], subjects[shown])
    assert a.temperatures == b.temperatures
    assert a.thresholds == b.thresholds
    assert a.after.f1 == b.after.f1


def test_a_unit_with_few_positives_keeps_its_values_with_a_note() -> None:
    log_odds, labels, subjects = world(1000)
    labels[:, 2] = 0
    fitted = fit_decisions(log_odds, labels, subjects)
    assert (fitted.temperatures[2], fitted.thresholds[2]) == (1.0, 0.5)
    assert "too few" in fitted.notes[2]
    assert fitted.notes[0] == ""


def test_bisection_finds_the_minimum_of_the_loss() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(0, 3, 800)
    y = rng.random(800) < sigmoid(x / 1.7)
    fitted = temperature(x, y, np.ones(800))

    def loss(t: float) -> float:
        return float(np.log1p(np.exp(-np.where(y, x, -x) / t)).sum())

    assert loss(fitted) <= min(loss(fitted * 0.98), loss(fitted * 1.02))


def test_decisions_reach_the_states_of_a_runtime(tmp_path: Path) -> None:
    from vlfau.models.runtimes import open_runtime

    bundle = small_bundle(tmp_path / "bundle")
    log_odds, labels, subjects = world()
    decided = fit_decisions(log_odds, labels, subjects)
    written = decided.write(bundle, "a made-up world")
    assert written.manifest.thresholds == decided.thresholds
    assert written.manifest.provenance["decisions"]["source"] == "a made-up world"
    with open_runtime(written, "openvino") as runtime:
        prediction = runtime.predict(bundle.selftest()["crops"])
    expected = sigmoid(prediction.log_odds.astype(float) / np.array(decided.temperatures))
    assert np.allclose(prediction.probabilities, expected, atol=1e-5)
    assert (prediction.states == (prediction.probabilities >= np.array(decided.thresholds, np.float32))).all()
    with pytest.raises(UserError, match="do not fit"):
        fit_decisions(log_odds[:, :3], labels[:, :3], subjects).write(bundle, "")
    assert len(UNITS) == 5


def test_bad_input_is_refused_with_a_reason() -> None:
    log_odds, labels, subjects = world(100)
    with pytest.raises(UserError, match="two subjects"):
        fit_decisions(log_odds, labels, np.zeros(100))
    with pytest.raises(UserError, match="one shape"):
        fit_decisions(log_odds[:, :2], labels, subjects)
    with pytest.raises(UserError, match="not finite"):
        fit_decisions(log_odds * np.nan, labels, subjects)
    with pytest.raises(UserError, match="between 0 and 1"):
        Goal(precision=1.5)
