"""Q/DQ graphs: what is quantised and what is not, how much predictions move, and that three runtimes read one file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from small_bundle import crops, encoder, small_bundle

from vlfau.calibration.command import add_encoder, main
from vlfau.calibration.observers import OBSERVERS, observer
from vlfau.calibration.quantise import layers, log_odds, observe, quantise
from vlfau.calibration.search import probability_loss, search
from vlfau.models.bundle import open_bundle, write_manifest
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.half_precision import to_half, to_single

PRODUCTS = {"Conv", "MatMul", "Gemm"}


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return encoder()


@pytest.fixture(scope="module")
def limits(model: onnx.ModelProto) -> dict[str, float]:
    return observe(model, crops(48), "minmax")


def test_products_with_constant_weights_are_quantised_and_nothing_else(
    model: onnx.ModelProto, limits: dict[str, float]
) -> None:
    quantised = quantise(model, limits)
    from_int8 = {node.output[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    for node in quantised.graph.node:
        reads_int8 = any(name in from_int8 for name in node.input)
        assert reads_int8 == (node.op_type in PRODUCTS and node.name not in ("scores", "seen"))
    before, after = (Counter(node.op_type for node in one.graph.node) for one in (model, quantised))
    assert all(after[kind] == count for kind, count in before.items())  # no node was lost
    assert [value.name for value in quantised.graph.output] == [value.name for value in model.graph.output]


def test_weights_are_symmetric_int8_with_a_scale_per_output_channel(
    model: onnx.ModelProto, limits: dict[str, float]
) -> None:
    quantised = quantise(model, limits)
    stored = {tensor.name: tensor for tensor in quantised.graph.initializer}
    plain = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    checked = 0
    for layer in layers(model):
        (node,) = [one for one in quantised.graph.node if one.output[:1] == [f"{layer.weight}_back_{layer.axis}"]]
        numbers, scale, zero = (stored[name] for name in node.input)
        assert numbers.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
        values = numpy_helper.to_array(numbers).astype(float)
        assert np.abs(values).max() == 127
        shape = [1] * values.ndim
        shape[layer.axis] = -1
        scales = numpy_helper.to_array(scale)
        assert len(scales) == plain[layer.weight].shape[layer.axis]
        wrong = np.abs(values * scales.reshape(shape) - plain[layer.weight])
        assert (wrong <= 0.5001 * scales.reshape(shape)).all()
        assert layer.weight not in stored  # the FP32 weights are gone
        checked += 1
    assert checked == 4


@pytest.mark.parametrize("method", OBSERVERS)
def test_predictions_move_a_little_and_less_than_with_a_wrong_range(model: onnx.ModelProto, method: str) -> None:
    fresh = crops(32, seed=7)
    exact = log_odds(model, fresh)
    ranges = observe(model, crops(48), method)
    near = np.abs(log_odds(quantise(model, ranges), fresh) - exact).mean()
    far = np.abs(log_odds(quantise(model, {name: 0.2 * limit for name, limit in ranges.items()}), fresh) - exact).mean()
    assert 0 < near < 0.08 * exact.std()
    assert far > 3 * near


def test_the_graph_means_the_same_to_the_reference_evaluator(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    quantised, pictures = quantise(model, limits), crops(4, seed=3)
    newer = onnx.ModelProto()
    newer.CopyFrom(quantised)
    newer.opset_import[0].version = 19  # the first that the evaluator supports; these two nodes mean the same in it
    (expected, *_) = ReferenceEvaluator(newer).run(None, {"crops": pictures})
    assert (
        np.abs(log_odds(quantised, pictures) - expected).max() < 0.15
    )  # a value on the edge of two steps may fall either way
    assert np.abs(log_odds(quantised, pictures) - expected).mean() < 0.01


def test_openvino_onnxruntime_and_tensorrt_rtx_read_one_file(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    model = onnx.load(str(bundle.path("encoder.onnx")))
    extended = add_encoder(bundle, "int8", quantise(model, observe(model, crops(48), "minmax")), {"observer": "minmax"})
    assert extended.manifest.provenance["int8"]["observer"] == "minmax"
    answers = []
    for name in ("openvino", "onnxruntime"):
        with open_runtime(extended, name, precision="int8") as runtime:
            answers.append(runtime.predict(crops(16, seed=5)).log_odds)
    exact = log_odds(model, crops(16, seed=5))
    # OpenVINO fuses scales into its kernels, so a value may be rounded to the other side; both stay near FP32.
    assert np.abs(answers[0] - answers[1]).mean() < 0.1 * exact.std()
    for answer in answers:
        assert np.abs(answer - exact).mean() < 0.1 * exact.std()
    engines = pytest.importorskip("vlfau.models.runtimes.tensorrt_engines")
    pytest.importorskip("tensorrt_rtx")
    used = engines.flavour("tensorrt_rtx")
    graph = engines.graph_bytes(extended, "encoder", "int8")
    assert len(engines.build_engine(used, graph, {"N": 2}, capability="sm89")) > 10_000


def test_a_graph_that_fails_its_selftest_is_removed_again(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    model = onnx.load(str(bundle.path("encoder.onnx")))
    # Ranges so small that every value is clipped: all crops look the same.
    ruined = quantise(model, {name: 1e-6 * limit for name, limit in observe(model, crops(16), "minmax").items()})
    with pytest.raises(UserError, match="Self-test"):
        add_encoder(bundle, "int8", ruined, {})
    assert not (bundle.folder / "encoder.int8.onnx").exists()
    assert open_bundle(bundle.folder).checksum == bundle.checksum


def test_fp8_is_written_with_its_own_range(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    pytest.importorskip("ml_dtypes")
    quantised = quantise(model, limits, kind="fp8")
    types = {tensor.name: tensor.data_type for tensor in quantised.graph.initializer}
    assert types["w1_back_0_fp8"] == TensorProto.FLOAT8E4M3FN
    engines = pytest.importorskip("vlfau.models.runtimes.tensorrt_engines")
    pytest.importorskip("tensorrt_rtx")
    used = engines.flavour("tensorrt_rtx")
    assert engines.build_engine(used, quantised.SerializeToString(), {"N": 1}, capability="sm89")


def test_a_graph_in_half_precision_is_widened_and_then_calibrated_like_any_other(tmp_path: Path) -> None:
    plain, pictures = encoder(), crops(16, seed=4)
    half = to_half(plain)
    single = to_single(half)
    kinds = [Counter(node.op_type for node in one.graph.node) for one in (plain, half, single)]
    assert kinds[2] == kinds[0] != kinds[1]  # every cast for FP16 is gone again
    assert not any(tensor.data_type == TensorProto.FLOAT16 for tensor in single.graph.initializer)
    assert [value.name for value in single.graph.output] == [value.name for value in plain.graph.output]
    assert np.abs(log_odds(single, pictures) - log_odds(plain, pictures)).max() < 0.01  # the weights were rounded
    assert np.array_equal(log_odds(to_half(single), pictures), log_odds(half, pictures))  # and nothing else
    assert {layer.name for layer in layers(single)} == {layer.name for layer in layers(plain)}

    bundle = small_bundle(tmp_path / "bundle")
    onnx.save(half, bundle.folder / "encoder.onnx")
    write_manifest(bundle.folder, replace(bundle.manifest, precision="fp16"))
    (tmp_path / "crops").mkdir()
    for i, picture in enumerate(crops(24)):
        cv2.imwrite(str(tmp_path / "crops" / f"{i}.png"), picture[..., ::-1])
    assert main(["int8", str(bundle.folder), "--pictures", str(tmp_path / "crops"), "--allow", "0.05"]) == 0
    extended = open_bundle(bundle.folder)
    with open_runtime(extended, "openvino", precision="int8") as runtime, open_runtime(extended, "openvino") as default:
        assert default.executor.precision == "int8"
        assert np.abs(runtime.predict(pictures).log_odds - log_odds(plain, pictures)).mean() < 0.2


# ---- observers


def test_minmax_covers_everything_and_percentile_ignores_outliers() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200_000)
    limits = {}
    for name in OBSERVERS:
        one = observer(name)
        for part in np.split(values, 10):
            one.see(part)
        one.see(np.array([300.0]))
        limits[name] = one.limit()
    assert limits["minmax"] == 300.0
    assert 3.5 < limits["percentile"] < 6.0
    assert limits["entropy"] < 100.0


def test_histograms_do_not_depend_on_the_order_of_values() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.normal(scale=scale, size=5000) for scale in (0.1, 1.0, 30.0, 3.0)]
    for name in ("percentile", "entropy"):
        first, second = observer(name), observer(name)
        for part in parts:
            first.see(part)
        for part in parts[::-1]:
            second.see(part)
        assert first.limit() == pytest.approx(second.limit(), rel=0.15)


def test_without_values_there_is_no_range() -> None:
    for name in OBSERVERS:
        one = observer(name)
        one.see(np.zeros(10))
        assert one.limit() == 0.0
    with pytest.raises(UserError, match="Did you mean 'entropy'"):
        observer("entopy")


# ---- the search


def test_the_search_leaves_only_the_worst_layer_in_float(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    pictures = crops(24, seed=11)
    exact = log_odds(model, pictures)
    spoiled = dict(limits)
    first = layers(model)[0]
    spoiled[first.activation] *= 0.1  # one layer whose range is far too small
    loss = probability_loss(exact, pictures)
    sound = float(loss(quantise(model, limits)).max())
    result = search(model, spoiled, loss, allowed=2 * sound)
    assert result.left == (first.name,)
    assert max(result.loss) <= 2 * sound
    assert max(result.harm, key=lambda name: result.harm[name]) == first.name
    nothing = search(model, limits, loss, allowed=2 * sound)
    assert nothing.left == ()


def test_a_limit_that_cannot_be_met_is_an_error(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    with pytest.raises(UserError, match="not come from quantisation"):
        search(model, limits, lambda _: np.full(5, 0.5), allowed=0.1)


def test_unknown_layers_and_types_are_refused(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    with pytest.raises(UserError, match="Unknown layer 'conv9'"):
        quantise(model, limits, leave=["conv9"])
    with pytest.raises(UserError, match="Unknown quantised type"):
        quantise(model, limits, kind="int4")
    with pytest.raises(UserError, match="needs images"):
        observe(model, crops(0))


def test_layers_can_be_left_in_float(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    every = [layer.name for layer in layers(model)]
    pictures = crops(8, seed=2)
    none = quantise(model, limits, leave=every)
    assert np.allclose(log_odds(none, pictures), log_odds(model, pictures), atol=1e-5)
    assert not any(node.op_type == "QuantizeLinear" for node in none.graph.node)
