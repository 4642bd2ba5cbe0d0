"""The protocol on predictions with known scores, and the commands from labelled images to a report."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_layouts as synthetic

from vlfau.models.data.datasets import DATASETS
from vlfau.models.errors import UserError
from vlfau.models.evaluation import command as evaluate_command
from vlfau.models.evaluation import plots, published
from vlfau.models.evaluation.protocol import Captions, PartPredictions, over_folds, score, score_captions
from vlfau.models.evaluation.report import markdown
from vlfau.models.export import command as export_command
from vlfau.models.networks.sizes import SIZES
from vlfau.models.sentences import composing, loading
from vlfau.models.training import command as train_command
from vlfau.models.training.run_folder import RunFolder

UNITS = ("AU01", "AU04", "AU12")


def outcome(seed: int = 0, **changes: object) -> PartPredictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (300, 3)).astype(np.int8)
    probabilities = np.clip(labels * 0.5 + rng.random(labels.shape) * 0.6, 0, 1).astype(np.float32)
    plain = PartPredictions(
        UNITS, labels, probabilities, probabilities >= 0.5, rng.integers(0, 6, 300), "fold 1", "BP4D"
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_perfect_predictions_score_one_and_their_opposite_zero() -> None:
    labels = outcome().labels
    perfect = score(outcome(states=labels == 1, probabilities=labels.astype(np.float32)))
    assert (perfect["f1"], perfect["accuracy"], perfect["auc"]) == (1.0, 1.0, 1.0)
    assert perfect["f1_interval_95"] == [1.0, 1.0]
    opposite = score(outcome(states=labels == 0, probabilities=1 - labels.astype(np.float32)))
    assert (opposite["f1"], opposite["auc"]) == (0.0, 0.0)


def test_the_mean_over_folds_is_the_mean_of_the_folds() -> None:
    parts = [score(outcome(seed)) for seed in range(3)]
    mean = over_folds(parts)
    assert mean["f1"] == pytest.approx(np.mean([one["f1"] for one in parts]))
    assert mean["units"]["AU04"]["auc"] == pytest.approx(np.mean([one["units"]["AU04"]["auc"] for one in parts]))


def sentences(states: np.ndarray) -> Captions:
    """The corpus's own sentences for these states."""
    corpus = loading.load()
    rng = np.random.default_rng(0)
    local = [
        [(corpus.units[unit].active if state else corpus.units[unit].inactive)[0] for unit, state in zip(UNITS, row)]
        for row in states
    ]
    whole = [composing.compose([unit for unit, state in zip(UNITS, row) if state], rng) for row in states]
    return Captions(states, local, whole)


def test_faithful_sentences_score_one_and_sentences_for_other_states_zero() -> None:
    states = np.random.default_rng(1).random((20, 3)) < 0.5
    captions = sentences(states)
    scores = score_captions(captions, UNITS)
    assert (scores["local_faithful"], scores["global_faithful"]) == (1.0, 1.0)
    scores = score_captions(dataclasses.replace(captions, states=~states), UNITS)
    assert (scores["local_faithful"], scores["global_faithful"]) == (0.0, 0.0)
    one_wrong = states.copy()
    one_wrong[:, 0] ^= True
    scores = score_captions(dataclasses.replace(captions, states=one_wrong), UNITS)
    assert scores["local_faithful"] == pytest.approx(2 / 3)
    assert scores["local_faithful_units"] == {"AU01": 0.0, "AU04": 1.0, "AU12": 1.0}
    assert scores["global_faithful"] == 0.0


def test_the_report_shows_the_paper_the_floor_and_what_was_left_out() -> None:
    labels = outcome().labels.copy()
    labels[:, 2] = 0
    units = dict.fromkeys(UNITS, 0.512)
    best = {"best_on_test": {"last_epoch": 5, "last_f1": 0.4, "best_epoch": 2, "best_f1": 0.5, "units": units}}
    best["best_on_test"] |= {"best_accuracy": 0.6, "best_auc": 0.7}
    text = markdown("a run", [score(outcome(labels=labels, extra=best))])
    assert "| AU04 |" in text
    assert "62.6" in text  # the paper's F1 of AU 4 on BP4D
    assert "no mean: AU12" in text
    assert "Best on test (epoch 2 of 5), chosen by the test part" in text
    assert "| AU | F1 | best on test | paper | always yes | accuracy | AUC |" in text
    assert "| AU01 |" in text
    assert "| 51.2 |" in text
    assert "best on test" not in markdown("a run", [score(outcome())])  # no column without such weights
    assert "on this very test part" not in text
    assert "on this very test part" in markdown("a run", [score(outcome(extra={"chosen_on_test": True}))])


@pytest.mark.parametrize("dataset", ["BP4D", "DISFA"])
def test_the_papers_means_are_shown_only_for_the_same_units(dataset: str) -> None:
    units = DATASETS[dataset].units
    labels = np.random.default_rng(0).integers(0, 2, (200, len(units))).astype(np.int8)
    states = labels == 1
    perfect = PartPredictions(units, labels, states.astype(np.float32), states, np.arange(200) % 5, "fold 1", dataset)
    scores = [score(perfect), score(perfect)]
    mean = over_folds(scores, [perfect, perfect])
    assert mean["paper"] == scores[0]["paper"]
    assert mean["paper"]["accuracy"] == pytest.approx({"BP4D": 0.798, "DISFA": 0.943}[dataset])
    assert f"| **paper** | {100 * mean['paper']['f1']:.1f} |" in markdown("runs", scores, mean)
    cut = {"labels": labels[:, 1:], "states": states[:, 1:], "probabilities": states[:, 1:].astype(np.float32)}
    fewer = score(dataclasses.replace(perfect, units=units[1:], **cut))
    assert fewer["paper"] == {}
    assert fewer["units"][units[1]]["paper_f1"] is not None


