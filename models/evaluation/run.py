"""From a run folder or a bundle and labelled data to scores, report and plots. What `vlfau-evaluate` calls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import DataChoice, TrainingData, open_data
from ..data.loading import BatchOrder, Loader
from ..data.samples import Samples, Some, people_of
from ..errors import UserError
from ..networks.base import AUNetwork
from ..sentences.targets import Texts
from ..settings import read
from ..training.run_folder import RunFolder
from . import plots, published
from .protocol import Captions, Outcome, over_folds, score
from .reader import Reader, RunReader, open_reader, texts_of
from .report import markdown


def evaluate(
    where: list[Path | str],
    output: Path,
    data: DataChoice | None = None,
    *,
    weights: str = "last",
    runtime: str = "auto",
    device: str = "cpu",
    batch: int = 32,
    images: int | None = None,
    caption_images: int = 200,
    beam: int = 1,
    corpus: Path | None = None,
    draws: int = 1000,
    with_plots: bool = True,
) -> dict[str, Any]:
    """Scores each run folder or bundle on its test part, and their mean; several are the folds of one training.

    A run folder's last weights have its best on the test part beside them. With `beam` sentences are decoded that way
    too.

    Writes scores.json, report.md and the plots into `output` and returns what scores.json holds.
    """
    output.mkdir(parents=True, exist_ok=True)
    scores, outcomes = [], []
    for number, one in enumerate(_runs(where)):
        reader = open_reader(one, which=weights, runtime=runtime, device=device, corpus=corpus)
        part = _test_part(one, reader, data)
        assert part.test is not None
        outcome = run_through(reader, part.test, batch=batch, images=images, caption_images=caption_images, beam=beam)
        dataset = getattr(getattr(part.test, "table", None), "dataset", "")
        row = published.ablation_row(reader.config) if dataset == "BP4D" else None
        chosen = isinstance(reader, RunReader) and weights == "best"
        facts: dict[str, Any] = {"who": reader.name, "chosen_on_test": chosen}
        facts |= {"paper_row": {"name": row, "f1": published.ABLATION[row] / 100} if row else None}
        outcome = dataclasses.replace(outcome, tested=str(part), dataset=dataset, extra=facts)
        outcomes.append(outcome)
        scores.append(score(outcome, draws=draws))
        scores[-1]["best_on_test"] = _best_beside(one, weights, scores[-1], part.test, device, batch, images)
        if with_plots:
            folder = output if number == 0 else output / f"part{number + 1}"
            folder.mkdir(exist_ok=True)
            _draw(folder, reader, outcome, scores[-1], part.test)
    mean = over_folds(scores, outcomes, draws=draws) if len(scores) > 1 else None
    result = {"parts": scores, "mean": mean}
    (output / "scores.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    title = f"{' '.join(map(str, where))}"
    (output / "report.md").write_text(markdown(title, scores, mean), encoding="utf-8")
    return result


def run_through(
    reader: Reader,
    samples: Samples,
    *,
    batch: int = 32,
    images: int | None = None,
    caption_images: int = 200,
    beam: int = 1,
) -> Outcome:
    """Everything the reader says about the samples; sentences for a fixed, evenly spread part of them."""
    _same_units(reader, samples)
    if images is not None:
        samples = _spread(samples, images)
    parts = [
        (made["labels"], reader.probabilities(made["crops"]), made["subject"]) for made in _batches(samples, batch)
    ]
    labels, probabilities, subjects = (np.concatenate(column) for column in zip(*parts))
    captions, by_beam = (
        _captions(reader, _spread(samples, caption_images), batch, width) if caption_images and width else None
        for width in (1, beam if beam > 1 else 0)
    )
    states = probabilities >= reader.thresholds
    return Outcome(reader.units, labels, probabilities, states, subjects, captions=captions, by_beam=by_beam)


def _captions(reader: Reader, samples: Samples, batch: int, beam: int) -> Captions | None:
    """Sentences for the states that the network itself decided, and its words under teacher forcing."""
    network = reader.network
    if not reader.has_captions:
        return None
    sentences = texts_of(network, reader.config, reader.corpus) if network is not None else None
    told, local, whole = [], [], []
    sums: dict[str, float] = {}
    rng = np.random.default_rng(0)
    for made in _batches(samples, min(batch, 16)):
        states = reader.probabilities(made["crops"]) >= reader.thresholds
        units, faces = reader.sentences(made["crops"], states, beam)
        told.append(states)
        local += units
        whole += faces
        if network is not None and sentences is not None and beam == 1:  # words under teacher forcing know no beam
            people = people_of(samples, made["index"])
            for name, value in network_words(network, sentences, made, rng, people).items():
                sums[name] = sums.get(name, 0.0) + value
    return Captions(np.concatenate(told), local, whole, sums, reader.corpus)


@torch.inference_mode()
def network_words(
    network: AUNetwork,
    sentences: Texts,
    made: dict[str, Any],
    rng: np.random.Generator,
    people: list[str] | None = None,
) -> dict[str, float]:
    """Sums over the words of the true sentences, each word predicted from the true words before it."""
    targets = sentences.targets(made["labels"], rng, people)
    device = next(network.parameters()).device
    batch = {"crops": torch.from_numpy(made["crops"])} | targets
    logits = network.word_logits({name: value.to(device) for name, value in batch.items()})
    sums: dict[str, float] = {}
    for kind, found in logits.items():  # "local" (B, A, T, Voc), "global" (B, T, Voc)
        wanted = targets[f"{kind}_tokens"].to(device)
        known = wanted > 0
        five = found.topk(5, dim=-1).indices
        sums[f"{kind}_words"] = float(known.sum())
        sums[f"{kind}_right"] = float(((five[..., 0] == wanted) & known).sum())
        sums[f"{kind}_top5"] = float(((five == wanted[..., None]).any(-1) & known).sum())
    return sums


def _batches(samples: Samples, size: int) -> Iterator[dict[str, Any]]:
    for made in Loader(samples, BatchOrder(samples, size, shuffle=False)):
        yield {name: tensor.numpy() for name, tensor in made.items()}


def _spread(samples: Samples, count: int) -> Samples:
    if count >= len(samples):
        return samples
    return Some(samples, np.linspace(0, len(samples) - 1, count).astype(np.int64))


def _draw(folder: Path, reader: Reader, outcome: Outcome, one: dict[str, Any], samples: Samples) -> None:
    plots.f1_bars(folder / "f1.png", one)
    plots.reliability(folder / "reliability.png", outcome.labels, outcome.probabilities)
    if reader.network is None:
        return
    few = _spread(samples, 120)
    features, subjects, shown = [], [], None
    with torch.inference_mode():
        device = next(reader.network.parameters()).device
        for made in _batches(few, 16):
            crops = torch.from_numpy(made["crops"]).to(device)
            features.append(reader.network.unit_vectors(crops).float().cpu().numpy())
            subjects.append(made["subject"])
            encoded = reader.network.encode(crops[:1])
            if shown is None and encoded.spatial is not None and np.ptp(encoded.spatial[0].float().cpu().numpy()) > 0:
                likely = torch.sigmoid(encoded.log_odds[0].float()).cpu().numpy()
                shown = made["crops"][0], encoded.spatial[0].float().cpu().numpy(), likely
    plots.feature_map(folder, np.concatenate(features), reader.units, np.concatenate(subjects))
    if shown is not None:
        plots.attention(folder / "attention.png", shown[0], shown[1], reader.units, shown[2])


def _runs(where: list[Path | str]) -> list[Path | str]:
    """A folder of folds (fold1, fold2, ...) stands for its runs."""
    found: list[Path | str] = []
    for one in where:
        folds = sorted(Path(one).glob("fold*/config.json")) if str(one) != "embedded" else []
        found += [path.parent for path in folds] or [one]
    return found


def _test_part(one: Path | str, reader: Reader, data: DataChoice | None) -> TrainingData:
    """The test part that the run was kept away from, or the one asked for."""
    given = {} if data is None else {k: v for k, v in vars(data).items() if v != getattr(DataChoice(), k)}
    if "data" not in given:
        config = RunFolder(Path(one)).config() if (Path(one) / "config.json").is_file() else None
        if config is None:
            raise UserError(f"{one} does not say on which data to test it. Add --data FOLDER.")
        stored = {key: value for key, value in config["data"].items() if key != "tests" and value is not None}
        data = dataclasses.replace(read(DataChoice, stored), **given)
    assert data is not None
    data = dataclasses.replace(data, units=reader.units)
    part = next(iter(open_data(data, reader.side)))
    if part.test is None or not len(part.test):
        raise UserError(f"{data.data} has no test part: nothing is held out. Set --hold-out above 0.")
    return part


def _same_units(reader: Reader, samples: Samples) -> None:
    if tuple(reader.units) != tuple(samples.units):
        raise UserError(
            f"{reader.name} knows {' '.join(reader.units)}, the data has {' '.join(samples.units)}. "
            "Give data that codes the same units."
        )


def _best_beside(
    one: Path | str,
    weights: str,
    last: dict[str, Any],
    samples: Samples,
    device: str,
    batch: int,
    images: int | None,
) -> dict[str, Any] | None:
    """The weights that scored best on the test part, scored like the last ones; None where there are no two."""
    rows = RunFolder(Path(one)).rows("epoch") if str(one) != "embedded" and weights == "last" else []
    tested = [row for row in rows if "test_f1" in row]
    if not tested:
        return None
    best = max(tested, key=lambda row: row["test_f1"])  # the first of equals, as the trainer keeps it
    found = last
    if best["epoch"] != tested[-1]["epoch"]:
        reader = open_reader(one, which="best", device=device)
        found = score(run_through(reader, samples, batch=batch, images=images, caption_images=0), draws=1)
    return {
        "last_epoch": tested[-1]["epoch"] + 1,
        "last_f1": last["f1"],
        "best_epoch": best["epoch"] + 1,
        **{f"best_{name}": found[name] for name in ("f1", "accuracy", "auc")},
        "units": {unit: row["f1"] for unit, row in found["units"].items()},
    }
