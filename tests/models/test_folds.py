"""Folds never share a subject, follow the published parts, and name the subjects that they test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlfau.models.data import datasets, folds
from vlfau.models.data.table import Listed, Rows, Table
from vlfau.models.errors import UserError


def table_of(dataset: str, sizes: dict[str, int]) -> Table:
    rows = Rows(dataset, "csv", ("AU01",))
    for name, size in sizes.items():
        for i in range(size):
            rows.add(f"{name}/{i}.png", name, [i % 2], 0, i + 1)
    rows.file(Path("list.txt"))
    return rows.table()


def test_published_parts_are_disjoint_and_complete() -> None:
    for dataset, count in (("BP4D", 41), ("DISFA", 27)):
        parts = datasets.DATASETS[dataset].parts
        assert len(frozenset().union(*parts)) == count == sum(map(len, parts))
    sizes = {
        name: [(dataset.test_size(part), dataset.training_size(part)) for part in (3, 2, 1)]
        for name, dataset in datasets.DATASETS.items()
    }
    assert sizes == {
        "BP4D": [(46034, 100813), (50182, 96665), (50631, 96216)],
        "DISFA": [(43605, 87209), (43605, 87209), (43604, 87210)],
    }


@pytest.mark.parametrize("dataset", ["BP4D", "DISFA"])
def test_fold_one_tests_part_three(dataset: str) -> None:
    names = [name for part in datasets.DATASETS[dataset].parts for name in sorted(part)]
    parts = folds.make_folds(table_of(dataset, dict.fromkeys(names, 2)))
    assert [(fold.number, fold.part) for fold in parts] == [(1, 3), (2, 2), (3, 1)]
    for fold in parts:
        assert set(fold.subjects) == datasets.DATASETS[dataset].parts[fold.part - 1]
        text = str(fold)
        assert text.startswith(f"fold {fold.number} tests part {fold.part}: subjects ")
        assert all(name in text for name in fold.subjects)


def test_folds_over_subjects_are_exclusive_and_even() -> None:
    rng = np.random.default_rng(3)
    sizes = {f"s{i}": int(n) for i, n in enumerate(rng.integers(1, 40, 17))}
    table = table_of("", sizes)
    first = folds.make_folds(table, 4, seed=1)
    tested = np.concatenate([fold.test for fold in first])
    assert sorted(tested.tolist()) == list(range(len(table)))
    assert len({name for fold in first for name in fold.subjects}) == len(sizes)
    counts = [len(fold.test) for fold in first]
    assert max(counts) - min(counts) <= max(sizes.values())
    again = folds.make_folds(table, 4, seed=1)
    assert all((a.test == b.test).all() for a, b in zip(first, again))
    other = folds.make_folds(table, 4, seed=2)
    assert any(len(a.test) != len(b.test) or (a.test != b.test).any() for a, b in zip(first, other))


def test_leaking_subjects_are_named() -> None:
    table = table_of("BP4D", {"F001": 3, "F007": 3, "M005": 3})
    leak = Listed(1, np.array([0, 1, 2, 3, 6]), np.array([4, 5, 7, 8]))
    with pytest.raises(UserError, match=r"same subjects: F007, M005 \(first at list\.txt:2\)"):
        folds.make_folds(replace_listed(table, leak))
    fine = Listed(1, np.arange(3), np.arange(3, 9))
    assert folds.make_folds(replace_listed(table, fine))[0].subjects == ("F007", "M005")
    empty = Listed(2, np.arange(9), np.array([], np.int64))
    with pytest.raises(UserError, match=r"Fold 2 of list\.txt has an empty test part"):
        folds.make_folds(replace_listed(table, empty))


def replace_listed(table: Table, listed: Listed) -> Table:
    return replace(table, listed=(listed,))


def test_strangers_and_single_parts_are_refused() -> None:
    with pytest.raises(UserError, match="Subjects that are in no published part of BP4D: F099"):
        folds.make_folds(table_of("BP4D", {"F001": 1, "F099": 1}))
    with pytest.raises(UserError, match="are in one part"):
        folds.make_folds(table_of("BP4D", {"F001": 1, "M007": 1}))
    with pytest.raises(UserError, match="2 subjects cannot be divided into 3 folds"):
        folds.make_folds(table_of("", {"a": 1, "b": 1}))


def test_listed_folds_follow_when_pictures_are_left_out() -> None:
    table = replace_listed(table_of("BP4D", {"F001": 3, "F007": 3}), Listed(1, np.arange(3), np.arange(3, 6)))
    fold = folds.make_folds(table.only(np.array([0, 2, 4, 5])))[0]
    assert fold.train.tolist() == [0, 1]
    assert fold.test.tolist() == [2, 3]
    assert fold.subjects == ("F007",)


def test_counts_of_a_full_set_cause_no_warning() -> None:
    assert datasets.list_notes("BP4D", 3, [("a.txt", "test", 46034), ("b.txt", "train", 100813)]) == []
    (short,) = datasets.list_notes("BP4D", 3, [("a.txt", "test", 46030)])
    assert "a.txt" in short
    assert "4 short" in short
    (long,) = datasets.list_notes("DISFA", 1, [("b.txt", "train", 87211)])
    assert "1 too many" in long
    assert datasets.list_notes("", 0, [("a.txt", "test", 3)]) == []
