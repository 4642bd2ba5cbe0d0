"""The ablation writes settings that the trainer reads, uses the stated renders, and scores each variant once."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from bench_modules import bench_module

pytest.importorskip("torch", reason="variants are trained")

from synthetic_layouts import make_shards

from vlfau.models.data.augmentation import RENDERS
from vlfau.models.settings import load_toml

bench = bench_module("ablation")


def test_settings_survive_being_written_as_toml(bench: ModuleType, tmp_path: Path) -> None:
    for variant in bench.VARIANTS:
        written = {**bench.NETWORK, **variant.network, **variant.crops}
        (tmp_path / "settings.toml").write_text(bench.toml(written))
        assert load_toml(tmp_path / "settings.toml") == written


def test_variants_differ_in_one_thing_each(bench: ModuleType) -> None:
    first, *others = bench.VARIANTS
    assert (first.network, first.renders, first.after) == ({}, None, "")
    for variant in others:
        changed = [bool(variant.network), variant.renders is not None, bool(variant.after)]
        assert changed.count(True) == 1, variant.name
        assert variant.after or variant.crops == first.crops
    assert set(bench.PLAIN) == set(bench.LIGHT) == set(vars(RENDERS))


def test_a_part_holds_the_requested_number_of_renders(bench: ModuleType, tmp_path: Path) -> None:
    from vlfau.models.data.shards import read_shards

    whole = tmp_path / "all"
    make_shards(whole)
    sizes = [int(end) for end in read_shards(whole).starts[1:]]
    part = bench.part_of(whole, 1, tmp_path / "part")
    assert len(read_shards(part)) == sizes[0] < len(read_shards(whole))
    assert len(read_shards(bench.part_of(whole, sizes[-1], tmp_path / "same"))) == sizes[-1]


def test_a_finished_variant_is_not_trained_again(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "conv", "what": "as written", "images": 7, **dict.fromkeys(bench.FIGURES), "f1": 0.5}
    (tmp_path / "conv").mkdir()
    (tmp_path / "conv" / "judged.json").write_text(json.dumps(row))
    assert bench.main(["--data", str(tmp_path), "--only", "conv", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "as written" in output
    assert json.loads(output.splitlines()[-1])["rows"] == [row]


def test_a_failing_step_is_reported_with_its_message(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert bench.main(["--data", str(tmp_path / "empty"), "--only", "conv", "--output", str(tmp_path)]) == 2
    assert "empty" in capsys.readouterr().err
