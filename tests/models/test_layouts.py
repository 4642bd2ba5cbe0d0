"""Every layout yields the coded labels, and every error in the data is named with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic_layouts as synthetic

from vlfau.models.data.crop_cache import read_image
from vlfau.models.data.datasets import DATASETS, frame_key
from vlfau.models.data.folds import make_folds
from vlfau.models.data.layouts import find_files, open_layout, recognise
from vlfau.models.data.table import Table, label_of, unit_name
from vlfau.models.errors import UserError


def as_truth(table: Table, shift: int = 0) -> synthetic.Truth:
    """A table in the form of the synthetic truth."""
    labels = {}
    for row in range(len(table)):
        subject = table.subject_names[table.subjects[row]]
        if table.frames[row] >= 0:
            key = (subject, "", int(table.frames[row]))
        else:
            _, task, frame = frame_key("/".join(Path(table.images[row]).parts[-3:]), "here")
            key = (subject, task, frame + shift)
            assert Path(table.images[row]).is_file()
        labels[key] = table.labels[row].tolist()
    assert len(labels) == len(table), "an image came twice"
    return labels


@pytest.mark.parametrize("dataset", ["BP4D", "DISFA"])
@pytest.mark.parametrize("style", list(synthetic.LISTS))
def test_prepared_lists_yield_the_coded_labels(tmp_path: Path, style: str, dataset: str) -> None:
    coded = synthetic.LISTS[style](tmp_path, dataset)
    table = open_layout(tmp_path, dataset=dataset)
    assert as_truth(table, -1 if (style, dataset) == ("fgnet", "DISFA") else 0) == coded
    assert table.units == DATASETS[dataset].units
    assert open_layout(tmp_path, style, dataset=dataset).images == table.images
    assert table.style == ("graphau" if style == "mdhr" else style)
    assert np.isnan(table.intensity).all()
    folds = make_folds(table)
    assert [fold.part for fold in folds] == ([1, 2, 3] if style == "fgnet" else [3, 2, 1])
    for fold in folds:
        assert set(fold.subjects) == set(synthetic.SUBJECTS[dataset][fold.part])
        assert len(fold.train) + len(fold.test) == len(coded)
        assert not set(fold.train.tolist()) & set(fold.test.tolist())


def test_another_label_is_noticed(tmp_path: Path) -> None:
    """The negative control of the comparison above."""
    coded = synthetic.make_graphau(tmp_path, "BP4D")
    key = next(iter(coded))
    coded[key][0] = 1 - coded[key][0]
    assert as_truth(open_layout(tmp_path)) != coded


def test_raw_bp4d(tmp_path: Path) -> None:
    coded = synthetic.make_raw_bp4d(tmp_path)
    table = open_layout(tmp_path)
    assert table.style == "bp4d"
    assert as_truth(table) == coded
    column = table.units.index("AU12")
    expected = np.where(table.labels[:, column] == 1, 3 / 5, 1 / 5)
    np.testing.assert_allclose(table.intensity[:, column], expected, rtol=1e-6)
    assert np.isnan(np.delete(table.intensity, column, axis=1)).all()
    assert any("1 coded frames have no image" in note for note in table.notes)
    with_unknown = open_layout(tmp_path, units=("AU12", "AU05"))
    assert (with_unknown.labels[:, 1] == -1).all()
    with pytest.raises(UserError, match=r"action unit.*'9'"):
        open_layout(tmp_path, units=("AU09",))


@pytest.mark.parametrize("video", synthetic.BP4D_VIDEOS)
def test_raw_bp4d_as_videos(tmp_path: Path, video: str) -> None:
    coded = synthetic.make_raw_bp4d(tmp_path, video=video)
    table = open_layout(tmp_path)
    assert len(table) == len(coded)
    for row in range(0, len(table), 7):
        subject = table.subject_names[table.subjects[row]]
        task = next(task for task in ("T1", "T2") if task in table.where(row))
        expected = synthetic.draw(coded[subject, task, int(table.frames[row])], subject)
        np.testing.assert_array_equal(read_image(table, row), expected)
        assert table.labels[row].tolist() == coded[subject, task, int(table.frames[row])]
    assert any("1 coded frames have no image" in note for note in table.notes)  # frame 5000 is beyond the video


def test_a_video_whose_last_coded_frame_is_its_length_counts_from_one(tmp_path: Path) -> None:
    synthetic.make_raw_bp4d(tmp_path, video=synthetic.BP4D_VIDEOS[0])
    coding = tmp_path / "AUCoding" / "AU_OCC" / "F001_T1.csv"
    lines = coding.read_text(encoding="utf-8").splitlines()
    length = 4 + 2 * 9
    synthetic.write_lines(coding, [lines[0], *(line.replace("5000", str(length)) for line in lines[1:])])
    table = open_layout(tmp_path)
    rows = [row for row in range(len(table)) if "F001_T1" in table.where(row)]
    assert table.frames[rows].tolist() == [8, 9, 10, 11, length - 1]
    assert any("counted from 1" in note for note in table.notes)


def test_a_video_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    synthetic.make_raw_bp4d(tmp_path, video=synthetic.BP4D_VIDEOS[0])
    broken = tmp_path / "VIDEOS" / "2D+3D" / "F001" / "T2.avi"
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"T2\.avi cannot be opened"):
        open_layout(tmp_path)
    broken.with_name("T1").mkdir()
    for name in ("thermal.wmv", "colour.wmv"):
        (broken.with_name("T1") / name).write_bytes(b"x")
    (broken.with_name("T1.avi")).unlink()
    with pytest.raises(UserError, match=r"holds 2 videos \(colour\.wmv, thermal\.wmv\)"):
        open_layout(tmp_path)


def test_short_raw_releases_are_named_by_part_and_file(tmp_path: Path) -> None:
    synthetic.make_raw_bp4d(tmp_path / "b")
    notes = open_layout(tmp_path / "b").notes
    (first,) = [note for note in notes if note.startswith("Part 1 of BP4D has 16 images, the full one 50631")]
    assert "missing: F001_T3.csv, F001_T4.csv" in first  # tasks 1 and 2 are there
    synthetic.make_raw_disfa(tmp_path / "d", videos=False)
    notes = open_layout(tmp_path / "d").notes
    (first,) = [note for note in notes if note.startswith("Part 3 of DISFA has 8 images, the full one 43605")]
    assert "missing: SN004_au*.txt, SN005_au*.txt" in first
    assert any("SN003_au1.txt gives 4 images, a full one 4845" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], lines[1] + ",1", *lines[2:]], r"F001_T1\.csv:2: 15 cells, the first row has 14"),
        (lambda lines: [*lines[:2], lines[2][:-1] + "x", *lines[3:]], r"F001_T1\.csv:3: 'x' is not a number"),
        (lambda lines: [*lines[:2], lines[2][:-1] + "7", *lines[3:]], r"F001_T1\.csv:3: an occurrence is neither"),
    ],
)
def test_faults_of_raw_bp4d(tmp_path: Path, change: Callable[[list[str]], list[str]], message: str) -> None:
    synthetic.make_raw_bp4d(tmp_path)
    edit(tmp_path / "AUCoding" / "AU_OCC" / "F001_T1.csv", change)
    with pytest.raises(UserError, match=message):
        open_layout(tmp_path, units=("AU12", "AU05"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0] + ",9", *lines[1:]], r"SN002_au12\.txt:1: '1,0,9' is not `frame,intensity`"),
        (lambda lines: [lines[0], "2,8", *lines[2:]], r"SN002_au12\.txt:2: intensity 8 is not 0 to 5"),
        (lambda lines: lines[:-1], r"SN002_au12\.txt codes 3 frames, SN002_au1\.txt 4"),
    ],
)
def test_faults_of_raw_disfa(tmp_path: Path, change: Callable[[list[str]], list[str]], message: str) -> None:
    synthetic.make_raw_disfa(tmp_path, videos=False)
    path = tmp_path / "ActionUnit_Labels" / "SN002" / "SN002_au12.txt"
    synthetic.write_lines(path, ["1,0", "2,1", "3,2", "4,5"])
    edit(path, change)
    with pytest.raises(UserError, match=message):
        open_layout(tmp_path)


@pytest.mark.parametrize("videos", [True, False])
def test_raw_disfa(tmp_path: Path, videos: bool) -> None:
    coded = synthetic.make_raw_disfa(tmp_path, videos=videos)
    table = open_layout(tmp_path)
    assert table.style == "disfa"
    assert as_truth(table) == coded
    assert (table.frames.min() >= 0) == videos
    np.testing.assert_allclose(table.intensity, np.where(table.labels == 1, 3 / 5, 1 / 5), rtol=1e-6)
    assert open_layout(tmp_path, units=("AU20", "AU01")).units == ("AU20", "AU01")
    assert [fold.part for fold in make_folds(table)] == [3, 2, 1]


def test_intensity_two_is_the_first_that_counts(tmp_path: Path) -> None:
    synthetic.make_raw_disfa(tmp_path, videos=False)
    path = tmp_path / "ActionUnit_Labels" / "SN002" / "SN002_au12.txt"
    synthetic.write_lines(path, ["1,0", "2,1", "3,2", "4,5"])
    table = open_layout(tmp_path)
    rows = table.subjects == table.subject_names.index("SN002")
    assert table.labels[rows, table.units.index("AU12")].tolist() == [0, 0, 1, 1]


def test_plain_csv(tmp_path: Path) -> None:
    coded = synthetic.make_csv(tmp_path)
    table = open_layout(tmp_path)
    assert table.style == "csv"
    assert table.labels.tolist() == list(coded.values())
    assert (table.labels == -1).any()
    assert open_layout(tmp_path / "labels.csv").labels.tolist() == table.labels.tolist()
    chosen = open_layout(tmp_path, units=("AU12", "AU01"))
    np.testing.assert_array_equal(chosen.labels, table.labels[:, [table.units.index("AU12"), 0]])


def test_csv_may_name_frames_of_a_video(tmp_path: Path) -> None:
    synthetic.write_video(tmp_path / "a.avi", [synthetic.draw([i % 2], "x") for i in range(4)])
    synthetic.write_lines(tmp_path / "all.csv", ["path,frame,subject,AU1", "a.avi,3,x,1", "a.avi,0,x,0"])
    table = open_layout(tmp_path)
    assert table.frames.tolist() == [3, 0]
    for row in (0, 1):
        expected = synthetic.draw([int(table.labels[row, 0])], "x")
        np.testing.assert_array_equal(read_image(table, row), expected)


def test_subjects_are_described_if_the_data_says_so(tmp_path: Path) -> None:
    synthetic.make_raw_bp4d(tmp_path / "b")
    table = open_layout(tmp_path / "b")
    assert dict(zip(table.subject_names, table.descriptions))["F001"] == "a woman"
    assert dict(zip(table.subject_names, table.descriptions))["M007"] == "a man"
    men = table.only(np.flatnonzero([table.subject_names[i].startswith("M") for i in table.subjects]))
    assert set(men.descriptions) == {"a man"}
    synthetic.make_raw_disfa(tmp_path / "d", videos=False)
    assert open_layout(tmp_path / "d").descriptions == ()
    lines = ["path,subject,person,AU1", "a.png,x,A Girl,1", "b.png,y,,0", "c.png,x,a girl,0"]
    synthetic.write_lines(tmp_path / "labels.csv", lines)
    table = open_layout(tmp_path / "labels.csv")
    assert (table.subject_names, table.descriptions, table.units) == (("x", "y"), ("a girl", ""), ("AU01",))
    synthetic.write_lines(tmp_path / "labels.csv", [*lines, "d.png,x,a boy,0"])
    with pytest.raises(UserError, match=r"labels\.csv:5: this subject is 'a boy', before it was 'a girl'"):
        open_layout(tmp_path / "labels.csv")


def test_shards_are_a_table_too(tmp_path: Path) -> None:
    synthetic.make_shards(tmp_path, count=20, files=2)
    table = open_layout(tmp_path, units=("AU25", "AU01"))
    assert (table.style, len(table), table.units) == ("shards", 40, ("AU25", "AU01"))
    assert table.frames[21] == 1
    with pytest.raises(UserError, match="AU27"):
        open_layout(tmp_path, units=("AU27",))


def test_both_data_sets_side_by_side_need_a_choice(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path / "BP4D", "BP4D")
    synthetic.make_graphau(tmp_path / "DISFA", "DISFA")
    with pytest.raises(UserError, match="BP4D and of DISFA"):
        open_layout(tmp_path)
    assert open_layout(tmp_path, dataset="DISFA").units == DATASETS["DISFA"].units
    assert open_layout(tmp_path / "BP4D").units == DATASETS["BP4D"].units


def test_short_lists_are_named(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "BP4D")
    notes = open_layout(tmp_path).notes
    assert any("BP4D_test_img_path_fold1.txt has 16 images" in note and "46034" in note for note in notes)
    assert any("BP4D_train_img_path_fold3.txt has 32 images" in note and "96216" in note for note in notes)
    assert len(notes) == 6


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    synthetic.write_lines(path, change(path.read_text(encoding="utf-8").splitlines()))


LIST = "list/BP4D_test_label_fold1.txt"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (LIST, lambda lines: [lines[0], lines[1] + " 1", *lines[2:]], r"fold1\.txt:2: 13 labels, expected 12"),
        (LIST, lambda lines: [*lines[:3], lines[3][:-1] + "7", *lines[4:]], r"fold1\.txt:4: label '7'"),
        (LIST, lambda lines: lines[:-1], r"16 lines.*15"),
        (LIST, lambda lines: [lines[0], "", *lines[2:]], r"fold1\.txt:2: the line is empty"),
        (LIST, lambda lines: ["1 " * 12, *lines[1:]], r"other labels than in .*:1"),
        ("list/BP4D_test_img_path_fold1.txt", lambda _: ["faces/a.jpg"] * 16, "'faces/a.jpg'"),
        ("list/BP4D_test_img_path_fold1.txt", lambda lines: [], r"0 lines"),
    ],
)
def test_faults_of_lists_name_file_and_line(
    tmp_path: Path, file: str, change: Callable[[list[str]], list[str]], message: str
) -> None:
    synthetic.make_graphau(tmp_path, "BP4D")
    edit(tmp_path / file, change)
    with pytest.raises(UserError, match=message):
        open_layout(tmp_path)


@pytest.mark.parametrize("style", ["graphau", "jaanet", "aunet", "fgnet"])
def test_an_empty_list_of_a_fold_is_named(tmp_path: Path, style: str) -> None:
    synthetic.LISTS[style](tmp_path, "BP4D")
    emptied = {
        "graphau": ["list/BP4D_test_img_path_fold2.txt", "list/BP4D_test_label_fold2.txt"],
        "jaanet": ["list/BP4D_part2_path.txt", "list/BP4D_part2_AUoccur.txt"],
        "aunet": ["splits/BP4D_ts2_path.txt"],
        "fgnet": ["BP4D/labels/1/test.csv"],
    }[style]
    for name in emptied:
        edit(tmp_path / name, lambda lines: lines[:1] if style == "fgnet" else [])
    with pytest.raises(UserError, match=rf"{Path(emptied[0]).name}:\d: the list is empty"):
        open_layout(tmp_path, dataset="BP4D")


def test_missing_lists_and_images_are_named(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "BP4D")
    (tmp_path / LIST).unlink()
    with pytest.raises(UserError, match=r"BP4D_test_label_fold1\.txt is missing"):
        open_layout(tmp_path)
    synthetic.make_graphau(tmp_path, "BP4D")
    (tmp_path / "img").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="was not found in"):
        open_layout(tmp_path)


def test_subject_in_both_sides_is_named(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "BP4D")
    for kind in ("img_path", "label"):
        first = (tmp_path / "list" / f"BP4D_test_{kind}_fold2.txt").read_text(encoding="utf-8").splitlines()[0]
        with (tmp_path / "list" / f"BP4D_train_{kind}_fold2.txt").open("a") as file:
            file.write(first + "\n")
    with pytest.raises(UserError, match=r"Fold 2 trains on and tests the same subjects: M011"):
        make_folds(open_layout(tmp_path))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path,subject,AU1", "a.png,x", r"labels\.csv:2: 2 cells"),
        ("path,subject,AU1", "a.png,x,2", r"labels\.csv:2, column AU1: label '2'"),
        ("path,subject,smile", "a.png,x,1", "smile"),
        ("path,AU1", "a.png,1", "'subject' is missing"),
        ("path,subject,AU1", ",x,1", "is empty"),
        ("path,subject,frame,AU1", "a.avi,x,first,1", "frame 'first'"),
        ("path,subject,AU1", "", "No labelled image"),
    ],
)
def test_faults_of_csv(tmp_path: Path, header: str, row: str, message: str) -> None:
    synthetic.write_lines(tmp_path / "labels.csv", [header, row])
    with pytest.raises(UserError, match=message):
        open_layout(tmp_path)


def test_unknown_paths_and_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_layout(tmp_path / "absent")
    with pytest.raises(UserError, match="No known layout"):
        open_layout(tmp_path)
    with pytest.raises(UserError, match="Did you mean 'graphau'"):
        open_layout(tmp_path, "grafau")
    synthetic.write_lines(tmp_path / "a.csv", ["path,subject,AU1", "a.png,x,1"])
    with pytest.raises(UserError, match=r"AU12.*Choose one of: AU01"):
        open_layout(tmp_path, units=("AU12",))


def test_names_are_read_in_all_common_spellings() -> None:
    assert [unit_name(text) for text in ("au1", "AU01", "AU12", "4", "subject")] == [
        "AU01",
        "AU01",
        "AU12",
        "AU04",
        None,
    ]
    assert frame_key("F007_T1_0643.jpg", "") == frame_key("F007/T1/643.jpg", "") == ("F007", "T1", 643)
    assert frame_key("DISFA/SN002/0.jpg", "") == frame_key("LeftVideoSN002_comp_00000000.jpg", "") == ("SN002", "", 0)
    assert [label_of(text, "") for text in ("1", "0.0", "", "9", "-1", "nan", "1.000e+00")] == [1, 0, -1, -1, -1, -1, 1]


def test_folders_of_images_are_not_searched(tmp_path: Path) -> None:
    synthetic.make_graphau(tmp_path, "BP4D")
    synthetic.write_lines(tmp_path / "img" / "F001" / "stray.txt", ["x"])
    files = find_files(tmp_path)
    assert not any("F001" in str(path) for path in files)
    assert recognise(tmp_path, files) == "graphau"
