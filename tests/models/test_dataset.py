"""Samples: aligned as by the engine, a function of (seed, epoch, index) alone, in an order that can be resumed."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import synthetic_layouts as synthetic
import torch
from numpy.typing import NDArray

from vlfau.models.data import DataChoice, open_data
from vlfau.models.data.augmentation import PAPER, Augmentation, photometric
from vlfau.models.data.batches import FILES_AT_ONCE, BatchOrder, Loader
from vlfau.models.data.crop_cache import CropCache, images, padded, read_image
from vlfau.models.data.layouts import open_layout
from vlfau.models.data.samples import Crops, ShardSamples, batch
from vlfau.models.data.shards import open_shard, read_shards
from vlfau.models.errors import UserError
from vlfau.models.faces import align
from vlfau.models.faces.points import PointFinder
from vlfau.models.terminal import Progress

STILL = Augmentation(flip=0, cutout=0, shift=0)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    synthetic.make_shards(tmp_path / "shards")
    return tmp_path / "shards"


# ---- stored crops


@pytest.mark.parametrize("side", [48, 49, 112, 224])
def test_middle_of_a_stored_crop_is_the_engines_crop(tmp_path: Path, side: int) -> None:
    synthetic.make_graphau(tmp_path, "DISFA")
    table = open_layout(tmp_path).only(np.arange(2))
    cache = CropCache(tmp_path / "crops", side, synthetic.find_points)
    prepared = cache.prepare(table)
    crop = Crops(prepared, cache, augmentation=None).crop(1)
    expected = align.align(read_image(table, 1), synthetic.POINTS[None], side)[0]
    np.testing.assert_array_equal(crop, expected)
    assert cache.read(prepared, 1).shape == (padded(side), padded(side), 3)
    other = align.align(read_image(table, 1), synthetic.POINTS[None] + 1, side)[0]
    assert (other != expected).any()  # another alignment would have been seen


def test_cache_is_filled_once_and_again_when_an_image_changes(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "DISFA")
    table = open_layout(tmp_path)
    calls: list[int] = []

    def counted(
        picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
        calls.append(1)
        return synthetic.find_points(picture)

    cache = CropCache(tmp_path / "crops", 48, counted)
    steps: list[tuple[int, int]] = []
    assert len(cache.prepare(table, lambda done, count: steps.append((done, count)))) == len(table) == len(calls)
    assert steps[-1] == (len(table), len(table))
    cache.prepare(table)
    assert len(calls) == len(table)
    cv2.imwrite(table.images[5], np.zeros((96, 96, 3), np.uint8))  # now without a face
    left = cache.prepare(table)
    assert len(calls) == len(table) + 1
    assert len(left) == len(table) - 1
    assert table.images[5] in left.notes[-1]
    cache.prepare(table)
    assert len(calls) == len(table) + 1  # a missing face is remembered, too
    assert not list((tmp_path / "crops").rglob("*.partial"))
    CropCache(tmp_path / "crops", 50, counted).prepare(table)
    assert len(calls) == 2 * len(table) + 1  # another side is another crop


def test_a_crop_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "DISFA")
    (tmp_path / "crops").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be written: .* choose another --cache"):
        CropCache(tmp_path / "crops", 48, synthetic.find_points).prepare(open_layout(tmp_path))


def test_no_face_anywhere_is_an_error(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "DISFA")
    with pytest.raises(UserError, match="No face was found in any"):
        CropCache(tmp_path / "crops", 48, lambda picture: None).prepare(open_layout(tmp_path))
    with pytest.raises(UserError, match="needs a folder"):
        CropCache(None, 48, synthetic.find_points)


def test_aligned_images_are_only_scaled(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "DISFA")
    table = open_layout(tmp_path)
    cache = CropCache(None, 56, None)
    assert cache.prepare(table) is table
    stored = cache.read(table, 0)
    np.testing.assert_array_equal(stored, cv2.resize(read_image(table, 0), (64, 64), interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(Crops(table, cache, augmentation=None).crop(0), stored[4:60, 4:60])


def test_frames_of_a_video_are_the_coded_ones(tmp_path: Path) -> None:
    coded = synthetic.make_raw_disfa(tmp_path)
    table = open_layout(tmp_path)
    rows = [7, 2, 11]
    frames = dict(images(table, rows))
    assert sorted(frames) == sorted(rows)
    for row, picture in frames.items():
        subject = table.subject_names[table.subjects[row]]
        expected = synthetic.draw(coded[subject, "", int(table.frames[row])], subject)
        np.testing.assert_array_equal(picture, expected)
        np.testing.assert_array_equal(read_image(table, row), expected)
    too_far = replace(table, frames=table.frames + 4)
    with pytest.raises(UserError, match=r"ends after 4 frames, .*_au1\.txt:\d+ asks for frame"):
        list(images(too_far, [3]))


@pytest.mark.parametrize("name", ["jpg", "png"])
def test_broken_images_are_named_with_their_line(tmp_path: Path, name: str) -> None:
    for i in range(3):
        synthetic.write_picture(tmp_path / f"{i}.{name}", [1, 0], "x")
    synthetic.write_lines(tmp_path / "all.csv", ["path,subject,AU1", *(f"{i}.{name},s{i},1" for i in range(3))])
    table = open_layout(tmp_path)
    whole = (tmp_path / f"1.{name}").read_bytes()
    (tmp_path / f"1.{name}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"2.{name}").unlink()
    cache = CropCache(tmp_path / "crops", 48, synthetic.find_points)
    assert read_image(table, 0).shape == (96, 96, 3)
    with pytest.raises(UserError, match=rf"1\.{name} \(.*all\.csv:3\) is truncated"):
        read_image(table, 1)
    with pytest.raises(UserError, match=rf"2\.{name} \(.*all\.csv:4\) does not exist"):
        cache.prepare(table)
    samples = Crops(table, CropCache(None, 48, None))
    for workers in (0, 1):
        with pytest.raises(UserError, match="is truncated") as caught:
            list(Loader(samples, BatchOrder(samples, 2, shuffle=False), workers=workers))
        assert "Traceback" not in str(caught.value)


def test_crops_shift_flip_and_stay_inside(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "DISFA")
    table = open_layout(tmp_path)
    cache = CropCache(None, 56, None)
    plain = replace(PAPER, cutout=0)
    samples = Crops(table, cache, augmentation=plain, seed=3)
    stored = cache.read(table, 0)
    windows = {stored[y : y + 56, x : x + 56].tobytes() for y, x in itertools.product(range(9), repeat=2)}
    mirrored = {
        np.ascontiguousarray(stored[y : y + 56, x : x + 56][:, ::-1]).tobytes()
        for y, x in itertools.product(range(9), repeat=2)
    }
    seen = [samples.crop(0, epoch).tobytes() for epoch in range(60)]
    assert all(crop in windows | mirrored for crop in seen)
    assert 15 < sum(crop in mirrored for crop in seen) < 45
    assert len(set(seen)) > 30


# ---- shards


def test_shards_give_the_documented_batch(shards: Path) -> None:
    samples = ShardSamples(shards, 64, units=("AU12", "AU01", "AU43"), augmentation=None)
    part = batch(samples, range(30, 40))
    assert {name: (array.shape, str(array.dtype)) for name, array in part.items()} == {
        "crops": ((10, 64, 64, 3), "uint8"),
        "labels": ((10, 3), "int8"),
        "intensity": ((10, 3), "float32"),
        "subject": ((10,), "int64"),
        "face": ((10,), "uint8"),
        "index": ((10,), "int64"),
        "points": ((10, 68, 2), "float32"),
    }
    arrays = open_shard(shards / "shard-00001.safetensors")[1]  # 24 images per file: 30 is the seventh of the second
    columns = [synthetic.RENDERED.index(unit) for unit in ("AU12", "AU01", "AU43")]
    np.testing.assert_array_equal(part["labels"], arrays["presence"][6:16, columns])
    level = arrays["intensity"][6:16].astype(np.float32).max(2)[:, columns]
    level[arrays["face"][6:16] == 0] = np.nan
    np.testing.assert_array_equal(part["intensity"], level)
    np.testing.assert_array_equal(part["face"], arrays["face"][6:16])
    exact = align.align(arrays["images"][6], align.five_points(arrays["points"][6])[None], 64)[0]
    np.testing.assert_array_equal(part["crops"][0], exact)
    names = [samples.subject_names[i] for i in part["subject"]]
    assert names == [f"person {i}" for i in arrays["identity"][6:16]]


def test_sample_depends_on_seed_epoch_and_index_only(shards: Path) -> None:
    samples = ShardSamples(shards, 64, seed=5)
    crops = batch(samples, [3, 9, 20], epoch=2)["crops"]
    np.testing.assert_array_equal(batch(samples, [9], epoch=2)["crops"][0], crops[1])
    np.testing.assert_array_equal(batch(ShardSamples(shards, 64, seed=5), [20, 9], epoch=2)["crops"], crops[[2, 1]])
    assert (batch(samples, [9], epoch=3)["crops"][0] != crops[1]).any()
    assert (batch(ShardSamples(shards, 64, seed=6), [9], epoch=2)["crops"][0] != crops[1]).any()


def test_landmark_error_moves_the_crop_and_nothing_else_does(shards: Path) -> None:
    exact = ShardSamples(shards, 64, augmentation=None)
    np.testing.assert_array_equal(ShardSamples(shards, 64, augmentation=STILL).crop(4, 1), exact.crop(4))
    moved = ShardSamples(shards, 64, augmentation=replace(STILL, points=0.07))
    assert (moved.crop(4, 1) != exact.crop(4)).any()
    flipped = ShardSamples(shards, 64, augmentation=replace(STILL, flip=1))
    np.testing.assert_array_equal(flipped.crop(4, 1), exact.crop(4)[:, ::-1])


def test_closed_eyes_are_found_lower_and_open_ones_are_not(shards: Path) -> None:
    renders = read_shards(shards)
    row = int(np.flatnonzero(renders.face)[0])
    upper, lower = [37, 38, 43, 44], [41, 40, 47, 46]
    heights = {}
    for name, gap in (("open", 0.2), ("shut", 0.0)):
        points = renders.points.copy()
        five = align.five_points(points[row : row + 1])[0]
        points[row, upper] = points[row, lower] - gap * np.array([0, np.linalg.norm(five[1] - five[0])])
        samples = ShardSamples(replace(renders, points=points), 64, augmentation=replace(STILL, sink=0.05))
        exact = ShardSamples(replace(renders, points=points), 64, augmentation=None).points(row)
        moves = [samples.points(row, epoch)[27:36, 1] - exact[27:36, 1] for epoch in range(40)]  # of the nose
        heights[name] = np.mean(moves, 1)
    assert np.abs(heights["open"]).max() < 1e-6
    assert heights["shut"].mean() < -0.001  # the crop goes down with the eyes' places: what it shows goes up
    assert heights["shut"].std() > 0.001


def test_points_lie_where_the_crop_shows_them(shards: Path) -> None:
    """Five of them match the template, and all move with the crop."""
    exact = ShardSamples(shards, 64, augmentation=None)
    row = int(np.flatnonzero(exact.renders.face)[0])
    five = align.five_points(exact.points(row))
    assert np.abs(five[:2] - align.TEMPLATE[:2]).max() < 0.05
    mirrored = ShardSamples(shards, 64, augmentation=replace(STILL, flip=1)).points(row, 1)
    np.testing.assert_allclose(align.five_points(mirrored)[0], [1 - five[1, 0], five[1, 1]], atol=1e-5)
    shifted = ShardSamples(shards, 64, augmentation=replace(STILL, shift=0.1), seed=3)
    moved = 64 * (shifted.points(row, 1) - exact.points(row)).mean(0)
    seen = cv2.warpAffine(exact.crop(row), np.array([[1, 0, moved[0]], [0, 1, moved[1]]]), (64, 64))
    middle = slice(16, 48)
    assert np.abs(shifted.crop(row, 1)[middle, middle].astype(float) - seen[middle, middle]).mean() < 8
    faceless = int(np.flatnonzero(exact.renders.face == 0)[0])
    assert np.isnan(exact.points(faceless)).all()


@pytest.mark.parametrize(("name", "amount"), [("turn_deg", 15.0), ("zoom", 0.2)])
def test_points_of_turned_and_zoomed_crops_follow_the_image(shards: Path, name: str, amount: float) -> None:
    exact = ShardSamples(shards, 64, augmentation=None)
    row = int(np.flatnonzero(exact.renders.face)[0])
    moved = ShardSamples(shards, 64, augmentation=replace(STILL, **{name: amount}), seed=3)
    before = 64 * align.five_points(exact.points(row))
    places = [64 * align.five_points(moved.points(row, epoch)) for epoch in range(20)]
    epoch = int(np.argmax([np.abs(after - before).max() for after in places]))
    matrix, _ = cv2.estimateAffinePartial2D(before - 0.5, places[epoch] - 0.5)
    middle = slice(16, 48)
    crops = [cv2.warpAffine(exact.crop(row), matrix, (64, 64)), moved.crop(row, epoch), exact.crop(row)]
    expected, crop, unmoved = (crop[middle, middle].astype(float) for crop in crops)
    assert np.abs(crop - expected).mean() < 0.5 * np.abs(unmoved - expected).mean()


POSITIONS = {"flip", "shift", "points", "sink", "turn_deg", "zoom"}  # move the crop and leave its colours
DISTORTIONS = [name for name in Augmentation.__dataclass_fields__ if name not in POSITIONS]


@pytest.mark.parametrize("name", DISTORTIONS)
def test_every_distortion_changes_the_crop_and_keeps_its_shape(name: str) -> None:
    rng = np.random.default_rng(0)
    crop = cv2.resize(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8), (112, 112))
    for seed in range(10):
        how = replace(STILL, **{name: 1.0})
        changed = photometric(crop, np.random.default_rng(seed), how)
        assert (changed.shape, changed.dtype) == (crop.shape, crop.dtype)
        assert (changed != crop).any()
    np.testing.assert_array_equal(photometric(crop, rng, STILL), crop)


def test_subjects_are_split_and_stay_on_their_side(shards: Path) -> None:
    samples = ShardSamples(shards, 64)
    train, held = samples.split(0.3)
    assert len(train) + len(held) == len(samples)
    assert not set(train.subject_names) & set(held.subject_names)
    assert train.augmentation is not None
    assert held.augmentation is None
    fewer = ShardSamples(shards, 64, rows=np.arange(24)).split(0.3)[1]
    assert set(fewer.subject_names) <= set(held.subject_names)
    with pytest.raises(UserError, match="too few"):
        samples.split(0.0)


def test_damaged_shards_are_refused(shards: Path) -> None:
    path = shards / "shard-00001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"shard-00001\.safetensors is damaged.*the header says"):
        ShardSamples(shards, 64)
    path.write_bytes(b"nonsense" * 10)
    with pytest.raises(UserError, match="damaged"):
        ShardSamples(shards, 64)
    path.write_bytes(whole.replace(b"AU43", b"AU99", 1))
    with pytest.raises(UserError, match="AU43"):
        ShardSamples(shards, 64)
    path.write_bytes(whole.replace(b'"schema":"1"', b'"schema":"7"'))
    with pytest.raises(UserError, match="schema 1"):
        ShardSamples(shards, 64)
    with pytest.raises(UserError, match="holds no shard"):
        ShardSamples(shards.parent, 64)


# ---- order and workers


def test_order_is_a_permutation_and_resumes(shards: Path) -> None:
    samples = ShardSamples(shards, 32)
    order = BatchOrder(samples, 8, seed=1)
    order.epoch = 4
    whole = list(order)
    assert len(whole) == len(order) == order.batches == 6
    assert sorted(index for part in whole for _, index in part) == list(range(48))
    assert {epoch for part in whole for epoch, _ in part} == {4}
    order.start = 2
    assert list(order) == whole[2:]
    assert len(order) == 4
    order.start, order.epoch = 0, 5
    assert list(order) != whole
    straight = BatchOrder(samples, 10, shuffle=False)
    assert [index for part in straight for _, index in part] == list(range(48))


def test_processes_share_the_batches_of_one(shards: Path) -> None:
    samples = ShardSamples(shards, 32)
    whole = list(BatchOrder(samples, 8, seed=1))
    shares = [list(BatchOrder(samples, 8, seed=1, rank=rank, world=2)) for rank in (0, 1)]
    for part, first, second in zip(whole, *shares):
        assert len(first) == len(second) == 4
        assert sorted(first + second) == sorted(part)
    with pytest.raises(UserError, match="cannot be shared by 3"):
        BatchOrder(samples, 8, world=3)
    with pytest.raises(UserError, match="do not fill"):
        BatchOrder(samples, 64)


def test_many_files_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path, count=3, files=FILES_AT_ONCE * 2)
    samples = ShardSamples(tmp_path, 32)
    order = BatchOrder(samples, 3, seed=1).indices()
    assert sorted(order.tolist()) == list(range(len(samples)))
    first = order[: 3 * FILES_AT_ONCE] // 3
    assert len(set(first.tolist())) == FILES_AT_ONCE


def test_workers_change_nothing_and_waiting_is_counted(shards: Path) -> None:
    samples = ShardSamples(shards, 32, seed=9)
    runs = []
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 2):
        order = BatchOrder(samples, 12, seed=2)
        loader = Loader(samples, order, workers=workers)
        epochs = []
        for order.epoch in (0, 1):
            epochs += [{name: tensor.clone() for name, tensor in part.items()} for part in loader]
        assert loader.waited_s > 0
        runs.append(epochs)
    for first, second in zip(*runs, strict=True):
        for name, tensor in first.items():
            assert tensor.dtype == second[name].dtype
            assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(second[name]))
    assert not torch.equal(runs[0][0]["crops"], runs[0][4]["crops"])
    assert torch.equal(torch.get_rng_state(), before)  # resuming restores torch's state: loading must not move it


# ---- opening a data set for training


class TwoProcesses:
    """Stands in for the two processes of a training; they never wait for each other."""

    world = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def wait(self) -> None:
        pass


def test_raw_releases_are_aligned_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))
    synthetic.make_raw_bp4d(tmp_path / "data", video=synthetic.BP4D_VIDEOS[0])
    lines: list[str] = []
    choice = DataChoice(data=tmp_path / "data")
    (part,) = open_data(choice, 48, find_points=synthetic.find_points, report=lines.append)
    assert any("test part 3 in their fold 1" in line for line in lines)  # fold numbers differ between projects
    assert lines[-1].startswith("fold 1 tests part 3: subjects F007 F015")
    assert any("Part 3 of BP4D has 16 images, the full one 46034" in line for line in lines)
    assert part.test is not None
    table = part.test.table  # type: ignore[attr-defined]
    row = int(part.test.rows[0])  # type: ignore[attr-defined]
    expected = align.align(read_image(table, row), synthetic.POINTS[None], 48)[0]
    np.testing.assert_array_equal(part.test.crop(0), expected)
    assert list((tmp_path / "cache" / "crops").rglob("*.png"))
    (plain,) = open_data(replace(choice, align=False), 48, report=lines.append)
    assert plain.test is not None
    assert (plain.test.crop(0) != expected).any()


def test_frames_of_videos_are_cached_even_without_alignment(tmp_path: Path) -> None:
    synthetic.make_raw_disfa(tmp_path / "data")
    table = open_layout(tmp_path / "data")
    cache = CropCache(tmp_path / "crops", 56, None)
    before = cache.read(table, 3)
    cache.prepare(table)
    for path in (tmp_path / "data").rglob("*.avi"):
        info = path.stat()
        path.write_bytes(b"x" * info.st_size)  # the crops no longer come from here
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    np.testing.assert_array_equal(cache.read(table, 3), before)


def test_processes_share_the_alignment(tmp_path: Path) -> None:
    synthetic.make_raw_disfa(tmp_path / "data", videos=False)
    choice = DataChoice(data=tmp_path / "data", cache=tmp_path / "crops")
    table = open_layout(tmp_path / "data")
    calls: list[int] = []

    def counted(picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        calls.append(1)
        return synthetic.find_points(picture)

    first = CropCache(tmp_path / "crops", 48, counted)
    first.fill(table, rank=0, world=2)
    assert len(calls) == len(table) / 2
    group: Any = TwoProcesses(1)
    (part,) = open_data(choice, 48, find_points=counted, report=lambda _: None, group=group)
    assert len(calls) == len(table)  # no image twice
    assert part.test is not None


def test_progress_is_reported_now_and_then() -> None:
    lines: list[str] = []
    Progress("Cutting", report=lines.append, every_s=-1).show(5, 10)
    assert lines[0].startswith("Cutting: 5 of 10, 0 min")
    progress = Progress("Cutting", total=10, done=4, report=lines.append)
    progress.add(1)
    assert len(lines) == 1  # half a minute has not passed
    progress.close()
    assert lines[1].startswith("Cutting: 5 of 10")


def test_tightly_cut_images_are_searched_again_with_a_border(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points found in the padded image are returned in pixels of the original one."""
    finder = PointFinder.__new__(PointFinder)
    shapes: list[tuple[int, ...]] = []

    def find(self: PointFinder, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        shapes.append(picture.shape)
        return synthetic.POINTS + 32 if picture.shape[0] > 96 else None

    monkeypatch.setattr(PointFinder, "_find", find)
    points = finder(np.zeros((96, 90, 3), np.uint8))
    assert shapes == [(96, 90, 3), (160, 154, 3)]
    assert points is not None
    np.testing.assert_allclose(points, synthetic.POINTS, atol=1e-4)
