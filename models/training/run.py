"""Trains one fold or all: opens the data, builds the network, runs the trainer. `vlfau-train` calls this.

from vlfau.models.training.run import train
train(Path("runs/bp4d"), NetworkChoice(size="compact"), DataChoice(data=Path("BP4D")), Recipe(epochs=5))
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import DataChoice, TrainingData, is_shards, open_data
from ..data.augmentation import Augmentation
from ..errors import UserError
from ..networks import NetworkChoice, build, configure, corpus_of, side_of
from ..networks.base import AUNetwork
from ..sentences.corpus import Corpus
from ..sentences.loading import SHIPPED
from ..sentences.targets import Texts, check_descriptions
from ..settings import as_table
from .batch_norms import renew_statistics
from .display import Display
from .processes import Processes
from .recipe import Recipe
from .run_folder import RunFolder
from .trainer import Trainer


@dataclass(frozen=True)
class Plan:
    """What all folds of a training have in common."""

    network: NetworkChoice
    changes: Mapping[str, Any]
    recipe: Recipe
    augmentation: Augmentation | None
    fresh: bool
    quiet: bool


def train(
    output: Path,
    network: NetworkChoice,
    data: DataChoice,
    recipe: Recipe,
    *,
    augmentation: Augmentation | None = None,
    changes: Mapping[str, Any] | None = None,
    all_folds: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Trains into `output`, or with `all_folds` into output/fold1, output/fold2, ...; resumes a run that was stopped.

    `changes` are settings of the network that differ from its named size. Returns the run folders.
    """
    plan = Plan(network, changes or {}, recipe, augmentation, fresh, quiet)
    folders: list[Path] = []
    _share_cores(recipe.threads, quiet)
    with Processes(recipe.device) as group:
        parts = open_data(
            data,
            side_of(network, plan.changes),
            all_folds=all_folds,
            seed=recipe.seed,
            augmentation=augmentation,
            report=print if group.first and not quiet else lambda _: None,
            group=group,
        )
        for part in parts:
            folder = output / f"fold{part.fold.number}" if all_folds and part.fold is not None else output
            _train_fold(folder, plan, part, group)
            folders.append(folder)
    return folders


def _train_fold(folder: Path, plan: Plan, data: TrainingData, group: Processes) -> None:
    recipe, choice = plan.recipe, plan.network
    torch.manual_seed(recipe.seed)  # the same initial weights in every process
    corpus = corpus_of(choice, data.units)
    points = is_shards(data.choice) or bool(choice.start_from)  # only renders teach where a face's points lie
    config = configure(choice, data.units, corpus, plan.changes, data.dataset, points=points)
    network = build(config)
    run = RunFolder(folder)
    if group.first:
        _begin(run, plan, data, network, config, group.device)
        if corpus is not None:
            run.keep_corpus(choice.corpus or SHIPPED)
    group.wait()
    texts = _texts(plan, data, network, config, corpus)
    display = Display(folder if group.first else None, shown=group.first and not plan.quiet)
    try:
        Trainer(network, data, texts, recipe, run, group, display).train()
    finally:
        display.close()


def _begin(
    run: RunFolder, plan: Plan, data: TrainingData, network: AUNetwork, config: dict[str, Any], device: torch.device
) -> None:
    """Loads the initial weights and writes the settings into the run folder."""
    recipe, choice = plan.recipe, plan.network
    if plan.fresh and run.folder.exists():
        _remove_run(run.folder)
    resumes = run.checkpoints.exists()
    source = "continues" if resumes else first_weights(network, choice)
    if len(choice.start_from) > 1 and not resumes:
        network.to(device)
        renew_statistics(network, data.open, batch=recipe.batch, workers=recipe.workers)
    if not plan.quiet:
        print(f"Initial weights: {source}")
    augmentation = as_table(plan.augmentation) if plan.augmentation else None
    run.start(
        {
            "units": list(data.units),
            "network": config,
            "stem": source,
            "data": as_table(data.choice) | {"fold": data.fold.number if data.fold else None, "tests": str(data)},
            "training": as_table(recipe),
            "augmentation": augmentation or ("renders" if is_shards(data.choice) else "paper"),
        }
    )


def _texts(
    plan: Plan, data: TrainingData, network: AUNetwork, config: dict[str, Any], corpus: Corpus | None
) -> Texts | None:
    """The sentences that the network is trained on; None if it produces none."""
    if corpus is None or not network.has_captions:
        return None
    subjects = plan.network.subjects
    if subjects:
        check_descriptions(data.descriptions, corpus)
    vocabulary, conditioned = tuple(config["vocabulary"]), network.state_conditioned
    return Texts(corpus, vocabulary, network.words, conditioned, plan.recipe.state_noise, subjects)


def first_weights(network: AUNetwork, choice: NetworkChoice) -> str:
    """Loads the weights of other runs as far as they fit (a network with captions may start from one without), or
    those of the stem alone. Returns where they come from.

    The mean of runs that started from each other is a network too, and can keep the strengths of each (Wortsman et
    al. 2022, robust fine-tuning).
    """
    if not choice.start_from:
        return network.load_imagenet(choice.weights, choice.pretrained)
    mine = network.state_dict()
    tensors: dict[str, list[Tensor]] = {}
    for folder in choice.start_from:
        weights, _ = RunFolder(folder).weights("last")
        fitting = {name: value for name, value in weights.items() if name in mine and mine[name].shape == value.shape}
        if not fitting:
            raise UserError(f"No tensor of {folder} fits this network. Choose the size that it was trained with.")
        for name, value in fitting.items():
            tensors.setdefault(name, []).append(value)
    network.load_state_dict({name: _mean(values) for name, values in tensors.items()}, strict=False)
    names = " and ".join(folder.name for folder in choice.start_from)
    return f"{len(tensors)} of {len(mine)} tensors from {names}"


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)


def _share_cores(threads: int, quiet: bool) -> None:
    """On a busy machine, threads that wait for each other are slower than one: 2.5 instead of 24 images/s."""
    if threads:
        torch.set_num_threads(threads)
    cores = os.cpu_count() or 1
    if not quiet and not threads and torch.get_num_threads() > 1 and os.getloadavg()[0] > cores:
        print(f"This machine is busy (load {os.getloadavg()[0]:.1f} on {cores} cores): --threads 1 is probably faster.")


def _remove_run(folder: Path) -> None:
    """Removes what a run folder holds and leaves the user's other files."""
    if not (folder / "config.json").is_file():
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds files that are not from a training. Use --fresh with another --output.")
        return
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (
        "config.json",
        "environment.json",
        "corpus.toml",
        "metrics.jsonl",
        "last.safetensors",
        "best.safetensors",
    ):
        (folder / name).unlink(missing_ok=True)
