"""Opens labelled data in any layout and divides it into training and test parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache import cache_folder
from ..errors import UserError
from ..settings import setting
from ..terminal import Progress
from .augmentation import PAPER, RENDERS, Augmentation
from .crop_cache import CropCache, FindPoints
from .datasets import DATASETS, NUMBERING
from .folds import Fold, make_folds
from .layouts import STYLES, open_layout
from .samples import Augmented, Crops, Samples, ShardSamples
from .shards import ShardArrays, read_shards
from .table import Table

if TYPE_CHECKING:
    from .batches import Group  # imports torch, which reading data does not need


@dataclass(frozen=True)
class DataChoice:
    """[data] of a configuration file."""

    data: Path | None = setting(None, "folder of labelled data in any known layout, a CSV, or shards")  # noqa: RUF009
    layout: str = setting("auto", "layout of the data, if it is not recognised", choices=STYLES)
    dataset: str | None = setting(None, "BP4D or DISFA, if both are in one folder")
    units: tuple[str, ...] = setting((), "action units to train, e.g. AU01 AU12; by default all that are coded")
    fold: int = setting(1, "fold to train; see --all-folds")
    folds: int = setting(3, "number of folds over the subjects, for data without published parts")
    hold_out: float = setting(0.1, "share of the subjects of rendered shards to test on; 0 trains on all")
    align: bool = setting(
        True, "find faces and align them as the engine does; use --no-align if images are aligned already"
    )
    cache: Path | None = setting(None, "folder for aligned crops; by default in the user's cache")  # noqa: RUF009


def unseen(choice: DataChoice, provenance: Mapping[str, Any]) -> DataChoice:
    """For the data that a bundle was trained on, holds out no more than its training did: it has seen the rest."""
    trained = provenance.get("data", {})
    if choice.data is None or trained.get("data") != choice.data.name or "hold_out" not in trained:
        return choice
    return replace(choice, hold_out=min(choice.hold_out, trained["hold_out"]))


class TrainingData:
    """Opened data of one fold. `open()` returns the current training samples, since folders of shards may grow."""

    def __init__(
        self,
        choice: DataChoice,
        fold: Fold | None,
        units: tuple[str, ...],
        opener: Callable[[list[str] | None], Augmented],
        test: Samples | None,
        dataset: str = "",
        descriptions: tuple[str, ...] = (),
    ) -> None:
        self.choice, self.fold, self.units, self.test = choice, fold, units, test
        self.dataset = dataset  # BP4D, DISFA or ""
        self.descriptions = descriptions  # of the subjects, such as "a woman"
        self._opener = opener

    def open(self, files: list[str] | None = None) -> Augmented:
        """With `files`, exactly what an earlier open() returned, so that a resumed epoch sees the same images."""
        return self._opener(files)

    def __str__(self) -> str:
        if self.fold is not None:
            return str(self.fold)
        if self.test is None:
            return "no held-out images"
        return f"{len(self.test)} held-out images of {len(np.unique(self.test.subjects))} subjects"


def open_data(
    choice: DataChoice,
    side: int,
    *,
    all_folds: bool = False,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    find_points: FindPoints | None = None,
    report: Callable[[str], None] = print,
    group: Group | None = None,
) -> Iterator[TrainingData]:
    """One TrainingData per requested fold. `side` is the network's; the processes of a `group` share the alignment."""
    if choice.data is None:
        raise UserError("No data given. Add --data FOLDER, or [data] data = ... to the configuration file.")
    units: Sequence[str] | None = choice.units or None
    if is_shards(choice):
        yield _shards(choice, side, seed, augmentation or RENDERS)
        return
    table = open_layout(choice.data, choice.layout, dataset=choice.dataset, units=units)
    notes = len(table.notes)
    for note in table.notes:
        report(f"Note: {note}")
    if choice.align and find_points is None:
        from ..faces import open_detector
        from ..faces.landmarks import open_landmarks
        from ..faces.points import PointFinder

        find_points = PointFinder(open_detector(), open_landmarks())
    cache = CropCache(choice.cache or cache_folder("crops"), side, find_points if choice.align else None)
    progress = Progress(f"Cutting crops of {choice.data} into {cache.folder}", report=report).show
    if group is not None and group.world > 1:
        cache.fill(table, progress, rank=group.rank, world=group.world)
        group.wait()
    table = cache.prepare(table, progress)
    for note in table.notes[notes:]:
        report(f"Note: {note}")
    folds = make_folds(table, choice.folds, seed)
    if table.dataset in DATASETS:
        report(NUMBERING)
    for fold in folds:
        if all_folds or fold.number == choice.fold:
            report(f"{fold}")
            yield _fold(choice, table, cache, fold, side, seed, augmentation or PAPER)
    if not all_folds and choice.fold not in [fold.number for fold in folds]:
        raise UserError(f"There is no fold {choice.fold}. Choose one of {', '.join(str(f.number) for f in folds)}.")


def is_shards(choice: DataChoice) -> bool:
    folder = choice.data
    return choice.layout in ("auto", "shards") and folder is not None and any(folder.glob("shard-*.safetensors"))


def _shards(choice: DataChoice, side: int, seed: int, augmentation: Augmentation) -> TrainingData:
    folder = choice.data
    assert folder is not None

    def opened(files: list[str] | None) -> ShardSamples:
        renders = read_shards(folder, choice.units or None)
        if files is not None:
            renders = _only_files(renders, files)
        return ShardSamples(renders, side, augmentation=augmentation, seed=seed)

    def train(files: list[str] | None) -> Augmented:
        whole = opened(files)
        return whole.split(choice.hold_out)[0] if choice.hold_out else whole

    first = opened(None)
    test = first.split(choice.hold_out)[1] if choice.hold_out else None
    return TrainingData(choice, None, first.units, train, test)


def _only_files(renders: ShardArrays, names: Sequence[str]) -> ShardArrays:
    """As if only these shards were there."""
    numbers = [number for number, path in enumerate(renders.files) if path.name in set(names)]
    if len(numbers) != len(names):
        raise UserError(
            f"{renders.folder} lacks shards that were there when the run began. Put them back, or use --fresh."
        )
    sizes = np.diff(renders.starts)
    rows = np.repeat(np.isin(np.arange(len(sizes)), numbers), sizes)  # (n,)
    return replace(
        renders,
        files=tuple(renders.files[number] for number in numbers),
        starts=np.concatenate([[0], np.cumsum(sizes[numbers])]).astype(np.int64),
        labels=renders.labels[rows],
        intensity=renders.intensity[rows],
        points=renders.points[rows],
        identity=renders.identity[rows],
        face=renders.face[rows],
    )


def _fold(
    choice: DataChoice, table: Table, cache: CropCache, fold: Fold, side: int, seed: int, augmentation: Augmentation
) -> TrainingData:
    train = Crops(table, cache, rows=fold.train, augmentation=augmentation, seed=seed)
    test = Crops(table, cache, rows=fold.test, augmentation=None, seed=seed)
    return TrainingData(choice, fold, table.units, lambda _: train, test, table.dataset, table.descriptions)
