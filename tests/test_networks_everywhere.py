"""The five rows of the ablation and both networks, trained, evaluated and exported; and every layout trained from."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import synthetic_layouts as synthetic

from vlfau.models import evaluate_command, export_command, train_command
from vlfau.models.bundle import open_bundle
from vlfau.models.run_folder import RunFolder

NETWORKS = ["tiny-stem", "tiny-refined", "tiny-local", "tiny-global", "tiny", "graphau"]


def listed(make: Callable[[Path, str], object], of: str, root: Path) -> object:
    return make(root, of)


LAYOUTS: dict[str, Callable[[Path], object]] = {
    **{style: partial(listed, make, "DISFA") for style, make in synthetic.LISTS.items()},
    **{f"{style}-bp4d": partial(listed, make, "BP4D") for style, make in synthetic.LISTS.items()},
    "bp4d": synthetic.make_raw_bp4d,
    "disfa": lambda root: synthetic.make_raw_disfa(root, videos=False),
    "disfa-videos": synthetic.make_raw_disfa,
    "csv": synthetic.make_csv,
    "shards": synthetic.make_shards,
}


def train(data: Path, run: Path, name: str, *more: str) -> int:
    network = ["--network", "graphau", "--size", "tiny"] if name == "graphau" else ["--size", name]
    common = ["--no-pretrained", "--no-align", "--steps", "1", "--batch", "4", "--workers", "0", "--device", "cpu"]
    return train_command.main(["--data", str(data), "--output", str(run), *network, *common, *more])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_goes_all_the_way(tmp_path: Path, name: str) -> None:
    synthetic.make_csv(tmp_path / "data")
    assert train(tmp_path / "data", tmp_path / "run", name) == 0
    assert evaluate_command.main([str(tmp_path / "run"), "--no-plots", "--images", "16", "--caption-images", "2"]) == 0
    scores = json.loads((tmp_path / "run" / "evaluation" / "scores.json").read_text())
    assert (scores["parts"][0]["captions"] is not None) == (name in ("tiny", "tiny-local", "tiny-global"))
    assert export_command.main([str(tmp_path / "run"), "--output", str(tmp_path / "bundle")]) == 0
    assert open_bundle(tmp_path / "bundle").has_captions == (scores["parts"][0]["captions"] is not None)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_can_be_trained_from(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path / "data")
    more = ["--hold-out", "0.3"] if layout == "shards" else ["--cache", str(tmp_path / "cache")]
    assert train(tmp_path / "data", tmp_path / "run", "tiny-refined", *more) == 0
    rows = RunFolder(tmp_path / "run").rows("epoch")
    assert rows[0]["step"] == 1
    assert 0 <= rows[0]["test_f1"] <= 1
