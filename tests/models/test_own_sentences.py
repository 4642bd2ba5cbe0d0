"""A user's own sentences: checked, used for training, kept with the run and read again by evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic_layouts as synthetic

from vlfau.models.bundle import open_bundle
from vlfau.models.evaluation import command as evaluate_command
from vlfau.models.evaluation.reader import open_reader, texts_of
from vlfau.models.export import command as export_command
from vlfau.models.networks import NetworkChoice, corpus_of
from vlfau.models.sentences import __main__ as texts
from vlfau.models.sentences import loading
from vlfau.models.training import command as train_command
from vlfau.models.training.run_folder import RunFolder

SMALL = "[network]\nhidden = 16\nstem_options = { depths = [1, 1, 1, 1], dims = [8, 8, 16, 16] }\n"
FAST = ["--no-pretrained", "--no-align", "--steps", "1", "--batch", "4", "--workers", "0", "--device", "cpu"]


def own_corpus(path: Path) -> Path:
    """The package's sentences with one word changed into one that is not in them."""
    good = loading.SHIPPED.read_text(encoding="utf-8")
    assert "glower" not in good
    assert good.count('tag = "brow-arch"') == 1
    path.write_text(good.replace('tag = "brow-arch"', 'tag = "glower"'), encoding="utf-8")
    return path


def train(tmp_path: Path, *more: str) -> int:
    (tmp_path / "small.toml").write_text(SMALL)
    common = ["--config", str(tmp_path / "small.toml"), "--size", "tiny", "--output", str(tmp_path / "run")]
    return train_command.main([*common, *FAST, *more])


def test_own_sentences_are_trained_kept_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.make_csv(tmp_path / "data")
    mine = own_corpus(tmp_path / "mine.toml")
    assert texts.main([str(mine)]) == 0
    assert train(tmp_path, "--data", str(tmp_path / "data"), "--corpus", str(mine)) == 0
    assert "Initial weights: random initialisation, as requested" in capsys.readouterr().out
    run = tmp_path / "run"
    assert "glower" in RunFolder(run).config()["network"]["vocabulary"]
    assert (run / "corpus.toml").read_bytes() == mine.read_bytes()
    mine.unlink()  # the run has its own copy
    assert evaluate_command.main([str(run), "--no-plots", "--images", "8", "--caption-images", "2"]) == 0
    part = json.loads((run / "evaluation" / "scores.json").read_text(encoding="utf-8"))["parts"][0]
    assert 0 <= part["captions"]["local_top5_accuracy"] <= 1


@pytest.mark.slow
def test_scoring_a_bundle_of_own_sentences_needs_their_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle holds words, not sentences, so the corpus must be given."""
    synthetic.make_csv(tmp_path / "data")
    mine, run = own_corpus(tmp_path / "mine.toml"), tmp_path / "run"
    assert train(tmp_path, "--data", str(tmp_path / "data"), "--corpus", str(mine)) == 0
    assert export_command.main([str(run), "--output", str(tmp_path / "bundle")]) == 0
    assert "glower" in open_bundle(tmp_path / "bundle").manifest.vocabulary
    options = [str(tmp_path / "bundle"), "--data", str(tmp_path / "data"), "--no-align", "--runtime", "onnxruntime"]
    options += ["--no-plots", "--images", "4", "--caption-images", "1", "--output", str(tmp_path / "scores")]
    assert evaluate_command.main(options) == 2
    assert "outside the vocabulary" in capsys.readouterr().err
    assert evaluate_command.main([*options, "--corpus", str(mine)]) == 0


def test_subjects_are_named_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.make_raw_bp4d(tmp_path / "data")
    assert train(tmp_path, "--data", str(tmp_path / "data"), "--subjects") == 0
    reader = open_reader(tmp_path / "run")
    assert {"man", "woman"} <= set(reader.config["vocabulary"])
    assert reader.network is not None
    assert texts_of(reader.network, reader.config, reader.corpus).subjects
    shutil.rmtree(tmp_path / "run")
    assert train(tmp_path, "--data", str(tmp_path / "data")) == 0
    reader = open_reader(tmp_path / "run")
    assert not {"man", "woman"} & set(reader.config["vocabulary"])
    assert reader.network is not None
    assert not texts_of(reader.network, reader.config, reader.corpus).subjects
    shutil.rmtree(tmp_path / "run")
    synthetic.make_raw_disfa(tmp_path / "disfa", videos=False)
    capsys.readouterr()
    assert train(tmp_path, "--data", str(tmp_path / "disfa"), "--subjects") == 2
    assert "This data does not describe its subjects" in capsys.readouterr().err


def test_a_person_without_words_is_refused_and_the_choices_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{subject}{i}.png" for subject in "pqr" for i in range(4)]
    for name in names:
        synthetic.write_picture(tmp_path / "data" / name, [1], name[0])
    lines = [f"{name},{name[0]},a robot,{i % 2}" for i, name in enumerate(names)]
    synthetic.write_lines(tmp_path / "data" / "labels.csv", ["path,subject,person,AU1", *lines])
    assert train(tmp_path, "--data", str(tmp_path / "data"), "--subjects") == 2
    assert "'a robot'" in capsys.readouterr().err


def test_a_unit_without_sentences_is_named_with_file_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{i}.png,s{i},{i % 2},1" for i in range(8)]
    for i in range(8):
        synthetic.write_picture(tmp_path / f"{i}.png", [1, 0], "x")
    synthetic.write_lines(tmp_path / "labels.csv", ["path,subject,AU27,AU1", *lines])
    assert train(tmp_path, "--data", str(tmp_path / "labels.csv")) == 2
    message = capsys.readouterr().err
    assert "corpus.toml has no sentences for AU27" in message
    assert "--units" in message
    assert "--corpus" in message
    assert train(tmp_path, "--data", str(tmp_path / "labels.csv"), "--units", "AU01") == 0
    assert np.isin("raised", list(RunFolder(tmp_path / "run").config()["network"]["vocabulary"]))
    assert corpus_of(NetworkChoice(network="graphau"), ("AU27",)) is None  # a network without sentences takes any unit
