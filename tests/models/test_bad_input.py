"""Commands report bad input with the file, the line and the remedy, and exit with code 2.

Readers are tested on their own elsewhere; here each kind of fault goes through `vlfau-train`, `vlfau-evaluate` or
`vlfau-export` from end to end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic_layouts as synthetic

from vlfau.models.evaluation import command as evaluate_command
from vlfau.models.export import command as export_command
from vlfau.models.training import command as train_command
from vlfau.models.training.run_folder import RunFolder

SMALL = """
[network]
hidden = 16
local_captions = false
global_caption = false
stem_options = { depths = [1, 1, 1, 1], dims = [8, 8, 16, 16] }
"""


def train(tmp_path: Path, *more: str) -> int:
    (tmp_path / "small.toml").write_text(SMALL)
    paths = [
        "--config",
        str(tmp_path / "small.toml"),
        "--data",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "run"),
    ]
    fast = ["--size", "tiny", "--no-pretrained", "--no-align", "--batch", "8", "--workers", "0", "--device", "cpu"]
    return train_command.main([*paths, *fast, *more])


def labels(tmp_path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = tmp_path / "data" / "labels.csv"
    synthetic.write_lines(path, change(path.read_text(encoding="utf-8").splitlines()))


def cut_picture(tmp_path: Path) -> None:
    for path in sorted((tmp_path / "data" / "pictures").glob("pF001_T1_1*.png")):
        path.write_bytes(path.read_bytes()[:300])


def drop_picture(tmp_path: Path) -> None:
    for path in sorted((tmp_path / "data" / "pictures").glob("pF001_T1_1*.png")):
        path.unlink()


FAULTS: dict[
    str, tuple[Callable[[Path], object], str, str]
] = {  # name -> (how to cause it, where it is reported, the remedy)
    "missing image": (drop_picture, r"pF001_T1_1\d\.png \(\S*labels\.csv:\d+\) does not exist", "Restore it"),
    "truncated image": (cut_picture, r"pF001_T1_1\d\.png \(\S*labels\.csv:\d+\) is truncated", "Copy it again"),
    "row of the wrong length": (
        lambda tmp_path: labels(tmp_path, lambda lines: [*lines[:4], lines[4] + ",1", *lines[5:]]),
        r"labels\.csv:5: 15 cells, the first line has 14",
        "Correct the line",
    ),
    "unknown unit in the data": (
        lambda tmp_path: labels(tmp_path, lambda lines: [lines[0].replace("AU24", "AU27"), *lines[1:]]),
        r"corpus\.toml has no sentences for AU27",
        "Exclude it with --units",
    ),
    "no unit at all": (
        lambda tmp_path: labels(tmp_path, lambda lines: [lines[0].replace("AU24", "smile"), *lines[1:]]),
        r"labels\.csv:1: columns \['smile'\] name no action unit",
        "Write them as AU1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_data_end_the_command_with_file_line_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    synthetic.make_csv(tmp_path / "data")
    spoil, where, remedy = FAULTS[fault]
    spoil(tmp_path)
    assert train(tmp_path, "--epochs", "1") == 2
    errors = capsys.readouterr().err
    assert re.search(where, errors), errors
    assert remedy in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("leak", r"Fold 1 trains on and tests the same subjects: F007 (first at"),
        ("empty", "BP4D_test_img_path_fold1.txt:1: the list is empty"),
        ("unit", "Unknown action unit"),
    ],
)
def test_faults_of_folds_end_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str, message: str
) -> None:
    synthetic.make_graphau(tmp_path / "data", "BP4D")
    lists = tmp_path / "data" / "list"
    more: list[str] = []
    if spoil == "leak":
        for kind in ("img_path", "label"):
            first = (lists / f"BP4D_test_{kind}_fold1.txt").read_text(encoding="utf-8").splitlines()[0]
            with (lists / f"BP4D_train_{kind}_fold1.txt").open("a") as file:
                file.write(first + "\n")
    elif spoil == "empty":
        for kind in ("img_path", "label"):
            (lists / f"BP4D_test_{kind}_fold1.txt").write_text("")
    else:
        more = ["--units", "AU01", "AU99"]
    assert train(tmp_path, "--epochs", "1", *more) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert str(lists) in errors


def test_faults_of_a_run_end_the_next_command_and_spare_the_finished_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.make_csv(tmp_path / "data")
    run = tmp_path / "run"
    assert train(tmp_path, "--epochs", "1") == 0
    finished = (run / "last.safetensors").read_bytes()
    capsys.readouterr()

    def refused(code: int, *parts: str) -> None:
        errors = capsys.readouterr().err
        assert code == 2
        for part in parts:
            assert part in errors
        assert (run / "last.safetensors").read_bytes() == finished

    # another set of units
    refused(train(tmp_path, "--epochs", "2", "--units", "AU01"), str(run), "other action units", "--fresh")
    # another version
    pointer = run / "checkpoints" / "last.json"
    good = pointer.read_text(encoding="utf-8")
    pointer.write_text(json.dumps(json.loads(good) | {"schema": 7}))
    refused(train(tmp_path, "--epochs", "2"), str(pointer), "another version (schema 7", "start a new --output")
    # torn
    pointer.write_text(good[: len(good) // 2])
    refused(train(tmp_path, "--epochs", "2"), f"{pointer} is damaged")
    pointer.write_text(good)
    config = run / "config.json"
    table = config.read_text(encoding="utf-8")
    config.write_text(table.replace('"schema": 1', '"schema": 0'))
    refused(export_command.main([str(run), "--output", str(tmp_path / "b")]), str(config), "another version")
    config.write_text(table)
    # a weights file that was cut short, at export and at evaluation
    (run / "best.safetensors").write_bytes(finished[:100])
    arguments = [str(run), "--weights", "best"]
    refused(
        export_command.main([*arguments, "--output", str(tmp_path / "b")]), "best.safetensors is missing or damaged"
    )
    refused(evaluate_command.main([*arguments, "--no-plots"]), "best.safetensors is missing or damaged")
    # none of this keeps the run from being continued
    assert train(tmp_path, "--epochs", "2") == 0
    assert [row["epoch"] for row in RunFolder(run).rows("epoch")] == [0, 1]


@pytest.mark.slow
def test_a_corrupted_file_of_a_bundle_ends_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.make_csv(tmp_path / "data")
    assert train(tmp_path, "--steps", "1") == 0
    assert export_command.main([str(tmp_path / "run"), "--output", str(tmp_path / "bundle")]) == 0
    path = tmp_path / "bundle" / "encoder.onnx"
    body = bytearray(path.read_bytes())
    body[100] ^= 1
    path.write_bytes(body)
    options = ["--data", str(tmp_path / "data"), "--no-align"]
    assert evaluate_command.main([str(tmp_path / "bundle"), *options]) == 2
    errors = capsys.readouterr().err
    assert "encoder.onnx has sha256" in errors
    assert "copy it again or export again" in errors
