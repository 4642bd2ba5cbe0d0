"""The accuracy bench: right answers score fully and wrong ones do not, in every layout."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from bench_modules import bench_module
from numpy.typing import NDArray

pytest.importorskip("torch", reason="evaluation reads pictures through the trainer's loader")
pytest.importorskip("onnx", reason="bundles are made with onnx")

from synthetic_layouts import make_csv, make_graphau, make_shards
from tiny_bundle import UNITS, tiny_bundle

from vlfau.models.errors import UserError
from vlfau.models.evaluation.protocol import Captions, PartPredictions

bench = bench_module("accuracy")


def outcome(labels: list[list[int]], states: list[list[int]], captions: Captions | None = None) -> PartPredictions:
    decided = np.array(states, bool)
    probabilities = np.where(decided, 0.9, 0.1).astype(np.float32)
    subjects = np.arange(len(labels), dtype=np.int64)
    return PartPredictions(
        ("AU06", "AU12"), np.array(labels, np.int8), probabilities, decided, subjects, captions=captions
    )


def test_figures_of_right_and_wrong_answers(bench: ModuleType) -> None:
    labels = [[1, 1], [0, 0], [1, 0], [0, -1]]
    right = bench.row_of(outcome(labels, [[1, 1], [0, 0], [1, 0], [0, 1]]), None)
    assert (right["f1"], right["auc"]) == (1.0, 1.0)
    assert right["ece"] == pytest.approx(0.1)
    assert right["units"]["AU06"]["ece"] == pytest.approx(0.1)
    assert "to_first" not in right
    wrong = bench.row_of(outcome(labels, [[0, 0], [1, 1], [0, 1], [1, 0]]), outcome(labels, labels))
    assert (wrong["f1"], wrong["auc"], wrong["ece"]) == (0.0, 0.0, pytest.approx(0.9))
    assert wrong["to_first"]["f1"][0] == -1
    assert wrong["to_first"]["auc"][0] == -1


def test_false_alarms_are_counted_where_nothing_is_labelled(bench: ModuleType) -> None:
    labels = [[0, 0], [0, 0], [0, -1], [-1, -1], [1, 0], [1, 1]]
    states = [[0, 1], [0, 0], [1, 1], [1, 1], [1, 1], [1, 1]]
    alarms = bench.false_alarms(outcome(labels, states))
    assert (alarms["pictures"], alarms["units"]) == (3, {"AU06": pytest.approx(1 / 3, abs=1e-3), "AU12": 0.6667})
    assert alarms["any"] == pytest.approx(2 / 3)
    assert alarms["units_each"] == pytest.approx(1.0)
    none = bench.false_alarms(outcome([[1, 0]], [[1, 1]]))
    assert (none["pictures"], none["any"]) == (0, None)


def test_no_subject_of_training_is_held_out(bench: ModuleType) -> None:
    from vlfau.models.data import DataChoice, unseen

    trained = {"data": {"data": "renders", "hold_out": 0.02}}
    assert unseen(DataChoice(data=Path("here/renders")), trained).hold_out == 0.02
    assert unseen(DataChoice(data=Path("here/renders"), hold_out=0.01), trained).hold_out == 0.01
    assert unseen(DataChoice(data=Path("here/others")), trained).hold_out == DataChoice().hold_out
    assert unseen(DataChoice(data=Path("here/renders")), {}).hold_out == DataChoice().hold_out


def test_thresholds_fitted_on_the_same_data_are_noted(bench: ModuleType) -> None:
    from vlfau.models.data import DataChoice

    fitted = {"decisions": {"source": "renders", "after": {"f1": 0.614}}}
    (note,) = bench.fitted_on(DataChoice(data=Path("here/renders")), fitted)
    assert "61.40 %" in note
    assert bench.fitted_on(DataChoice(data=Path("here/others")), fitted) == []
    assert bench.fitted_on(DataChoice(data=Path("here/renders")), {}) == []


def test_units_missing_on_either_side_are_noted(bench: ModuleType, tmp_path: Path) -> None:
    from vlfau.models.data import DataChoice

    make_graphau(tmp_path, "DISFA")
    samples, notes = bench.held_out(DataChoice(data=tmp_path, align=False), 32, ("AU12", "AU43", "AU01"))
    assert samples.units == ("AU12", "AU43", "AU01")
    assert (samples.labels[:, 1] == -1).all()
    assert set(np.unique(samples.labels[:, 0])) <= {0, 1}
    assert np.isnan(samples.intensity[:, 1]).all()
    assert samples.crop(0).shape == (32, 32, 3)
    assert any("not coded in the data: AU43" in note for note in notes)
    assert any("not in the bundle: AU02" in note for note in notes)
    order = [samples.units.index(unit) for unit in ("AU01", "AU12")]
    again, _ = bench.held_out(DataChoice(data=tmp_path, align=False), 32, ("AU01", "AU12"))
    assert np.array_equal(samples.labels[:, order], again.labels)
    with pytest.raises(UserError, match="has none of these units"):
        bench.held_out(DataChoice(data=tmp_path, align=False), 32, ("AU43",))


def run(bench: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = bench.main(list(arguments))
    output = capsys.readouterr()
    assert code == 0, output.err
    last: dict[str, Any] = json.loads(output.out.splitlines()[-1])
    return last


@pytest.mark.parametrize("make", [make_shards, make_csv])
def test_a_bundle_on_a_layout(
    bench: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
) -> None:
    from vlfau.models.evaluation import run as evaluate_run

    words = {
        "local_words": 10.0,
        "local_right": 6.0,
        "local_top5": 8.0,
    }  # the tiny decoder is shorter than the corpus's sentences
    monkeypatch.setattr(evaluate_run, "network_words", lambda *_: words)
    make(tmp_path)
    data = next(tmp_path.glob("*.csv"), tmp_path)
    pictures = tmp_path / "rest"
    pictures.mkdir()
    side = tiny_bundle().manifest.side
    for k in range(3):
        picture: NDArray[np.uint8] = np.random.default_rng(k).integers(0, 255, (side, side, 3)).astype(np.uint8)
        cv2.imwrite(str(pictures / f"{k}.png"), picture)
    variants = ["--variants", "openvino:fp32", "onnxruntime:fp16", "--images", "20", "--caption-images", "4"]
    hold_out = ["--hold-out", "0.4", "--no-align", "--neutral", str(pictures), "--data", str(data)]
    last = run(bench, capsys, str(tiny_bundle().folder), *variants, *hold_out)
    assert set(last["rows"]) == {"openvino fp32", "onnxruntime fp16"}
    first, half = last["rows"].values()
    assert first["pictures"] == half["pictures"] > 0
    assert first["captions"]["local_faithful"] is not None
    assert first["captions"]["local_token_accuracy"] == pytest.approx(0.6)
    assert "local_token_accuracy" not in half["captions"], "a half-precision copy carries no torch weights"
    assert half["to_first"]["f1"] is None or abs(half["to_first"]["f1"][0]) < 0.3
    assert set(first["units"]) == set(UNITS)
    assert first["neutral_folder"]["pictures"] == 3
    assert last["commit"]
    assert last["device"]


def test_missing_data_and_precisions_are_reported(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([str(tiny_bundle().folder)]) == 2
    assert "--data FOLDER" in capsys.readouterr().err
    make_shards(tmp_path)
    arguments = [str(tiny_bundle().folder), "--data", str(tmp_path), "--hold-out", "0.4"]
    assert bench.main([*arguments, "--variants", "openvino"]) == 2
    assert "RUNTIME:PRECISION" in capsys.readouterr().err
    assert bench.main([*arguments, "--variants", "openvino:int8"]) == 2
    assert "INT8" in capsys.readouterr().err
