"""The network against the equations written out plainly, and what its switches and masks must and must not do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_network import UNITS, batch, tiny

from vlfau.models.errors import UserError
from vlfau.models.networks import NetworkChoice, configure, losses
from vlfau.models.networks.base import cost
from vlfau.models.networks.captioner import SentenceDecoder
from vlfau.models.networks.dair import Refinement, UnitClassifiers, unit_maps, unit_vectors
from vlfau.models.networks.sizes import SIZES
from vlfau.models.networks.vlfau import VLFAU

ROWS = ("tiny", "tiny-stem", "tiny-refined", "tiny-local", "tiny-global")


@pytest.mark.parametrize("size", ROWS)
def test_each_row_of_the_ablation_trains_its_own_terms(size: str) -> None:
    network, config = tiny(size)
    terms = network.losses(batch(config, network))
    expected = {"tiny-stem": 1, "tiny-refined": 1, "tiny-local": 2, "tiny-global": 3, "tiny": 4}
    assert len(terms) == expected[size]
    total = torch.stack(list(terms.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(total)
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without  # a switched-off part leaves no weight behind, which would also stop training on several GPUs


def test_refinement_is_what_the_equations_say_unit_by_unit() -> None:
    torch.manual_seed(0)
    units, width, grid = 3, 8, 4
    refine, classify = Refinement(units, width, 2), UnitClassifiers(units, width)
    visual = torch.randn(2, width, grid * grid)
    channel, spatial = refine(visual)
    logits = classify(unit_vectors(visual, channel, spatial))
    inner = refine.down.out_features // units
    for i in range(units):
        down, bias = refine.down.weight[i * inner : (i + 1) * inner], refine.down.bias[i * inner : (i + 1) * inner]

        def mlp(vector: torch.Tensor, i: int = i, down: torch.Tensor = down, bias: torch.Tensor = bias) -> torch.Tensor:
            return F.relu(vector @ down.T + bias) @ refine.up[i] + refine.up_bias[i]

        attended = visual * torch.sigmoid(mlp(visual.mean(2)) + mlp(visual.amax(2))).unsqueeze(2)  # eq. 2
        pair = torch.stack([attended.mean(1), attended.amax(1)], 1).view(2, 2, grid, grid)
        weight = refine.spatial.weight[i : i + 1]
        assert refine.spatial.bias is not None
        where = F.conv2d(pair, weight, refine.spatial.bias[i : i + 1], padding=1).flatten(1)
        refined = attended * where.unsqueeze(1)  # eq. 3
        rows = torch.tensor([[0, i], [1, i]])
        assert torch.allclose(unit_maps(visual, channel, spatial, rows).transpose(1, 2), refined, atol=1e-6)
        plain = refined.mean(2) @ classify.weight[i] + classify.bias[i]
        assert torch.allclose(logits[:, i], plain, atol=1e-5)
        assert not torch.allclose(logits[:, (i + 1) % units], plain, atol=1e-3)


def test_unknown_labels_and_padding_reach_no_loss() -> None:
    logits = torch.randn(5, 3, 2, requires_grad=True)
    labels = torch.tensor([[1, -1, 0]] * 5)
    losses.multi_label(logits, labels, torch.full((3,), 1 / 3)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    assert logits.grad[:, 0].any()
    words = torch.randn(2, 4, 9, requires_grad=True)
    losses.per_word(words, torch.tensor([[5, 2, 0, 0], [4, 6, 7, 2]])).backward()  # type: ignore[no-untyped-call]
    assert words.grad is not None
    assert not words.grad[0, 2:].any()
    assert words.grad[1].any()
    grades = torch.randn(2, 2, requires_grad=True)
    losses.strength(grades, torch.tensor([[0.5, float("nan")], [1.0, 0.0]])).backward()  # type: ignore[no-untyped-call]
    assert grades.grad is not None
    assert torch.isfinite(grades.grad).all()
    assert grades.grad[0, 1] == 0
    found = torch.zeros(1, 2, 2, requires_grad=True)
    off = losses.distance(found, torch.tensor([[[0.3, float("nan")], [0.0, 0.3]]]))
    off.backward()  # type: ignore[no-untyped-call]
    assert off.item() == pytest.approx(2 / 3)  # eyes are 0.3 apart: one of them off twice in three known figures
    assert found.grad is not None
    assert found.grad[0, 0, 1] == 0


def test_points_are_learned_with_the_units_and_their_loss_does_not_train_the_classifiers() -> None:
    network, config = tiny(landmarks=2.0)
    assert isinstance(network, VLFAU)
    made = batch(config, network)
    terms = network.losses(made)
    assert set(terms) >= {"au", "landmarks"}
    terms["landmarks"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in network.stem.parameters() if p.requires_grad)
    assert all(p.grad is None for p in network.classify.parameters())
    assert network.locate is not None
    points = network.locate(network.encode(made["crops"]).memory[0])
    assert points.shape == made["points"].shape
    assert 0 < points.min() < points.max() < 1


def test_a_batch_without_any_label_has_a_finite_loss() -> None:
    network, config = tiny(state_conditioned=True, intensity=1.0, landmarks=1.0)
    made = batch(config, network)
    made["labels"] = torch.full_like(made["labels"], -1)
    made["intensity"] = torch.full_like(made["intensity"], float("nan"))
    made["points"] = torch.full_like(made["points"], float("nan"))
    made |= {name: torch.zeros_like(made[name]) for name in ("local_tokens", "global_tokens")}
    total = torch.stack(list(network.losses(made).values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


def _decoder(words: int = 7) -> tuple[SentenceDecoder, torch.Tensor]:
    torch.manual_seed(1)
    decoder = SentenceDecoder(12, 8, hidden=16, attention=8, embedding=8, words=words, dropout=0.0)
    with torch.no_grad():
        decoder.output.weight.mul_(8)  # spread, so that different places give different words
    return decoder.eval(), 4 * torch.randn(6, 9, 8)


@torch.inference_mode()
def test_greedy_words_are_the_argmax_under_teacher_forcing() -> None:
    """With its own sentence as input, the decoder predicts that sentence."""
    decoder, places = _decoder()
    spoken, attended = decoder.speak(places, None)
    logits, taught = decoder.teach(places, None, spoken)
    said = spoken != 0
    assert torch.equal(logits[..., 2:].argmax(2)[said] + 2, spoken[said])
    assert torch.allclose(attended, taught, atol=1e-5)
    assert len({tuple(row) for row in spoken.tolist()}) > 1


@torch.inference_mode()
def test_nothing_follows_the_end() -> None:
    decoder, places = _decoder(12)
    decoder.output.bias[2] += 3.0
    spoken, _ = decoder.speak(places, None)
    ended = (spoken == 2).cumsum(1) - (spoken == 2).long()  # 1 after the END
    assert ended.any()
    assert not spoken[ended > 0].any()


@torch.inference_mode()
def test_a_beam_of_one_is_greedy_and_a_wider_one_is_likelier() -> None:
    decoder, places = _decoder()
    greedy, _ = decoder.speak(places, None)
    assert torch.equal(decoder.beam(places, None, 1)[0], greedy)

    def likelihood(tokens: torch.Tensor) -> torch.Tensor:
        chances = decoder.teach(places, None, tokens)[0].log_softmax(2)
        return (chances.gather(2, tokens.unsqueeze(2)).squeeze(2) * (tokens != 0)).sum(1)

    wide, attended = decoder.beam(places, None, 8)
    assert torch.allclose(attended, decoder.teach(places, None, wide)[1])
    assert likelihood(wide).sum() > likelihood(greedy).sum() + 0.1


@torch.inference_mode()
def test_states_change_the_sentence_only_of_a_network_that_is_conditioned_on_them() -> None:
    for conditioned in (True, False):
        network, _ = tiny(state_conditioned=conditioned)
        network.eval()
        crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8))
        memory = network.encode(crops).memory
        rows = torch.tensor([[0, 2]])
        answers = [network.caption(memory, torch.full((1, 4), value), rows)[2] for value in (0.0, 1.0)]
        assert torch.equal(*answers) is not conditioned


@torch.inference_mode()
def test_faces_in_a_batch_do_not_affect_each_other() -> None:
    network, config = tiny()
    network.eval()
    crops = batch(config, network)["crops"]
    together = network.encode(crops).log_odds
    alone = torch.cat([network.encode(crop.unsqueeze(0)).log_odds for crop in crops])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_held_encoder_is_unchanged_while_sentences_are_trained() -> None:
    network, config = tiny(stem="resnet18", stem_options={"channels": [8, 8, 16, 16]})  # with running statistics
    network.hold_encoder()
    before = {name: value.clone() for name, value in network.train().state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    torch.stack(list(network.losses(batch(config, network)).values())).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    changed = {
        name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"describe_unit", "describe_face", "judge_face"}


def test_a_held_encoder_without_sentences_trains_the_point_classifier_or_is_refused() -> None:
    network, _ = tiny("tiny-refined", landmarks=2.0, judge_points=8)
    network.hold_encoder()
    learns = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learns == {"judge_points"}
    with pytest.raises(UserError, match="this network has nothing there"):
        tiny("tiny-refined", landmarks=2.0)[0].hold_encoder()


def test_compact_keeps_its_budget() -> None:
    network, _ = tiny("compact")
    found = cost(network)
    assert found["parameters"] <= 12e6
    assert found["gmac"] <= 1.6


@pytest.mark.parametrize(
    "stem", [("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}), ("mobilenetv4_conv_small", None)]
)
def test_other_stems_fit(stem: tuple[str, Any]) -> None:
    network, config = tiny(stem=stem[0], stem_options=stem[1])
    assert network.encode(batch(config, network)["crops"]).log_odds.shape == (4, 4)


def test_imagenet_weights_come_from_a_file_or_there_are_none_and_the_source_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    torch.manual_seed(5)
    whole = timm.create_model("convnext_atto", num_classes=10, **options)
    save_file(whole.state_dict(), tmp_path / "stem.safetensors")
    torch.manual_seed(6)
    network, _ = tiny(stem="convnext_atto", stem_options=options)
    assert isinstance(network, VLFAU)
    before = {name: value.clone() for name, value in network.stem.body.state_dict().items()}
    said = network.load_imagenet(tmp_path / "stem.safetensors", True)
    after = network.stem.body.state_dict()
    assert re.fullmatch(rf"{len(after)} of {len(after)} tensors from .*stem\.safetensors", said)
    theirs = {name.replace(".", "_"): value for name, value in whole.state_dict().items()}
    changed = 0
    for name, value in after.items():
        assert torch.equal(value, theirs[name.replace(".", "_")])
        changed += not torch.equal(value, before[name])
    assert changed > 10  # all convolutions; norms and biases begin alike
    other, _ = tiny(stem="resnet10t", stem_options=None)
    with pytest.raises(UserError, match=r"stem\.safetensors fits only \d+ of \d+ tensors of the stem 'resnet10t'"):
        other.load_imagenet(tmp_path / "stem.safetensors", True)
    with pytest.raises(UserError, match=r"absent\.safetensors is missing"):
        network.load_imagenet(tmp_path / "absent.safetensors", True)
    assert network.load_imagenet(None, False) == "random initialisation, as requested"

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    assert "random initialisation: no ImageNet weights available" in network.load_imagenet(None, True)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match="Did you mean 'hidden'"):
        tiny(hiden=3)
    with pytest.raises(UserError, match="cannot build the stem 'resnet999'"):
        tiny(stem="resnet999")
    with pytest.raises(UserError, match=r"Unknown size 'paperr'\. Did you mean 'paper'"):
        configure(NetworkChoice(size="paperr"), UNITS, None, {})
    assert {"paper", "compact", "tiny"} <= set(SIZES)
