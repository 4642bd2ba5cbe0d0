"""When the detector runs and which faces count: region, number, size, stills, jumps of frame size and time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from walks import Walk, World

from vlfau.engine.packets import Ended, Faces, Frame, Stamp
from vlfau.engine.settings import FaceSettings
from vlfau.engine.tracking.find import FaceFinder, find_faces
from vlfau.models.errors import UserError

STANDING = [Walk((160 * k + 100, 200), (0, 0), k) for k in range(4)]


def finder(world: World, stills: tuple[str, ...] = (), **settings: Any) -> FaceFinder:
    return FaceFinder(FaceSettings(**settings), world, world, 64, stills=stills)


def look(finder: FaceFinder, world: World, times: list[float]) -> list[Faces]:
    return [next(finder.find([world.frame(t, i)])) for i, t in enumerate(times)]


def steady(seconds: float, fps: float = 25.0) -> list[float]:
    return [i / fps for i in range(int(seconds * fps))]


def test_the_detector_rests_while_all_faces_hold() -> None:
    world = World(STANDING, miss_rate=0.0)
    results = look(finder(world), world, steady(4))
    assert [len(faces) for faces in results] == [4] * 100
    assert world.detections == 4, "once a second for new faces"
    every = World(STANDING, miss_rate=0.0)
    look(finder(every, detect_every=1), every, steady(4))
    assert every.detections == 100


def test_without_a_face_the_detector_looks_ten_times_a_second() -> None:
    world = World([])
    results = look(finder(world), world, steady(4))
    assert all(len(faces) == 0 for faces in results)
    assert world.detections == pytest.approx(40, abs=8)
    assert results[0].crops.shape == (0, 64, 64, 3)


def test_a_lost_face_is_searched_for_in_the_same_frame_and_soon_found_again() -> None:
    walk = Walk((200, 200), (0, 0), 0, absent=(1.0, 1.6))
    world = World([walk], miss_rate=0.0)
    results = look(finder(world), world, steady(3))
    missing = [i for i, faces in enumerate(results) if not len(faces)]
    assert missing[0] == 25
    assert missing[-1] <= 41, "it is back within three frames"
    assert {int(track) for faces in results for track in faces.tracks} == {0}


def test_a_new_face_is_found_within_the_scan() -> None:
    new = Walk((400, 200), (0, 0), 1, absent=(0.0, 1.5))
    world = World([STANDING[0], new], miss_rate=0.0)
    results = look(finder(world, scan=0.4), world, steady(3))
    first = next(i for i, faces in enumerate(results) if len(faces) == 2)
    assert 1.5 <= first / 25 <= 1.95


def test_region_number_and_size() -> None:
    world = World(STANDING, miss_rate=0.0)
    assert len(look(finder(world, roi=(0.0, 0.0, 0.5, 1.0)), world, [0.0])[0]) == 2
    assert len(look(finder(world, roi=(0.0, 0.0, 320.0, 480.0)), world, [0.0])[0]) == 2
    limited = look(finder(world, max_faces=3), world, steady(3))
    assert [len(faces) for faces in limited] == [3] * 75
    assert {tuple(faces.tracks) for faces in limited} == {(0, 1, 2)}, "the same three"
    assert len(look(finder(world, min_face=200.0), world, [0.0])[0]) == 0


@pytest.mark.parametrize("roi", [(0.1, 0.2, 0.3), (0.5, 0, 0.5, 1), (0, 10, 100, 5)])
def test_a_wrong_region_is_refused(roi: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="--roi needs four numbers"):
        FaceSettings(roi=roi)


def test_a_region_outside_the_frame_finds_nothing() -> None:
    world = World(STANDING)
    assert len(look(finder(world, roi=(5000.0, 5000.0, 6000.0, 6000.0)), world, [0.0, 0.04])[1]) == 0


def test_a_face_half_outside_the_frame_is_not_valid() -> None:
    world = World([Walk((3, 200), (0, 0), 0), Walk((300, 200), (0, 0), 1)], miss_rate=0.0)
    faces = look(finder(world), world, [0.0])[0]
    order = np.argsort(faces.boxes[:, 0])
    assert faces.valid[order].tolist() == [False, True]


def test_stills_stand_alone() -> None:
    world = World(STANDING[:1], miss_rate=0.0)
    results = look(finder(world, stills=("walk",)), world, steady(0.2))
    assert [faces.tracks.tolist() for faces in results] == [[i] for i in range(5)]
    assert world.detections == 5


@pytest.mark.parametrize("times", [[0, 0.04, -1e6, -1e6 + 0.04, 7, 7, 7, 1e12], [5.0] * 8])
def test_a_clock_that_jumps_loses_no_face(times: list[float]) -> None:
    world = World(STANDING, miss_rate=0.0)
    used = finder(world)
    for i, t in enumerate(times):
        still = world.frame(0.0, i)
        faces = next(used.find([Frame(Stamp("walk", i, t, 0, time.monotonic_ns()), still.pixels)]))
        assert faces.tracks.tolist() == [0, 1, 2, 3]
        assert np.isfinite(faces.boxes).all()


def test_a_change_of_the_frame_size_keeps_the_ids() -> None:
    world = World([Walk((200, 200), (0, 0), 0)], miss_rate=0.0)
    used = finder(world)
    assert look(used, world, [0.0])[0].tracks.tolist() == [0]
    half = World([Walk((100, 100), (0, 0), 0)], width=320, height=240, miss_rate=0.0)
    used.detector = used.landmarks = half
    faces = next(used.find([half.frame(0.04, 1)]))
    assert faces.tracks.tolist() == [0]
    assert faces.boxes[0, 0] < 100


def test_frames_of_several_streams_share_one_call_of_the_detector() -> None:
    class Counting(World):
        calls: list[int] = []  # noqa: RUF012

        def find(self, pictures: Any) -> Any:
            self.calls.append(len(pictures))
            return [super(Counting, self).find([picture])[0] for picture in pictures]

    world = Counting(STANDING, miss_rate=0.0)
    frame = world.frame(0.0, 0)
    streams = [Frame(Stamp(name, 0, 0.0, 0, 0), frame.pixels) for name in "abc"]
    results = list(finder(world).find(streams))
    assert Counting.calls == [3]
    assert [len(faces) for faces in results] == [4, 4, 4]
    assert [faces.stamp.stream for faces in results] == ["a", "b", "c"]


def test_the_stage_keeps_order_and_passes_ends_on() -> None:
    world = World(STANDING, miss_rate=0.0)
    frames = [world.frame(i / 25, i) for i in range(5)]
    items: list[Frame | Ended] = [*frames[:3], Ended("walk", "finished"), *frames[3:]]
    results = list(find_faces(items, finder(world), streams=2))
    assert [item.reason if isinstance(item, Ended) else item.stamp.index for item in results] == [
        0,
        1,
        2,
        "finished",
        3,
        4,
    ]


def test_pixels_are_dropped_unless_a_sink_shows_them() -> None:
    world = World(STANDING, miss_rate=0.0)
    assert look(finder(world), world, [0.0])[0].pixels is None
    keeping = finder(world)
    keeping.keep_pixels = True
    assert look(keeping, world, [0.0])[0].pixels is not None
