"""Scores run folders and bundles on labelled data and writes scores, report and plots. `vlfau-evaluate` calls this."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import DataChoice, TrainingData, open_data
from ..data.batches import BatchOrder, Loader
from ..data.samples import Samples, descriptions_of, spread
from ..errors import UserError
from ..networks.base import AUNetwork
from ..sentences.targets import Texts
from ..settings import read, setting
from ..training.run_folder import RunFolder
from . import plots, published
from .protocol import Captions, PartPredictions, over_folds, score
from .reader import Reader, RunReader, open_reader, texts_of
from .report import markdown


@dataclass(frozen=True)
class Scoring:
    """What is scored, with what, and what is drawn."""

    weights: str = setting("last", "weights of a run folder", choices=("last", "best"))
    runtime: str = setting("auto", "runtime for a bundle")
    device: str = setting("cpu", "device for a run folder")
    batch: int = setting(32, "images per batch")
    images: int | None = setting(None, "score at most this many images, evenly spread")
    caption_images: int = setting(200, "images to describe; 0 describes none")
    beam: int = setting(1, "also decode sentences with a beam of this width")
    corpus: Path | None = setting(None, "corpus the network was trained on; by default a run's own or the package's")  # noqa: RUF009
    plots: bool = setting(True, "draw the figures")
    draws: int = 1000  # of the bootstrap over subjects


def evaluate(
    where: list[Path | str], output: Path, data: DataChoice | None = None, scoring: Scoring = Scoring()
) -> dict[str, Any]:
    """Scores each run folder or bundle on its test part, and their mean; several are the folds of one training.

    Writes scores.json, report.md and the plots into `output` and returns the content of scores.json.
    """
    output.mkdir(parents=True, exist_ok=True)
    scores, outcomes = [], []
    for number, one in enumerate(_runs(where)):
        reader = open_reader(
            one, which=scoring.weights, runtime=scoring.runtime, device=scoring.device, corpus=scoring.corpus
        )
        part = _test_part(one, reader, data)
        assert part.test is not None
        outcome = run_through(
            reader,
            part.test,
            batch=scoring.batch,
            images=scoring.images,
            caption_images=scoring.caption_images,
            beam=scoring.beam,
        )
        facts = {
            "who": reader.name,
            "chosen_on_test": isinstance(reader, RunReader) and scoring.weights == "best",
            "paper_row": published.ablation(part.dataset, reader.config),
        }
        outcome = dataclasses.replace(outcome, tested=str(part), dataset=part.dataset, extra=facts)
        outcomes.append(outcome)
        scores.append(score(outcome, draws=scoring.draws))
        scores[-1]["best_on_test"] = _best_on_test(one, scoring, scores[-1], part.test)
        if scoring.plots:
            folder = output if number == 0 else output / f"part{number + 1}"
            folder.mkdir(exist_ok=True)
            _draw(folder, reader, outcome, scores[-1], part.test)
    mean = over_folds(scores, outcomes, draws=scoring.draws) if len(scores) > 1 else None
    result = {"parts": scores, "mean": mean}
    (output / "scores.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (output / "report.md").write_text(markdown(" ".join(map(str, where)), scores, mean), encoding="utf-8")
    return result


def run_through(
    reader: Reader,
    samples: Samples,
    *,
    batch: int = 32,
    images: int | None = None,
    caption_images: int = 200,
    beam: int = 1,
) -> PartPredictions:
    """All predictions for the samples, and sentences for a fixed, evenly spread part of them."""
    _check_units(reader, samples)
    samples = spread(samples, images)
    rows = [(part["labels"], reader.probabilities(part["crops"]), part["subject"]) for part in _batches(samples, batch)]
    labels, probabilities, subjects = (np.concatenate(column) for column in zip(*rows))
    captions, by_beam = (
        _captions(reader, spread(samples, caption_images), batch, width) if caption_images and width else None
        for width in (1, beam if beam > 1 else 0)
    )
    states = probabilities >= reader.thresholds
    return PartPredictions(reader.units, labels, probabilities, states, subjects, captions=captions, by_beam=by_beam)


def _captions(reader: Reader, samples: Samples, batch: int, beam: int) -> Captions | None:
    """Sentences for the states that the network itself decided, and word counts under teacher forcing."""
    if not reader.has_captions:
        return None
    network = reader.network
    texts = texts_of(network, reader.config, reader.corpus) if network is not None else None
    decided, local, whole = [], [], []
    sums: dict[str, float] = {}
    rng = np.random.default_rng(0)
    for part in _batches(samples, min(batch, 16)):
        states = reader.probabilities(part["crops"]) >= reader.thresholds
        of_units, of_faces = reader.sentences(part["crops"], states, beam)
        decided.append(states)
        local += of_units
        whole += of_faces
        if network is not None and texts is not None and beam == 1:  # teacher forcing has no beam
            descriptions = descriptions_of(samples, part["index"])
            for name, value in network_words(network, texts, part, rng, descriptions).items():
                sums[name] = sums.get(name, 0.0) + value
    return Captions(np.concatenate(decided), local, whole, sums, reader.corpus)


@torch.inference_mode()
def network_words(
    network: AUNetwork,
    texts: Texts,
    part: dict[str, Any],
    rng: np.random.Generator,
    descriptions: list[str] | None = None,
) -> dict[str, float]:
    """Counts over the words of the true sentences, each predicted from the true words before it."""
    targets = texts.targets(part["labels"], rng, descriptions)
    device = next(network.parameters()).device
    batch = {"crops": torch.from_numpy(part["crops"])} | targets
    logits = network.word_logits({name: value.to(device) for name, value in batch.items()})
    sums: dict[str, float] = {}
    for kind, values in logits.items():  # "local" (B, A, T, Voc), "global" (B, T, Voc)
        tokens = targets[f"{kind}_tokens"].to(device)
        words = tokens > 0
        five = values.topk(5, dim=-1).indices
        sums[f"{kind}_words"] = float(words.sum())
        sums[f"{kind}_right"] = float(((five[..., 0] == tokens) & words).sum())
        sums[f"{kind}_top5"] = float(((five == tokens[..., None]).any(-1) & words).sum())
    return sums


def _batches(samples: Samples, size: int) -> Iterator[dict[str, Any]]:
    for part in Loader(samples, BatchOrder(samples, size, shuffle=False)):
        yield {name: tensor.numpy() for name, tensor in part.items()}


def _draw(folder: Path, reader: Reader, outcome: PartPredictions, one: dict[str, Any], samples: Samples) -> None:
    plots.f1_bars(folder / "f1.png", one)
    plots.reliability(folder / "reliability.png", outcome.labels, outcome.probabilities)
    if reader.network is None:
        return
    features, subjects, example = [], [], None
    with torch.inference_mode():
        device = next(reader.network.parameters()).device
        for part in _batches(spread(samples, 120), 16):
            crops = torch.from_numpy(part["crops"]).to(device)
            features.append(reader.network.unit_vectors(crops).float().cpu().numpy())
            subjects.append(part["subject"])
            encoded = reader.network.encode(crops[:1])
            if example is None and encoded.spatial is not None:
                spatial = encoded.spatial[0].float().cpu().numpy()
                if np.ptp(spatial) > 0:
                    example = part["crops"][0], spatial, torch.sigmoid(encoded.log_odds[0].float()).cpu().numpy()
    plots.feature_map(folder, np.concatenate(features), reader.units, np.concatenate(subjects))
    if example is not None:
        crop, spatial, probabilities = example
        plots.attention(folder / "attention.png", crop, spatial, reader.units, probabilities)


def _runs(where: list[Path | str]) -> list[Path | str]:
    """A folder of folds (fold1, fold2, ...) stands for its runs."""
    runs: list[Path | str] = []
    for one in where:
        folds = sorted(Path(one).glob("fold*/config.json")) if str(one) != "embedded" else []
        runs += [path.parent for path in folds] or [one]
    return runs


def _test_part(one: Path | str, reader: Reader, data: DataChoice | None) -> TrainingData:
    """The test part of the run's own data, or of the requested data."""
    defaults = vars(DataChoice())
    requested = {} if data is None else {name: value for name, value in vars(data).items() if value != defaults[name]}
    if "data" not in requested:
        config = RunFolder(Path(one)).config() if (Path(one) / "config.json").is_file() else None
        if config is None:
            raise UserError(f"{one} does not name the data it was tested on. Add --data FOLDER.")
        stored = {key: value for key, value in config["data"].items() if key != "tests" and value is not None}
        data = dataclasses.replace(read(DataChoice, stored), **requested)
    assert data is not None
    data = dataclasses.replace(data, units=reader.units)
    part = next(iter(open_data(data, reader.side)))
    if part.test is None or not len(part.test):
        raise UserError(f"{data.data} has no test part: nothing is held out. Set --hold-out above 0.")
    return part


