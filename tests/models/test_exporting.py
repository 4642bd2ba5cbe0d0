"""Exported graphs compute what was trained: ONNX against PyTorch, on noise and on structured images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import small_bundle
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.export.run import export
from vlfau.models.export.selftest import structured_crops
from vlfau.models.networks import NetworkChoice, build, configure
from vlfau.models.networks.base import AUNetwork
from vlfau.models.runtimes.half_precision import to_half
from vlfau.models.sentences import loading

UNITS = ("AU01", "AU04", "AU12")
WORDS = 4  # steps of the unrolled decoders; real ones have 24
# Largest difference in log-odds (which spread over several units here), and least share of equal tokens.
TOLERANCE = {"fp32": (1e-4, 1.0), "fp16": (0.05, 0.9)}


def sharp_network(kind: str = "vlfau", **changes: Any) -> tuple[AUNetwork, dict[str, Any]]:
    """Untrained, but with weights so large that another image gives other states and other words."""
    corpus = loading.load().only(UNITS) if kind == "vlfau" else None
    if kind == "vlfau":
        changes = {"words": WORDS, "state_conditioned": True, "landmarks": 1.0, "judge_points": 16} | changes
    config = configure(NetworkChoice(network=kind, size="tiny"), UNITS, corpus, changes)
    torch.manual_seed(4)
    network = build(config)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network.encode(torch.from_numpy(structured_crops(16, network.side)))  # batch statistics
        for name, parameter in network.named_parameters():
            if (
                name.startswith(("combine", "classify", "locate", "judge_points"))
                or "first_hidden" in name
                or "place_gates" in name
                or "_state" in name
            ):
                parameter.mul_(3)
    return network.eval(), config


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[AUNetwork, Bundle, Bundle]:
    network, config = sharp_network()
    folder = tmp_path_factory.mktemp("bundles")
    bundle = export(network, config, folder / "plain", name="test")
    return network, bundle, export(network, config, folder / "half", precision="fp16", name="test")


def pictures(kind: str, count: int) -> NDArray[np.uint8]:
    if kind == "structured":
        return structured_crops(count, 64)
    return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)


def run_onnx(bundle: Bundle, crops: NDArray[np.uint8]) -> dict[str, Any]:
    encoder = onnxruntime.InferenceSession(bundle.path("encoder.onnx"))
    found = dict(zip([out.name for out in encoder.get_outputs()], encoder.run(None, {"crops": crops})))
    if bundle.has_captions:
        captioner = onnxruntime.InferenceSession(bundle.path("caption.onnx"))
        found["active"] = (found["log_odds"] >= 0).astype(np.float32)
        found["rows"] = np.argwhere(np.ones_like(found["active"])).astype(np.int64)
        feed = {value.name: found[value.name] for value in captioner.get_inputs()}
        found |= dict(zip([out.name for out in captioner.get_outputs()], captioner.run(None, feed)))
    return found


@torch.inference_mode()
def run_torch(network: AUNetwork, crops: NDArray[np.uint8], active: NDArray[np.float32]) -> dict[str, Any]:
    encoded = network.encode(torch.from_numpy(crops))
    rows = torch.ones_like(encoded.log_odds).nonzero()
    local, whole, judged = network.caption(encoded.memory, torch.from_numpy(active), rows)
    tensors = {"log_odds": encoded.log_odds, "local_tokens": local, "global_tokens": whole, "global_log_odds": judged}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", ["random", "structured"])
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_gives_the_answers_of_torch(
    exported: tuple[AUNetwork, Bundle, Bundle], precision: str, count: int, kind: str
) -> None:
    network, plain, half = exported
    bundle = plain if precision == "fp32" else half
    allowed, least = TOLERANCE[precision]
    crops = pictures(kind, count)
    found = run_onnx(bundle, crops)
    expected = run_torch(network, crops, found["active"])
    assert np.abs(found["log_odds"] - expected["log_odds"]).max() <= allowed
    for tokens in ("local_tokens", "global_tokens"):
        assert found[tokens].dtype == np.int64
        assert (found[tokens] == expected[tokens]).mean() >= least
    other = run_torch(network, 255 - crops, found["active"])  # the negative control
    assert np.abs(found["log_odds"] - other["log_odds"]).max() > 2 * allowed
    assert (found["local_tokens"] != other["local_tokens"]).any()


def test_the_decided_state_reaches_the_words(exported: tuple[AUNetwork, Bundle, Bundle]) -> None:
    found = run_onnx(exported[1], pictures("structured", 3))
    captioner = onnxruntime.InferenceSession(exported[1].path("caption.onnx"))
    feed = {value.name: found[value.name] for value in captioner.get_inputs()}
    feed["active"] = 1 - feed["active"]
    local, whole = captioner.run(["local_tokens", "global_tokens"], feed)
    assert (local != found["local_tokens"]).any()
    assert (whole != found["global_tokens"]).any()


def test_the_bundle_verifies_and_lists_its_files(exported: tuple[AUNetwork, Bundle, Bundle]) -> None:
    manifest = exported[1].manifest
    assert manifest.units == UNITS
    assert set(manifest.files) == {"encoder.onnx", "caption.onnx", "weights.safetensors", "selftest.npz"}
    assert (manifest.words, manifest.side, manifest.precision) == (WORDS, 64, "fp32")
    assert exported[2].manifest.precision == "fp16"
    stored = exported[1].selftest()
    found = run_onnx(exported[1], stored["crops"])
    assert np.abs(found["log_odds"] - stored["log_odds"]).max() <= TOLERANCE["fp32"][0]
    assert np.array_equal(found["local_tokens"], stored["local_tokens"])
    assert stored["local_tokens"].shape == (8 * len(UNITS), WORDS)


def test_every_runtime_can_read_the_graphs(exported: tuple[AUNetwork, Bundle, Bundle]) -> None:
    for bundle in exported[1:]:
        for name in ("encoder.onnx", "caption.onnx"):
            model = onnx.load(bundle.path(name))
            assert next(entry.version for entry in model.opset_import if entry.domain == "") >= 17
            assert not {node.domain for node in model.graph.node} - {"", "ai.onnx"}
            assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
        model = onnx.load(bundle.path("encoder.onnx"))
        crops = model.graph.input[0]
        assert (crops.name, crops.type.tensor_type.elem_type) == ("crops", TensorProto.UINT8)
        assert crops.type.tensor_type.shape.dim[0].dim_param == "N"
        assert {node.op_type for node in model.graph.node} & {"LayerNormalization"}  # one node, not its parts
        assert {out.type.tensor_type.elem_type for out in model.graph.output} == {TensorProto.FLOAT}
    sizes = [bundle.path("encoder.onnx").stat().st_size for bundle in exported[1:]]
    assert sizes[1] < 0.8 * sizes[0]


def test_a_damaged_bundle_is_refused_by_name(tmp_path: Path) -> None:
    network, config = sharp_network("graphau")
    bundle = export(network, config, tmp_path / "bundle")
    path = bundle.folder / "encoder.onnx"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    with pytest.raises(UserError, match=r"encoder\.onnx has sha256 .* copy it again or export again"):
        open_bundle(bundle.folder)


def test_a_folder_of_other_files_is_not_overwritten(tmp_path: Path) -> None:
    network, config = sharp_network("graphau")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are not a bundle"):
        export(network, config, tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_half_precision_keeps_layer_norms_wide_and_refuses_what_does_not_fit() -> None:
    plain = small_bundle.encoder()
    half = to_half(plain)
    typed = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    norms = [node for node in half.graph.node if node.op_type == "LayerNormalization"]
    assert norms
    assert all(typed[name] == TensorProto.FLOAT for node in norms for name in node.input if name in typed)
    assert any(kind == TensorProto.FLOAT16 for kind in typed.values())
    crops = small_bundle.crops(3)
    a, b = (onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"crops": crops})[0] for m in (plain, half))
    assert 0 < np.abs(a - b).max() < 0.05
    huge = onnx.ModelProto()
    huge.CopyFrom(plain)
    weight = next(tensor for tensor in huge.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    weight.CopyFrom(helper.make_tensor(weight.name, TensorProto.FLOAT, [1], [1e6]))
    with pytest.raises(UserError, match="exceeds FP16's largest number"):
        to_half(huge)
