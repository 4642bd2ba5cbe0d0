"""The accuracy bench: a network that knows the answers scores fully, one that does not does not, in every layout."""

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
from vlfau.models.evaluation.protocol import Captions, Outcome

bench = bench_module("accuracy")


def outcome(labels: list[list[int]], states: list[list[int]], captions: Captions | None = None) -> Outcome:
    said = np.array(states, bool)
    probabilities = np.where(said, 0.9, 0.1).astype(np.float32)
    subjects = np.arange(len(labels), dtype=np.int64)
    return Outcome(("AU06", "AU12"), np.array(labels, np.int8), probabilities, said, subjects, captions=captions)


def test_figures_of_known_answers(bench: ModuleType) -> None:
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
    found = bench.false_alarms(outcome(labels, states))
    assert (found["pictures"], found["units"]) == (3, {"AU06": pytest.approx(1 / 3, abs=1e-3), "AU12": 0.6667})
    assert found["any"] == pytest.approx(2 / 3)
    assert found["units_each"] == pytest.approx(1.0)
    none = bench.false_alarms(outcome([[1, 0]], [[1, 1]]))
    assert (none["pictures"], none["any"]) == (0, None)


def test_nobody_whom_training_saw_is_held_out(bench: ModuleType) -> None:
    from vlfau.models.data import DataChoice, unseen

    trained = {"data": {"data": "renders", "hold_out": 0.02}}
    assert unseen(DataChoice(data=Path("here/renders")), trained).hold_out == 0.02
    assert unseen(DataChoice(data=Path("here/renders"), hold_out=0.01), trained).hold_out == 0.01
    assert unseen(DataChoice(data=Path("here/others")), trained).hold_out == DataChoice().hold_out
    assert unseen(DataChoice(data=Path("here/renders")), {}).hold_out == DataChoice().hold_out


def test_thresholds_that_come_from_the_same_people_are_told(bench: ModuleType) -> None:
    from vlfau.models.data import DataChoice

    fitted = {"decisions": {"source": "renders", "after": {"f1": 0.614}}}
    (told,) = bench.fitted_on(DataChoice(data=Path("here/renders")), fitted)
    assert "61.40 %" in told
    assert bench.fitted_on(DataChoice(data=Path("here/others")), fitted) == []
    assert bench.fitted_on(DataChoice(data=Path("here/renders")), {}) == []


def test_units_that_one_side_does_not_know(bench: ModuleType, tmp_path: Path) -> None:
    from vlfau.models.data import DataChoice

    make_graphau(tmp_path, "DISFA")
    samples, notes = bench.held_out(DataChoice(data=tmp_path, align=False), 32, ("AU12", "AU43", "AU01"))
    assert samples.units == ("AU12", "AU43", "AU01")
    assert (samples.labels[:, 1] == -1).all()
    assert set(np.unique(samples.labels[:, 0])) <= {0, 1}
    assert np.isnan(samples.intensity[:, 1]).all()
    assert samples.crop(0).shape == (32, 32, 3)
    assert any("not coded in the data: AU43" in note for note in notes)
    assert any("not known to the bundle: AU02" in note for note in notes)
    order = [samples.units.index(unit) for unit in ("AU01", "AU12")]
    again, _ = bench.held_out(DataChoice(data=tmp_path, align=False), 32, ("AU01", "AU12"))
    assert np.array_equal(samples.labels[:, order], again.labels)
    with pytest.raises(UserError, match="knows none of them"):
        bench.held_out(DataChoice(data=tmp_path, align=False), 32, ("AU43",))


def run(bench: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = bench.main(list(arguments))
    said = capsys.readouterr()
    assert code == 0, said.err
    last: dict[str, Any] = json.loads(said.out.splitlines()[-1])
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

    words = {"local_words": 10.0, "local_right": 6.0, "local_top5": 8.0}  # the tiny decoder is shorter than the corpus
    monkeypatch.setattr(evaluate_run, "network_words", lambda *_: words)
    make(tmp_path)
    data = next(tmp_path.glob("*.csv"), tmp_path)
    pictures = tmp_path / "rest"
    pictures.mkdir()
    side = tiny_bundle().manifest.side
    for k in range(3):
        picture: NDArray[np.uint8] = np.random.default_rng(k).integers(0, 255, (side, side, 3)).astype(np.uint8)
        cv2.imwrite(str(pictures / f"{k}.png"), picture)
    asked = ["--variants", "openvino:fp32", "onnxruntime:fp16", "--images", "20", "--caption-images", "4"]
    hold_out = ["--hold-out", "0.4", "--no-align", "--neutral", str(pictures), "--data", str(data)]
    last = run(bench, capsys, str(tiny_bundle().folder), *asked, *hold_out)
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


def test_what_is_missing_is_told(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([str(tiny_bundle().folder)]) == 2
    assert "--data FOLDER" in capsys.readouterr().err
    make_shards(tmp_path)
    asked = [str(tiny_bundle().folder), "--data", str(tmp_path), "--hold-out", "0.4"]
    assert bench.main([*asked, "--variants", "openvino"]) == 2
    assert "RUNTIME:PRECISION" in capsys.readouterr().err
    assert bench.main([*asked, "--variants", "openvino:int8"]) == 2
    assert "INT8" in capsys.readouterr().err