def _check_units(reader: Reader, samples: Samples) -> None:
    if tuple(reader.units) != tuple(samples.units):
        raise UserError(
            f"{reader.name} predicts {' '.join(reader.units)}, the data has {' '.join(samples.units)}. "
            "Give data that codes the same units."
        )


def _best_on_test(one: Path | str, scoring: Scoring, last: dict[str, Any], samples: Samples) -> dict[str, Any] | None:
    """Scores the weights that were best on the test part like the last ones; None if only one of them is scored."""
    rows = RunFolder(Path(one)).rows("epoch") if str(one) != "embedded" and scoring.weights == "last" else []
    tested = [row for row in rows if "test_f1" in row]
    if not tested:
        return None
    best = max(tested, key=lambda row: row["test_f1"])  # the first of equals, as in the trainer
    figures = last
    if best["epoch"] != tested[-1]["epoch"]:
        reader = open_reader(one, which="best", device=scoring.device)
        outcome = run_through(reader, samples, batch=scoring.batch, images=scoring.images, caption_images=0)
        figures = score(outcome, draws=1)
    return {
        "last_epoch": tested[-1]["epoch"] + 1,
        "last_f1": last["f1"],
        "best_epoch": best["epoch"] + 1,
        **{f"best_{name}": figures[name] for name in ("f1", "accuracy", "auc")},
        "units": {unit: row["f1"] for unit, row in figures["units"].items()},
    }
