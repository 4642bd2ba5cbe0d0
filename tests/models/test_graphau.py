"""GraphAU: its head against the definition, and the commands on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import synthetic_layouts as synthetic
import torch
import torch.nn.functional as F

from vlfau.models.bundle import open_bundle
from vlfau.models.evaluation import command as evaluate_command
from vlfau.models.export import command as export_command
from vlfau.models.export.selftest import structured_crops
from vlfau.models.networks import NetworkChoice, configure, corpus_of
from vlfau.models.networks.graphau import GraphHead, NearestUnits, UnitBlocks, asymmetric_loss
from vlfau.models.training import command as train_command
from vlfau.models.training.run_folder import load_run


def test_blocks_are_one_linear_layer_per_unit() -> None:
    torch.manual_seed(0)
    blocks = UnitBlocks(3, 8).eval()
    x = torch.randn(2, 5, 8)
    found = blocks(x)
    scale = (1 + blocks.norm.eps) ** -0.5  # the norm at rest
    for unit in range(3):
        assert torch.allclose(found[:, unit], F.relu(x @ blocks.weight[unit].T * scale).mean(1), atol=1e-5)


def test_each_unit_depends_on_its_k_nearest() -> None:
    torch.manual_seed(0)
    layer = NearestUnits(5, 8, 2).eval()
    x = torch.randn(1, 5, 8)
    nearest = {unit: set((x[0] @ x[0].T)[unit].topk(2).indices.tolist()) for unit in range(5)}
    before = layer(x)
    for moved in range(5):
        other = x.clone()
        other[0, moved] += 1e-3  # too little to change which are nearest
        changed = ((layer(other) - before)[0].abs().amax(1) > 1e-7).tolist()
        for unit in range(5):
            if unit != moved and moved not in nearest[unit]:
                assert not changed[unit]
    assert any(moved != unit for unit, near in nearest.items() for moved in near)


def test_scores_are_cosines_between_zero_and_one() -> None:
    torch.manual_seed(0)
    head = GraphHead(4, 12, 16, 3).eval()
    probabilities, vectors = head(torch.randn(6, 9, 12))
    expected = F.cosine_similarity(vectors, F.relu(head.centres).expand_as(vectors), dim=2)
    assert torch.allclose(probabilities, expected, atol=1e-5)
    assert ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()


def test_the_loss_discounts_easy_negatives_and_ignores_unknown_labels() -> None:
    weights = torch.tensor([0.5, 0.5])

    def loss(p: float, label: int) -> float:
        return float(asymmetric_loss(torch.tensor([[p, 0.5]]), torch.tensor([[label, -1]]), weights))

    assert loss(0.1, 0) == pytest.approx(-0.1 * np.log(0.9), rel=1e-4)
    assert loss(0.1, 1) == pytest.approx(-np.log(0.1), rel=1e-4)
    p = torch.tensor([[0.3, 0.5]], requires_grad=True)
    asymmetric_loss(p, torch.tensor([[1, -1]]), weights).backward()  # type: ignore[no-untyped-call]
    assert p.grad is not None
    assert p.grad[0, 1] == 0
    assert p.grad[0, 0] != 0


def test_k_is_the_papers_unless_it_is_set() -> None:
    choice, units = NetworkChoice(network="graphau", size="tiny"), ("AU01", "AU02")
    assert configure(choice, units, None, {}, "DISFA")["neighbours"] == 3
    assert configure(choice, units, None, {}, "BP4D")["neighbours"] == 4
    assert configure(choice, units, None, {"neighbours": 2}, "DISFA")["neighbours"] == 2
    assert configure(choice, units, None, {}).get("neighbours") is None
    assert corpus_of(choice, units) is None


def test_the_same_commands_train_evaluate_and_export_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.make_csv(tmp_path / "data")
    run, bundle_folder = tmp_path / "run", tmp_path / "bundle"
    config = tmp_path / "run.toml"
    config.write_text('[network]\nnetwork = "graphau"\nsize = "tiny"\nneighbours = 3\npretrained = false\n')
    common = [
        "--config",
        str(config),
        "--data",
        str(tmp_path / "data"),
        "--output",
        str(run),
        "--no-align",
        "--workers",
        "0",
    ]
    assert train_command.main([*common, "--steps", "3", "--batch", "8", "--device", "cpu"]) == 0
    assert evaluate_command.main([str(run)]) == 0
    part = json.loads((run / "evaluation" / "scores.json").read_text(encoding="utf-8"))["parts"][0]
    assert part["captions"] is None
    assert part["f1"] is not None
    assert export_command.main([str(run), "--output", str(bundle_folder)]) == 0
    bundle = open_bundle(bundle_folder)
    assert not bundle.has_captions
    assert bundle.manifest.network["kind"] == "graphau"
    network, _ = load_run(run)
    crops = structured_crops(5, network.side)
    session = onnxruntime.InferenceSession(bundle.path("encoder.onnx"))
    assert [out.name for out in session.get_outputs()] == ["log_odds"]
    with torch.inference_mode():
        expected = network.encode(torch.from_numpy(crops)).log_odds.numpy()
        other = network.encode(torch.from_numpy(255 - crops)).log_odds.numpy()
    found = session.run(None, {"crops": crops})[0]
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(found - other).max() > 0.01
    capsys.readouterr()
