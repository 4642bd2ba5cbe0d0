"""Metrics against their definitions, written out the slow way; unknown labels have no effect."""

from __future__ import annotations

import numpy as np
import pytest

from vlfau.models import metrics


def _random(n: int = 400, units: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, (n, units)).astype(np.int8)
    scores = np.round(rng.random((n, units)) * 0.6 + 0.4 * (labels == 1) * rng.random((n, units)), 2)  # with ties
    return labels, scores, rng.integers(0, 7, n)


def test_counts_f1_and_accuracy_are_what_their_definitions_say() -> None:
    labels, scores, _ = _random()
    table = metrics.counts(labels, scores >= 0.5)
    for unit in range(labels.shape[1]):
        pairs = [(y, s >= 0.5) for y, s in zip(labels[:, unit], scores[:, unit]) if y >= 0]
        tp, fp = sum(y == 1 and s for y, s in pairs), sum(y == 0 and s for y, s in pairs)
        fn = sum(y == 1 and not s for y, s in pairs)
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        assert metrics.f1(table)[unit] == pytest.approx(2 * precision * recall / (precision + recall))
        assert metrics.accuracy(table)[unit] == pytest.approx(np.mean([y == s for y, s in pairs]))


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    labels, scores, _ = _random(n=120)
    areas = metrics.auc(labels, scores)
    for unit in range(labels.shape[1]):
        yes, no = scores[labels[:, unit] == 1, unit], scores[labels[:, unit] == 0, unit]
        difference = yes[:, None] - no[None, :]
        assert areas[unit] == pytest.approx(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_unknown_labels_change_nothing() -> None:
    labels, scores, _ = _random()
    other = np.where(labels < 0, 1 - scores, scores)  # other scores where the label is unknown
    assert not np.array_equal(other, scores)
    assert np.array_equal(metrics.counts(labels, scores >= 0.5), metrics.counts(labels, other >= 0.5))
    assert np.array_equal(metrics.auc(labels, scores), metrics.auc(labels, other))
    wrong = np.where(labels == 1, 1 - scores, scores)
    assert not np.array_equal(metrics.auc(labels, scores), metrics.auc(labels, wrong))


def test_a_unit_without_positives_has_no_f1_and_stays_out_of_the_mean() -> None:
    labels = np.array([[0, 1], [0, 1], [0, 0]], np.int8)
    f1 = metrics.f1(metrics.counts(labels, np.ones(labels.shape, bool)))
    assert np.isnan(f1[0])
    assert metrics.mean(f1) == pytest.approx(0.8)


def test_always_yes_scores_twice_the_rate_over_one_plus_the_rate() -> None:
    labels = np.array([[1]] * 30 + [[0]] * 70, np.int8)
    assert metrics.all_ones(labels)[0] == pytest.approx(2 * 0.3 / 1.3)


def test_interval_holds_the_mean_and_widens_when_subjects_differ() -> None:
    labels, scores, subjects = _random(n=2000)
    states = scores >= 0.5
    middle = metrics.mean(metrics.f1(metrics.counts(labels, states)))
    low, high = metrics.subject_interval(labels, states, subjects)
    assert low < middle < high
    spoiled = states ^ (subjects < 2)[:, None]  # all wrong on two of seven subjects
    low2, high2 = metrics.subject_interval(labels, spoiled, subjects)
    assert high2 - low2 > 2 * (high - low)


def test_one_subject_gives_no_interval() -> None:
    labels, scores, _ = _random()
    assert np.isnan(metrics.subject_interval(labels, scores > 0.5, np.zeros(len(labels)))).all()


def test_calibration_error_of_calibrated_and_of_overconfident_probabilities() -> None:
    rng = np.random.default_rng(1)
    p = rng.random((20000, 1))
    labels = (rng.random(p.shape) < p).astype(np.int8)
    assert metrics.calibration_error(labels, p) < 0.02
    assert metrics.calibration_error(labels, np.where(p > 0.5, 0.99, 0.01)) > 0.2


def test_probabilities_never_overflow_and_keep_their_type() -> None:
    log_odds = np.array([-1000, -2, 0, 2, 1000], np.float32)
    p = metrics.sigmoid(log_odds)
    assert p.dtype == np.float32
    assert p[[0, 2, 4]].tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(p[[1, 3]], 1 / (1 + np.exp([2.0, -2.0])), rtol=1e-6)


def test_json_gets_no_nan() -> None:
    assert metrics.number(np.float64("nan")) is None
    assert metrics.number(np.float32(0.5)) == 0.5
