"""Ids through crossings, misses and absences, on synthetic walks with known identities; with negative controls."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from walks import Walk, crossing, follow_walk, switches

from vlfau.engine.tracking.assignment import assign
from vlfau.engine.tracking.follow import Seen, Tracker, distinct, looks, unlike


@pytest.mark.parametrize("seed", range(40))
def test_assignment_is_the_cheapest(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.integers(1, 5, 2).tolist()
    costs = random.random((rows, columns)).round(2)
    costs[random.random(costs.shape) < 0.2] = np.inf
    alone = float(random.choice([0.3, 0.8, 5.0]))
    chosen = assign(costs, alone)
    taken = [c for c in chosen if c >= 0]
    assert len(set(taken)) == len(taken)
    price = sum(alone if c < 0 else costs[r, c] for r, c in enumerate(chosen))
    slots = [*range(columns), *[-1] * rows]
    best = min(
        sum(alone if c < 0 else costs[r, c] for r, c in enumerate(option)) for option in set(permutations(slots, rows))
    )
    assert price == pytest.approx(best)


def test_assignment_of_many_agrees_with_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    costs = np.random.default_rng(0).random((30, 30))
    rows, columns = optimize.linear_sum_assignment(costs)
    chosen = assign(costs, 10.0)
    assert costs[np.arange(30), chosen].sum() == pytest.approx(costs[rows, columns].sum())


def seen(boxes: list[list[float]], origin: list[int], identities: list[int] | None = None) -> Seen:
    """Faces with random looks, one per identity."""
    faces = [np.random.default_rng(100 + k).normal(size=64) for k in (identities or range(len(boxes)))]
    vectors = np.array([face / np.linalg.norm(face) for face in faces], np.float32).reshape(len(boxes), 64)
    return Seen(np.array(boxes, np.float32).reshape(-1, 4), vectors, np.array(origin, np.int64))


def test_a_face_keeps_its_id_through_a_short_absence_and_not_a_long_one() -> None:
    tracker = Tracker(memory_s=2.0)
    box = [[100.0, 100, 200, 200]]
    assert tracker.update(seen(box, [-1]), 0.0).tolist() == [0]
    assert tracker.update(seen([], []), 0.5).tolist() == []
    assert tracker.update(seen(box, [-1]), 1.5).tolist() == [0]
    assert tracker.update(seen([], []), 1.6).tolist() == []
    assert tracker.update(seen([], []), 4.0).tolist() == []
    assert tracker.update(seen(box, [-1]), 4.1).tolist() == [1]


def test_another_face_in_the_same_place_gets_another_id() -> None:
    tracker = Tracker()
    box = [[100.0, 100, 200, 200]]
    tracker.update(seen(box, [-1], identities=[0]), 0.0)
    tracker.update(seen([], []), 0.3)
    assert tracker.update(seen(box, [-1], identities=[1]), 0.9).tolist() == [1]


def test_a_face_that_reappears_elsewhere_is_recognised_by_its_looks() -> None:
    tracker = Tracker()
    tracker.update(seen([[0.0, 100, 100, 200], [400, 100, 500, 200]], [-1, -1]), 0.0)
    tracker.update(seen([[400.0, 100, 500, 200]], [1], identities=[1]), 0.04)
    ids = tracker.update(seen([[400.0, 100, 500, 200], [700, 300, 800, 400]], [1, -1], identities=[1, 0]), 2.0)
    assert ids.tolist() == [1, 0]


def test_a_jump_from_one_face_to_another_is_undone() -> None:
    """Both boxes slid onto the wrong face while they touched; the looks reveal it."""
    tracker = Tracker()
    for i in range(30):
        tracker.update(seen([[100.0, 100, 200, 200], [300.0, 100, 400, 200]], [-1, -1] if i == 0 else [0, 1]), i / 25)
    near = [[170.0, 100, 270, 200], [230.0, 100, 330, 200]]
    tracker.update(seen(near, [0, 1]), 1.24)
    assert tracker.update(seen(near, [1, 0]), 1.28).tolist() == [0, 1]


def test_ids_survive_a_change_of_the_frame_size() -> None:
    tracker = Tracker()
    tracker.update(seen([[100.0, 100, 200, 200]], [-1]), 0.0)
    tracker.rescale(np.array([0.5, 0.5], np.float32))
    assert tracker.expected(0.04)[0] == pytest.approx([50, 50, 100, 100])


def test_a_face_is_not_reported_twice() -> None:
    boxes = np.array([[0, 0, 100, 100], [5, 5, 104, 103], [90, 0, 190, 100]], np.float32)
    assert distinct(boxes, np.array([0.5, 0.9, 0.8], np.float32)) == [1, 2]


def test_looks_ignore_light_and_distinguish_people() -> None:
    random = np.random.default_rng(0)
    one, two = (random.integers(0, 200, (9, 9, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(2))
    dark = (one * 0.5 + 20).astype(np.uint8)
    rows = looks(np.stack([one, dark, two]))
    apart: NDArray[np.float32] = unlike(rows[0], rows)
    assert apart[1] < 0.02
    assert apart[2] > 0.5


@pytest.mark.parametrize("speed", [80, 240])
@pytest.mark.parametrize("gap", [0, 30])
def test_two_faces_that_cross_keep_their_ids(speed: float, gap: float) -> None:
    """One passes in front of the other and hides it for a while; `gap` is the distance of their paths in pixels."""
    result = follow_walk(crossing(speed, gap))
    assert switches(result) == 0
    assert {identity for frame in result for identity, _ in frame} == {0, 1}
    assert len({track for frame in result for _, track in frame}) == 2


def test_without_looks_and_motion_the_crossing_does_mix_them_up() -> None:
    """The negative control: the nearest position alone fails on the same walk."""
    assert switches(follow_walk(crossing(240, 0), naive=True)) > 0


def test_thirty_faces_in_one_frame() -> None:
    people = [
        Walk(start=(60 + 120 * (k % 8), 60 + 120 * (k // 8)), velocity=(8 - k % 5, k % 3 - 1), identity=k)
        for k in range(30)
    ]
    result = follow_walk(people, frames=60, width=1100)
    assert switches(result) == 0
    assert len(result[-1]) == 30
