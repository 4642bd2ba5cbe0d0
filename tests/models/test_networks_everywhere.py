"""The five rows of the ablation and both networks, trained, evaluated and exported; and every layout trained from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import synthetic_layouts as synthetic
import torch

from vlfau.models import networks
from vlfau.models.bundle import open_bundle
from vlfau.models.data import DataChoice
from vlfau.models.evaluation import command as evaluate_command
from vlfau.models.export import command as export_command
from vlfau.models.networks.base import AUNetwork, Batch, Encoded
from vlfau.models.networks.losses import multi_label
from vlfau.models.networks.pixels import Normalise
from vlfau.models.runtimes import open_runtime
from vlfau.models.training import command as train_command
from vlfau.models.training.recipe import Recipe
from vlfau.models.training.run import train as train_run
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


class Brightness(AUNetwork):
    """Nothing but the interface: no stem, no sentences, one setting."""

    SETTINGS: ClassVar[frozenset[str]] = frozenset(("side",))

    def __init__(self, units: tuple[str, ...], side: int) -> None:
        super().__init__()
        self.units, self.side = units, side
        self.normalise, self.classify = Normalise(), torch.nn.Linear(3, 2 * len(units))

    @classmethod
    def from_config(cls, config: Any) -> Brightness:
        return cls(tuple(config["units"]), config["side"])

    def encode(self, crops: torch.Tensor) -> Encoded:
        means = self.normalise(crops).mean((2, 3)).to(self.classify.weight.dtype)
        logits = torch.unflatten(self.classify(means), 1, (-1, 2))
        return Encoded(logits[..., 1] - logits[..., 0], logits)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"au": multi_label(self.encode(batch["crops"]).logits, batch["labels"], batch["unit_weights"])}

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        return "none needed"


def test_a_network_is_added_by_one_file_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vlfau.models.networks.brightness")
    module.Brightness = Brightness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(networks.KINDS, "brightness", networks.Kind("brightness", "Brightness", "a test"))
    synthetic.make_csv(tmp_path / "data")
    choice = networks.NetworkChoice(network="brightness", size="tiny")
    recipe = Recipe(steps=2, batch=8, workers=0, device="cpu", checkpoint_every=1e9)
    train_run(tmp_path / "run", choice, DataChoice(data=tmp_path / "data", align=False), recipe, quiet=True)
    assert evaluate_command.main([str(tmp_path / "run"), "--no-plots", "--images", "8"]) == 0
    assert export_command.main([str(tmp_path / "run"), "--output", str(tmp_path / "bundle")]) == 0
    bundle = open_bundle(tmp_path / "bundle")
    answers = {}
    for name in ("torch", "onnxruntime"):
        with open_runtime(bundle, name, device="cpu") as opened:
            answers[name] = opened.predict(bundle.selftest()["crops"]).log_odds
    assert np.allclose(answers["torch"], answers["onnxruntime"], atol=1e-4)


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
