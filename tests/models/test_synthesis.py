"""The renderer: same seed, same pictures; labels agree with what is visible; points lie on the face."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from shared_files import shared

from vlfau.engine.tracking.pose import head_pose
from vlfau.models.errors import UserError
from vlfau.models.faces.align import MIRROR
from vlfau.models.synthesis import command, picture
from vlfau.models.synthesis.assets import Assets, load_assets
from vlfau.models.synthesis.camera import HeadPose, Lens
from vlfau.models.synthesis.expression import Expression, draw_expression
from vlfau.models.synthesis.occluders import unseen
from vlfau.models.synthesis.person import LIDS, Person, draw_person
from vlfau.models.synthesis.rasteriser import draw, empty_buffers
from vlfau.models.synthesis.sequence import LIGHT, render_sequence
from vlfau.models.synthesis.sheet import contact_sheet
from vlfau.models.synthesis.units import (
    ABSENT,
    INDEX,
    PRESENT,
    UNITS,
    presence,
    reconcile,
    with_measured_eyes,
    with_measured_mouth,
)

FOLDER = shared("faces3d")


@pytest.fixture(scope="module")
def assets() -> Assets:
    return load_assets(FOLDER)


@pytest.fixture(scope="module")
def people(assets: Assets) -> list[Person]:
    """One person of each head."""
    return [draw_person(np.random.default_rng(kind + 11), assets, kind) for kind in (0, 1)]


def showing(unit: str, amount: float = 1.0, side: int | None = None) -> Expression:
    intensity = np.zeros((len(UNITS), 2), np.float32)
    intensity[INDEX[unit], slice(None) if side is None else side] = amount
    return Expression("test", intensity, sealed=True)


def moved(person: Person, expression: Expression) -> NDArray[np.float32]:
    """How far each of the 68 points moves, (68, 2) in eye distances, x to the right and y up."""
    points = person.head.points
    return (points.on(person.vertices(expression)) - points.on(person.neutral))[:, :2]


# How a unit moves points: their numbers, the axis (0 sideways away from the middle, 1 up), and the direction.
MOVES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "AU01": ((21, 22), 1, 1),
    "AU02": ((17, 18, 25, 26), 1, 1),
    "AU04": ((20, 21, 22, 23), 1, -1),
    "AU05": ((37, 38, 43, 44), 1, 1),
    "AU09": ((31, 35), 1, 1),
    "AU10": ((50, 51, 52), 1, 1),
    "AU12": ((48, 54), 1, 1),
    "AU14": ((48, 54), 0, 1),
    "AU15": ((48, 54), 1, -1),
    "AU17": ((57, 58, 56), 1, 1),
    "AU20": ((48, 54), 0, 1),
    "AU25": ((66,), 1, -1),
    "AU26": ((7, 8, 9), 1, -1),
    "AU43": ((37, 38, 43, 44), 1, -1),
}


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("unit", MOVES)
def test_a_unit_moves_the_points_it_should(people: list[Person], kind: int, unit: str) -> None:
    numbers, axis, direction = MOVES[unit]
    outwards = np.sign(people[kind].head.points.on(people[kind].neutral)[:, 0]) if axis == 0 else np.ones(68)
    shift = moved(people[kind], showing(unit))[:, axis] * outwards * direction
    assert shift[list(numbers)].min() > 0.008  # eye distances: half a millimetre


def opening(person: Person, expression: Expression) -> float:
    points = person.head.points.on(person.vertices(expression))
    return float((points[[37, 38, 43, 44], 1] - points[[41, 40, 47, 46], 1]).mean())


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("unit", ["AU07", "AU43"])  # AU06 also raises cheeks, so it closes them less
def test_lids_close_as_far_on_every_face(assets: Assets, kind: int, unit: str) -> None:
    for seed in range(12):
        person = draw_person(np.random.default_rng([seed, 4]), assets, kind)
        rest = opening(person, showing(unit, 0.0))
        least, most = LIDS[unit]
        assert least - 0.06 < 1 - opening(person, showing(unit)) / rest < most + 0.06, (seed, rest)


@pytest.mark.parametrize("kind", [0, 1])
def test_an_eye_closed_by_other_units_is_labelled_as_closed(people: list[Person], kind: int) -> None:
    person = people[kind]
    both = Expression("test", showing("AU07").intensity, {"look_down": 1.0})
    for expression, label in ((showing("AU07"), 0), (both, 1)):
        assert presence(person.seen_intensity(expression, person.vertices(expression)))[INDEX["AU43"]] == label
    rest = opening(person, showing("AU43", 0.0))
    assert opening(person, showing("AU26")) == pytest.approx(rest, rel=0.02)  # the jaw does not move the lids
    with_one_shut = with_measured_eyes(showing("AU43", 0.0).intensity, np.array([1.0, 0.0]))[INDEX["AU43"]]
    assert with_one_shut.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("unit", ["AU23", "AU24"])
def test_lips_get_thinner(people: list[Person], kind: int, unit: str) -> None:
    def red(expression: Expression) -> float:
        points = people[kind].head.points.on(people[kind].vertices(expression))
        return float(points[50:53, 1].mean() - points[56:59, 1].mean())

    assert red(showing(unit)) < 0.97 * red(showing(unit, 0.0))


@pytest.mark.parametrize("kind", [0, 1])
def test_brows_and_mouth_do_not_move_each_other(people: list[Person], kind: int) -> None:
    for unit in ("AU01", "AU02", "AU04"):
        assert np.abs(moved(people[kind], showing(unit))[48:68]).max() < 0.02
    for unit in ("AU12", "AU15", "AU25", "AU26"):
        assert np.abs(moved(people[kind], showing(unit))[17:27]).max() < 0.02


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("unit", ["AU02", "AU06", "AU09", "AU12", "AU15"])
def test_side_0_is_the_left_of_the_picture(assets: Assets, people: list[Person], kind: int, unit: str) -> None:
    one, other = (moved(people[kind], showing(unit, side=side)) for side in (0, 1))
    left = np.linalg.norm(one, axis=1)[people[kind].head.points.on(people[kind].neutral)[:, 0] < -0.2]
    right = np.linalg.norm(one, axis=1)[people[kind].head.points.on(people[kind].neutral)[:, 0] > 0.2]
    assert left.max() > 4 * right.max()  # the movement is split softly at the middle of the face
    assert np.abs(one[MIRROR] * (-1, 1) - other).max() < 0.05  # the other side is the mirror image


@pytest.mark.parametrize("kind", [0, 1])
def test_points_lie_on_the_face(assets: Assets, people: list[Person], kind: int) -> None:
    """Most points lie on the visible surface."""
    person, rest = people[kind], showing("AU12", 0.0)
    lens, pose = Lens(15, 0.22, (0.5, 0.42)), HeadPose(8, 4, -3)
    shot = picture.take(person, person.vertices(rest), rest.intensity, pose, lens, LIGHT, (240, 240), assets)
    turned = person.head.points.on(person.neutral) @ pose.rotation().T
    screen = lens.project(np.ascontiguousarray(turned), (240, 240))
    columns, rows = shot.points.astype(int).T
    away = screen[:, 2] - shot.depth[rows, columns]  # positive: something is in front
    assert shot.covered[rows, columns].all()
    assert (np.abs(away[17:]) < 0.12).mean() > 0.9
    assert np.allclose(screen[:, :2], shot.points)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_engine_measures_poses_with_the_signs_of_the_renderer(people: list[Person], kind: int) -> None:
    lens, points = Lens(53.13, 0.22, (0.5, 0.5)), people[kind].head.points.on(people[kind].neutral)

    def measured(pose: HeadPose) -> NDArray[np.float32]:
        screen = lens.project(np.ascontiguousarray(points @ pose.rotation().T), (240, 240))
        return np.asarray(head_pose(screen[None, :, :2], 240, 240)[0])

    rest = measured(HeadPose(0, 0, 0))
    for axis in range(3):
        angles = np.eye(3)[axis] * 15
        assert measured(HeadPose(*angles)) - rest == pytest.approx(angles, abs=5)


def test_presence_has_a_band_of_doubt() -> None:
    intensity = np.array([[0.0, 0.0], [ABSENT - 0.01, 0], [ABSENT + 0.01, 0], [0.1, PRESENT + 0.01]], np.float32)
    assert presence(intensity).tolist() == [0, 0, -1, 1]


def test_exclusive_units_are_reconciled() -> None:
    intensity = np.zeros((len(UNITS), 2), np.float32)
    intensity[INDEX["AU24"]], intensity[INDEX["AU25"]] = 0.9, 0.5
    intensity[INDEX["AU12"]] = 0.7
    reconciled = reconcile(intensity)
    assert reconciled[INDEX["AU25"]].max() == 0
    assert reconciled[INDEX["AU24"]].max() == pytest.approx(0.9)
    assert reconciled[INDEX["AU12"]].max() == pytest.approx(0.7)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_dropped_jaw_is_labelled_as_parted_lips(people: list[Person], kind: int) -> None:
    person = people[kind]
    jaw, rest, vowel = (
        showing("AU26"),
        showing("AU26", 0.0),
        Expression("test", showing("AU26", 0).intensity, {"say_aa": 0.8}),
    )
    assert presence(person.seen_intensity(jaw, person.vertices(jaw)))[INDEX["AU25"]] == 1
    assert presence(person.seen_intensity(rest, person.vertices(rest))).tolist() == [0] * len(UNITS)
    assert presence(person.seen_intensity(vowel, person.vertices(vowel)))[INDEX["AU26"]] == 1
    assert with_measured_mouth(rest.intensity, 0.0, 0.0).max() == 0


def test_neutral_means_no_unit_and_all_ways_are_drawn(assets: Assets) -> None:
    drawn = [draw_expression(np.random.default_rng(i), assets.statistics) for i in range(1500)]
    ways = {way: [e for e in drawn if e.way == way] for way in {e.way for e in drawn}}
    assert len(ways["neutral"]) == pytest.approx(300, rel=0.25)
    assert max(e.intensity.max() for e in ways["neutral"]) < ABSENT
    alone = np.array([presence(e.intensity) == 1 for e in ways["single"]])
    assert (alone.sum(1) <= 2).mean() > 0.95
    assert alone.sum(0).min() >= 3  # every unit comes alone
    smiles = np.array([presence(e.intensity)[[INDEX["AU06"], INDEX["AU12"]]] == 1 for e in ways["correlated"]])
    assert np.corrcoef(smiles.T)[0, 1] > 0.25  # units that co-occur in people do so here


def test_hidden_units_are_unknown() -> None:
    points = np.zeros((68, 2), np.float32)
    points[48:68] = (10, 30)
    points[:48] = (10, 5)
    hidden = np.zeros((40, 40), bool)
    labels = np.ones(len(UNITS), np.int8)
    assert (unseen(labels, points, hidden) == 1).all()
    hidden[25:35] = True
    seen = unseen(labels, points, hidden)
    assert seen[INDEX["AU12"]] == -1
    assert seen[INDEX["AU26"]] == -1
    assert seen[INDEX["AU01"]] == 1


def test_wrinkles_appear_with_the_unit_and_in_its_place_only(assets: Assets, people: list[Person]) -> None:
    def change(unit: str, level: float) -> NDArray[Any]:
        wrinkles = people[0].wrinkles
        active, rest = (wrinkles.relief(showing(unit, amount).intensity) for amount in (level, 0.0))
        return np.asarray(np.abs(active - rest)[..., 0])

    frown, half = change("AU04", 1.0), change("AU04", 0.5)
    brow = (np.abs(assets.face.x) < 0.25) & (assets.face.y > 0) & (assets.face.y < 0.5)
    assert frown[brow].max() > 1.5 * half[brow].max() > 0.001
    assert frown[assets.face.y < -0.3].max() == 0
    assert change("AU17", 1.0)[(assets.face.y < -1.3) & (assets.face.y > -1.9)].max() > 0.003


def test_a_picture_depends_on_seed_and_number_only(assets: Assets) -> None:
    first = [picture.make_picture(assets, 5, number)[0] for number in range(7)]
    again = picture.make_picture(assets, 5, 6)[0]
    alone = picture.make_picture(assets, 5, 2)[0]
    assert np.array_equal(first[6].image, again.image)
    assert np.array_equal(first[2].image, alone.image)
    assert np.array_equal(first[2].intensity, alone.intensity)
    assert not np.array_equal(picture.make_picture(assets, 6, 2)[0].image, alone.image)


def test_pictures_without_a_face_have_no_labels(assets: Assets) -> None:
    start = time.perf_counter()
    pictures = [picture.make_picture(assets, 1, number)[0] for number in range(60)]
    print(f"{60 / (time.perf_counter() - start):.1f} pictures/s")
    faceless = [p for p in pictures if not p.face]
    assert 1 <= len(faceless) <= 15
    assert all((p.presence == -1).all() and p.points.max() == 0 for p in faceless)
    assert all(p.image.shape == (160, 160, 3) and p.image.std() > 1 for p in pictures if p.face)
    assert {p.head for p in pictures} == {0, 1}
    inside = np.mean([((p.points > 0) & (p.points < 159)).all(1).mean() for p in pictures if p.face])
    assert inside > 0.98


def run(folder: Path, *more: str) -> int:
    return command.main(["--assets", str(FOLDER), "--output", str(folder), "--shard-size", "5", *more])


def test_missing_shards_are_rendered_again_and_the_others_kept(tmp_path: Path) -> None:
    assert run(tmp_path, "--count", "12", "--workers", "1") == 0
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert [s.name for s in shards] == [f"shard-0000{i}.safetensors" for i in range(3)]
    before = [s.read_bytes() for s in shards]
    modified_ns = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    (tmp_path / "shard-00001.7.partial").write_bytes(b"half")  # as a killed run leaves it
    assert run(tmp_path, "--count", "12", "--workers", "1") == 0
    assert [s.read_bytes() for s in shards] == before
    assert shards[0].stat().st_mtime_ns == modified_ns
    tensors = load_file(shards[1])
    assert tensors["images"].shape == (5, 160, 160, 3)
    assert tensors["intensity"].shape == (5, len(UNITS), 2)
    assert tensors["identity"].tolist() == [1] * 5
    assert len((tmp_path / "shard-00001.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_shards_of_another_seed_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--count", "5", "--workers", "1") == 0
    assert run(tmp_path, "--count", "5", "--workers", "1", "--seed", "4") == 2
    assert "seed 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_shards(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, "--count", "60", "--workers", "2") == 0
    words = [sys.executable, "-m", "vlfau.models.synthesis.command", "--assets", str(FOLDER), "--output", str(broken)]
    process = subprocess.Popen(
        [*words, "--count", "60", "--shard-size", "5", "--workers", "1"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(broken.glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 0 < len(list(broken.glob("*.safetensors"))) < 12
    assert run(broken, "--count", "60", "--workers", "1") == 0
    for shard in whole.glob("*.safetensors"):
        assert (broken / shard.name).read_bytes() == shard.read_bytes()


def test_wrong_folders_and_flags_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"makehuman\.npz"):
        load_assets(tmp_path)
    assert command.main(["--assets", str(tmp_path), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "ict.npz" in error
    assert "LGPL-3.0" in error
    assert command.main(["--output", str(tmp_path)]) == 2
    assert "--assets" in capsys.readouterr().err
    assert command.main(["--assets", str(FOLDER), "--output", str(tmp_path), "--shard-size", "7"]) == 2
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in ("CC0", "LGPL-3.0", "MIT", "ICT-FaceKit"))


def test_without_numba_the_command_names_what_to_install() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from vlfau.models.synthesis.command import main\n"
        "sys.exit(main(['--assets', 'here', '--output', 'there']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "vlfau-stream[synthesize]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sheet_shows_every_unit(assets: Assets) -> None:
    sheet = contact_sheet(assets, side=48, units=("AU12", "AU26"), people=1)
    rest, smile = sheet[:48, :48].astype(int), sheet[:48, -48:].astype(int)
    assert sheet.shape == (2 * 48, 4 * 48, 3)
    assert np.abs(rest - smile).max() > 40


def test_a_sequence_is_steady_and_shows_the_given_units(assets: Assets) -> None:
    intensities = np.zeros((4, len(UNITS)), np.float32)
    intensities[2, INDEX["AU12"]] = 1
    frames = render_sequence(assets, 3, intensities, np.zeros((4, 3), np.float32), (96, 64), supersampling=1.0)
    assert frames.shape == (4, 64, 96, 3)
    assert np.array_equal(frames[0], frames[1])  # nothing flickers while the face is still
    assert np.array_equal(frames[0], frames[3])
    assert not np.array_equal(frames[0], frames[2])


def test_the_rasteriser_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    screen = np.concatenate([rng.uniform(-4, 36, (60, 2)), rng.uniform(1, 9, (60, 1))], 1).astype(np.float32)
    faces = rng.integers(0, 60, (40, 3)).astype(np.int32)
    depth, visible = empty_buffers(32, 32)
    draw(screen, faces, depth, visible)
    plain = np.full((32, 32), np.inf)
    for a, b, c in screen[faces].astype(float):
        matrix = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
        if abs(np.linalg.det(matrix)) < 1e-6:
            continue
        y, x = np.mgrid[:32, :32] + 0.5
        weights = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(1024)])
        z = (weights.T @ np.array([a[2], b[2], c[2]])).reshape(32, 32)
        inside = (weights.min(0) >= 0).reshape(32, 32)
        plain = np.where(inside & (z < plain), z, plain)
    seen = visible >= 0
    assert (seen == np.isfinite(plain)).mean() > 0.995  # pixels on an edge may round either way
    both = seen & np.isfinite(plain)
    assert np.median(np.abs(depth[both] - plain[both])) < 1e-4
    assert (np.abs(depth[both] - plain[both]) < 1e-2).mean() > 0.99
