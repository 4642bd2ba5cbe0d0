"""The point classifier depends on how points lie to each other, learns from that, and changes no point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic_layouts as synthetic
import torch
from safetensors.torch import load_file
from tiny_network import batch, tiny
from torch import Tensor

from vlfau.models.errors import UserError
from vlfau.models.faces.align import POINTS
from vlfau.models.networks.losses import multi_label
from vlfau.models.networks.point_classifier import PointClassifier, upright
from vlfau.models.networks.vlfau import VLFAU
from vlfau.models.training import command as train_command


def faces(count: int, seed: int = 0) -> Tensor:
    """(count, 68, 2) points scattered about one face, eyes 0.3 apart."""
    rng = np.random.default_rng(seed)
    mean = np.random.default_rng(7).uniform(0.2, 0.8, (POINTS, 2))
    mean[[36, 39, 42, 45]] = [[0.3, 0.4], [0.4, 0.4], [0.6, 0.4], [0.7, 0.4]]
    return torch.from_numpy((mean + rng.normal(0, 0.01, (count, POINTS, 2))).astype(np.float32))


def test_points_are_relative_to_the_midpoint_of_the_eyes() -> None:
    points = torch.zeros(1, POINTS, 2)
    points[0, [36, 39, 42, 45]] = torch.tensor([[0.3, 0.3], [0.4, 0.3], [0.6, 0.3], [0.7, 0.3]])
    points[0, 8] = torch.tensor([0.5, 0.9])  # the chin, 0.6 below the eyes, which are 0.3 apart
    seen = upright(points)[0]
    torch.testing.assert_close(seen[8], torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(seen[[36, 45]], torch.tensor([[-2 / 3, 0.0], [2 / 3, 0.0]]))


def test_turn_scale_and_place_of_the_crop_do_not_matter() -> None:
    points, angle = faces(5), np.deg2rad(17)
    turn = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], dtype=torch.float32)
    moved = 0.8 * points @ turn + torch.tensor([0.05, -0.1])
    torch.testing.assert_close(upright(moved), upright(points), rtol=1e-4, atol=1e-4)
    squeezed = points * torch.tensor([1.0, 0.9])
    assert (upright(squeezed) - upright(points)).abs().max() > 0.05


def test_eyes_at_one_point_give_finite_numbers() -> None:
    assert torch.isfinite(upright(torch.full((2, POINTS, 2), 0.5))).all()


def test_it_learns_a_raised_point_and_adds_noise_only_in_training() -> None:
    torch.manual_seed(0)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (256, 2)))
    points = faces(256)
    points[:, 21, 1] -= 0.06 * labels[:, 0]  # unit 0 raises the brows; nothing shows unit 1
    points[:, 22, 1] -= 0.06 * labels[:, 0]
    classifier = PointClassifier(2, 16)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        multi_label(classifier(points), labels, torch.tensor([0.5, 0.5])).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert not torch.equal(classifier(points), classifier(points)), "training adds noise to its input"
    classifier.eval()
    assert torch.equal(classifier(points), classifier(points))
    unseen, raised = faces(200, seed=5), torch.arange(200) % 2
    unseen[:, 21:23, 1] -= 0.06 * raised[:, None]
    states = classifier(unseen).argmax(2)
    assert (states[:, 0] == raised).float().mean() > 0.9
    assert 0.3 < (states[:, 1] == raised).float().mean() < 0.7


def test_both_classifiers_have_equal_weight_and_neither_changes_the_points() -> None:
    network, config = tiny(landmarks=2.0, judge_points=8)
    assert isinstance(network, VLFAU)
    made = batch(config, network)
    terms = network.losses(made)
    terms["points"].backward(retain_graph=True)  # type: ignore[no-untyped-call]
    reached = {name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert reached == {"judge_points"}
    network.eval()
    with torch.no_grad():
        encoded = network.encode(made["crops"])
        assert network.locate is not None
        assert network.judge_points is not None
        judged = network.judge_points(network.locate(encoded.memory[0]))
    alone = encoded.logits[..., 1] - encoded.logits[..., 0]
    torch.testing.assert_close(encoded.log_odds, (alone + judged[..., 1] - judged[..., 0]) / 2)
    assert not torch.allclose(encoded.log_odds, alone)


def test_a_run_on_labels_alone_has_no_points_and_no_classifier_of_them(tmp_path: Path) -> None:
    def parts(run: Path) -> set[str]:
        return {name.split(".")[0] for name in load_file(run / "last.safetensors")}

    synthetic.make_csv(tmp_path / "labelled")
    synthetic.make_shards(tmp_path / "renders")
    common = ["--size", "compact", "--steps", "1", *synthetic.MOMENT]
    labelled = [*common, "--data", str(tmp_path / "labelled"), "--no-align", "--cache", str(tmp_path / "cache")]
    rendered = [*common, "--data", str(tmp_path / "renders"), "--hold-out", "0.3"]
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert train_command.main([*labelled, "--output", str(first)]) == 0
    assert not parts(first) & {"locate", "judge_points"}
    assert train_command.main([*rendered, "--output", str(second)]) == 0
    assert train_command.main([*labelled, "--start-from", str(second), "--output", str(third)]) == 0
    assert parts(second) == parts(third) >= {"locate", "judge_points"}


def test_a_point_classifier_needs_points() -> None:
    with pytest.raises(UserError, match="Give landmarks a weight"):
        tiny(judge_points=8)