def test_the_interval_over_folds_is_narrower_than_that_of_one() -> None:
    parts = [outcome(seed) for seed in range(3)]
    scores = [score(one) for one in parts]
    low, high = over_folds(scores, parts)["f1_interval_95"]
    assert low < over_folds(scores)["f1"] < high
    assert high - low < min(one["f1_interval_95"][1] - one["f1_interval_95"][0] for one in scores)
    assert over_folds(scores)["f1_interval_95"] == [None, None]  # without the outcomes nothing can be drawn
    one_subject = dataclasses.replace(parts[0], subjects=np.zeros(300, np.int64))
    assert over_folds(scores[:2], [one_subject, parts[1]])["f1_interval_95"] == [None, None]


def test_each_row_of_the_ablation_has_the_papers_figure() -> None:
    rows = {
        size: published.ablation_row({"kind": "vlfau", **SIZES[size]})
        for size in ("paper-stem", "paper-refined", "paper-local", "paper-global", "paper")
    }
    figures = DATASETS["BP4D"].paper.ablation
    assert [figures[row] for row in rows.values() if row] == [64.3, 64.7, 65.3, 65.2, 65.8]
    stem_only = {"kind": "vlfau", **SIZES["paper-stem"]}
    assert published.ablation("BP4D", stem_only) == {"name": "stem only", "f1": pytest.approx(0.643)}
    assert published.ablation("DISFA", stem_only) is None
    assert published.ablation_row({"kind": "vlfau", "msc": False}) is None
    assert published.ablation_row({"kind": "graphau"}) is None


def test_neighbours_stay_neighbours_on_the_plane() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 120)
    features = 4 * rng.normal(size=(4, 16))[group] + rng.normal(size=(120, 16))

    def purity(points: np.ndarray) -> float:
        distance = ((points[:, None] - points[None]) ** 2).sum(-1)
        np.fill_diagonal(distance, np.inf)
        return float((group[distance.argmin(1)] == group).mean())

    assert purity(plots._on_plane(features)) > 0.95
    assert purity(rng.normal(size=(120, 2))) < 0.5
    assert plots._on_plane(features[:3]).shape == (3, 2)


def test_a_missing_package_for_plots_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match=r"Plots need scikit-learn.*--no-plots"):
        plots._on_plane(np.zeros((10, 4)))


def test_from_images_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All folds of a prepared list, with the commands that a user types."""
    synthetic.make_graphau(tmp_path / "data", "DISFA")
    run, common = (
        tmp_path / "run",
        ["--size", "tiny", "--no-pretrained", "--no-align", "--workers", "0", "--device", "cpu"],
    )
    changes = tmp_path / "small.toml"
    changes.write_text("[network]\nhidden = 16\nstem_options = { depths = [1, 1, 1, 1], dims = [8, 8, 16, 16] }\n")
    arguments = ["--data", str(tmp_path / "data"), "--config", str(changes), "--output", str(run), "--all-folds"]
    learning = ["--steps", "4", "--batch", "8", "--learning-rate", "3e-3"]
    assert train_command.main([*arguments, *common, *learning]) == 0
    assert "fold 1 tests part 3" in capsys.readouterr().out  # fold numbers differ between projects
    assert evaluate_command.main([str(run), "--caption-images", "2", "--images", "40", "--beam", "2"]) == 0
    scores = json.loads((run / "evaluation" / "scores.json").read_text(encoding="utf-8"))
    assert [one["tested"].split(":")[0] for one in scores["parts"]] == [
        f"fold {k} tests part {4 - k}" for k in (1, 2, 3)
    ]
    assert scores["mean"]["folds"] == 3
    assert scores["parts"][0]["captions"]["pictures"] == 2
    assert scores["parts"][0]["captions_by_beam"]["pictures"] == 2
    assert scores["mean"]["f1_interval_95"][0] <= scores["mean"]["f1"] <= scores["mean"]["f1_interval_95"][1]
    assert scores["mean"]["captions"]["local_faithful"] is not None
    for number, one in enumerate(scores["parts"], 1):
        rows = RunFolder(run / f"fold{number}").rows("epoch")
        best = max(rows, key=lambda row: row["test_f1"])
        beside = one["best_on_test"]
        assert (beside["last_epoch"], beside["best_epoch"]) == (2, best["epoch"] + 1)
        assert beside["last_f1"] == one["f1"] == pytest.approx(rows[-1]["test_f1"])
        assert beside["best_f1"] == pytest.approx(best["test_f1"])  # scored again, from the saved weights
    for name in ("f1.png", "reliability.png", "features_by_units.png", "features_by_subjects.png", "attention.png"):
        assert (run / "evaluation" / name).stat().st_size > 1000
    report = (run / "evaluation" / "report.md").read_text(encoding="utf-8")
    assert "Mean over 3 folds" in report
    assert "best on test" in report
    assert "by the beam" in report
    assert evaluate_command.main([str(run / "fold1"), "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_commands_name_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command.main(["--output", str(tmp_path / "run"), "--size", "tiny"]) == 2
    assert "Add --data FOLDER" in capsys.readouterr().err
    assert export_command.main([str(tmp_path), "--output", str(tmp_path / "bundle")]) == 2
    assert "is not a run folder: config.json is missing" in capsys.readouterr().err
    assert train_command.main(["--describe", "tiny"]) == 0
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last["parameters"] > 0
    assert last["gmac"] > 0
