"""The five rows of the ablation and both networks, trained, evaluated and exported; and every layout trained from."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import synthetic_layouts as synthetic

from vlfau.models.bundle import open_bundle
from vlfau.models.evaluation import command as evaluate_command
from vlfau.models.export import command as export_command
from vlfau.models.training import command as train_command
from vlfau.models.training.run_folder import RunFolder

NETWORKS = ["tiny-stem", "tiny-refined", "tiny-local", "tiny-global", "tiny", "graphau"]


def listed(make: Callable[[Path, str], object], of: str, root: Path) -> object:
    return make(root, of)


SPEAKING = ("tiny-local", "tiny-global", "tiny")
LAYOUTS: dict[str, Callable[[Path], object]] = {
    **{style: partial(listed, make, "DISFA") for style, make in synthetic.LISTS.items()},
    **{f"{style}-bp4d": partial(listed, make, "BP4D") for style, make in synthetic.LISTS.items()},
    "bp4d": synthetic.make_raw_bp4d,
    "bp4d-videos": lambda root: synthetic.make_raw_bp4d(root, video=synthetic.BP4D_VIDEOS[0]),
    "disfa": lambda root: synthetic.make_raw_disfa(root, videos=False),
    "disfa-videos": synthetic.make_raw_disfa,
    "csv": synthetic.make_csv,
    "shards": synthetic.make_shards,
}


def train(data: Path, run: Path, name: str, *more: str) -> int:
    network = ["--network", "graphau", "--size", "tiny"] if name == "graphau" else ["--size", name]
    common = ["--no-align", "--steps", "1", *synthetic.MOMENT]
    return train_command.main(["--data", str(data), "--output", str(run), *network, *common, *more])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_goes_all_the_way(tmp_path: Path, name: str) -> None:
    synthetic.make_csv(tmp_path / "data")
    assert train(tmp_path / "data", tmp_path / "run", name) == 0
    assert evaluate_command.main([str(tmp_path / "run"), "--no-plots", "--images", "16", "--caption-images", "2"]) == 0
    scores = json.loads((tmp_path / "run" / "evaluation" / "scores.json").read_text(encoding="utf-8"))
    assert (scores["parts"][0]["captions"] is not None) == (name in SPEAKING)
    assert export_command.main([str(tmp_path / "run"), "--output", str(tmp_path / "bundle")]) == 0
    assert open_bundle(tmp_path / "bundle").has_captions == (scores["parts"][0]["captions"] is not None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_trained_from_and_evaluated_on_by_each_network(tmp_path: Path, layout: str) -> None:
    """`pytest -s -m slow tests/models/test_networks_everywhere.py` prints a line for each of them."""
    LAYOUTS[layout](tmp_path / "data")
    more = ["--hold-out", "0.3"] if layout == "shards" else ["--cache", str(tmp_path / "cache")]
    for name in NETWORKS:
        run = tmp_path / name
        assert train(tmp_path / "data", run, name, *more) == 0
        (row,) = RunFolder(run).rows("epoch")
        assert row["step"] == 1
        assert 0 <= row["test_f1"] <= 1
        options = ["--no-plots", "--images", "8", "--caption-images", "1"]
        assert evaluate_command.main([str(run), *options]) == 0
        (part,) = json.loads((run / "evaluation" / "scores.json").read_text(encoding="utf-8"))["parts"]
        assert (part["captions"] is not None) == (name in SPEAKING)
        wanted = {"graphau", "mdhr", "jaanet", "aunet", "fgnet", "bp4d", "disfa"}
        assert bool(part["paper"]) == (layout.split("-")[0] in wanted)
        print(f"{layout:16} {name:13} loss {row['loss']:.3f}, evaluated on {part['pictures']} pictures")
