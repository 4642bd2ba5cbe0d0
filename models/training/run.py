"""From settings to finished runs: opens data, builds the network, trains one fold or all. What `vlfau-train` calls.

from vlfau.models.training.run import train
train(Path("runs/bp4d"), NetworkChoice(size="compact"), DataChoice(data=Path("BP4D")), Recipe(epochs=5))
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import DataChoice, TrainingData, is_shards, open_data
from ..data.augmentation import Augmentation
from ..errors import UserError
from ..networks import NetworkChoice, build, configure, corpus_of, size_of
from ..networks.base import AUNetwork
from ..sentences.loading import SHIPPED
from ..sentences.targets import Texts, check_people
from ..settings import as_table
from .batch_norms import renew_statistics
from .display import Display
from .processes import Processes
from .recipe import Recipe
from .run_folder import RunFolder
from .trainer import Trainer


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
    """Trains into `output`, or into output/fold1, output/fold2, ... with `all_folds`; goes on where a run was stopped.

    `changes` are single settings of the network that differ from its named size. Returns the run folders.
    """
    folders: list[Path] = []
    _share_cores(recipe.threads, quiet)
    with Processes(recipe.device) as group:
        opened = open_data(
            data,
            _side(network, changes or {}),
            all_folds=all_folds,
            seed=recipe.seed,
            augmentation=augmentation,
            report=print if group.first and not quiet else lambda _: None,
            group=group,
        )
        for part in opened:
            folder = output / f"fold{part.fold.number}" if all_folds and part.fold is not None else output
            _train_one(folder, network, part, recipe, group, augmentation, changes or {}, fresh, quiet)
            folders.append(folder)
    return folders


def _train_one(
    folder: Path,
    choice: NetworkChoice,
    data: TrainingData,
    recipe: Recipe,
    group: Processes,
    augmentation: Augmentation | None,
    changes: Mapping[str, Any],
    fresh: bool,
    quiet: bool,
) -> None:
    """One fold."""
    torch.manual_seed(recipe.seed)  # the same first weights in every process
    corpus = corpus_of(choice, data.units)
    config = configure(choice, data.units, corpus, _suited(changes, choice, data.choice), data.dataset)
    network = build(config)
    run = RunFolder(folder)
    if group.first:
        if fresh and folder.exists():
            _remove_run(folder)
        continues = run.checkpoints.exists()
        first = "continues" if continues else first_weights(network, choice)
        if len(choice.start_from) > 1 and not continues:
            network.to(group.device)
            renew_statistics(network, data.open, batch=recipe.batch, workers=recipe.workers)
        if not quiet:
            print(f"Weights at the beginning: {first}")
        run.start(
            {
                "units": list(data.units),
                "network": config,
                "stem": first,
                "data": as_table(data.choice) | {"fold": data.fold.number if data.fold else None, "tests": str(data)},
                "training": as_table(recipe),
                "augmentation": as_table(augmentation)
                if augmentation
                else ("renders" if is_shards(data.choice) else "paper"),
            }
        )
        if corpus is not None:
            run.keep_corpus(choice.corpus or SHIPPED)
    group.wait()
    sentences = None
    if network.has_captions and corpus is not None:
        told = bool(config.get("state_conditioned"))
        if choice.subjects:
            check_people(data.people, corpus)
        vocabulary = tuple(config["vocabulary"])
        sentences = Texts(corpus, vocabulary, network.words, told, recipe.state_noise, choice.subjects)
    display = Display(folder if group.first else None, shown=group.first and not quiet)
    try:
        Trainer(network, data, sentences, recipe, run, group, display).train()
    finally:
        display.close()


def _suited(changes: Mapping[str, Any], choice: NetworkChoice, data: DataChoice) -> Mapping[str, Any]:
    """Only renders teach where a face's points lie; from nothing, on other data, nothing can be judged by them."""
    if is_shards(data) or choice.start_from:
        return changes
    by_points = {"landmarks": 0.0, "judge_points": 0}
    return {name: value for name, value in by_points.items() if name in size_of(choice.size)} | dict(changes)


def first_weights(network: AUNetwork, choice: NetworkChoice) -> str:
    """Of other runs as far as they fit (a network without captions may go on with them), else of the stem alone.

    Runs that went on from each other have a mean that is a network too, and it can keep what each of them is good at
    (Wortsman et al. 2022, robust fine-tuning).
    """
    if not choice.start_from:
        return network.load_imagenet(choice.weights, choice.pretrained)
    mine = network.state_dict()
    found: dict[str, list[Tensor]] = {}
    for folder in choice.start_from:
        weights, _ = RunFolder(folder).weights("last")
        fitting = {name: value for name, value in weights.items() if name in mine and mine[name].shape == value.shape}
        if not fitting:
            raise UserError(f"No tensor of {folder} fits this network. Choose the size that it was trained with.")
        for name, value in fitting.items():
            found.setdefault(name, []).append(value)
    network.load_state_dict({name: _mean(values) for name, values in found.items()}, strict=False)
    names = " and ".join(folder.name for folder in choice.start_from)
    return f"{len(found)} of {len(mine)} tensors from {names}"


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)


def _share_cores(threads: int, quiet: bool) -> None:
    """Threads that wait for each other on a busy machine are slower than one: 2.5 against 24 pictures/s."""
    if threads:
        torch.set_num_threads(threads)
    cores = os.cpu_count() or 1
    if not quiet and not threads and torch.get_num_threads() > 1 and os.getloadavg()[0] > cores:
        print(f"This machine is busy (load {os.getloadavg()[0]:.1f} on {cores} cores): --threads 1 is probably faster.")


def _side(choice: NetworkChoice, changes: Mapping[str, Any]) -> int:
    """The crop side, before anything is known of units."""
    return int({"side": 224, **size_of(choice.size), **changes}["side"])


def _remove_run(folder: Path) -> None:
    """Only what a run folder holds; anything else in it is the user's."""
    if not (folder / "config.json").is_file():
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds files that no training wrote. Give another --output than with --fresh.")
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
