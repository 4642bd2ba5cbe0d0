"""A bundle made in milliseconds, without torch: stands in for an exported network in tests of runtimes and calibration.

The property it gives: its two graphs obey the contract of `models/bundle.py` and `models/runtimes/base.py` (names,
types, dynamic batch, greedy decoding inside the graph, END then PAD), its answers depend on its input, and its stored
self-test was computed by the reference evaluator of ONNX, so that no runtime is ever compared with itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vlfau.models.bundle import Bundle, Manifest, open_bundle, write_manifest

SIDE, UNITS, CHANNELS, WORDS = 32, ("AU01", "AU04", "AU06", "AU12", "AU25"), 16, 6
VOCABULARY = (
    *(
        "<pad>",
        "<start>",
        "<end>",
        "the",
        "brow",
        "is",
        "raised",
        "lowered",
        "cheek",
        "mouth",
        "corner",
        "lip",
        "parted",
    ),
    *(",", "and", "neutral"),
)
SCALE = 1.0  # spreads the log-odds over several units, so that a wrong answer cannot hide inside a tolerance


class _Graph:
    """Nodes and weights of one graph, collected in order."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, fan_in: int = 1) -> str:
        return self.constant(name, (self.random.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32))

    def constant(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def model(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "small", inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def _floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def encoder(seed: int = 0) -> onnx.ModelProto:
    """Convolutions, a layer norm, attention-like products, a softmax: all that precision matters for."""
    g, a, d = _Graph(seed), len(UNITS), CHANNELS
    g.node("Cast", ["crops"], "pixels", to=TensorProto.FLOAT)
    g.node("Sub", ["pixels", g.constant("mean", np.array([123.675, 116.28, 103.53], np.float32))], "centred")
    g.node("Div", ["centred", g.constant("std", np.array([58.395, 57.12, 57.375], np.float32))], "normal")
    g.node("Transpose", ["normal"], "planes", perm=[0, 3, 1, 2])
    g.node("Conv", ["planes", g.weight("w1", 24, 3, 8, 8, fan_in=192), g.weight("b1", 24)], "conv1", strides=[8, 8])
    g.node("Relu", ["conv1"], "relu1")
    g.node("Conv", ["relu1", g.weight("w2", d, 24, 1, 1, fan_in=12), g.weight("b2", d)], "conv2")
    g.node("Reshape", ["conv2", g.constant("flat", np.array([0, d, -1]))], "columns")
    g.node("Transpose", ["columns"], "places", perm=[0, 2, 1])  # (N, L, d)
    g.node("LayerNormalization", ["places", g.constant("one", np.ones(d, np.float32))], "normed", axis=-1)
    g.node("MatMul", ["normed", g.weight("w3", d, d, fan_in=d)], "mixed")
    g.node("Add", ["mixed", "places"], "residual")
    g.node("Transpose", ["residual"], "visual", perm=[0, 2, 1])  # (N, d, L)
    g.node("ReduceMean", ["residual", g.constant("over", np.array([1]))], "pooled", keepdims=0)
    g.node("Gemm", ["pooled", g.weight("w4", d, a * d, fan_in=d), g.weight("b4", a * d)], "gates")
    g.node("Sigmoid", ["gates"], "opened")
    g.node("Reshape", ["opened", g.constant("units", np.array([-1, a, d]))], "channel")
    g.node("MatMul", [g.weight("w5", a, d, fan_in=d), "visual"], "scores")
    g.node("Softmax", ["scores"], "spatial", axis=-1)  # (N, A, L)
    g.node("MatMul", ["spatial", "residual"], "seen")
    g.node("Mul", ["seen", "channel"], "refined")
    g.node("Mul", ["refined", g.weight("w6", a, d)], "weighted")
    g.node("ReduceSum", ["weighted", g.constant("across", np.array([2]))], "sum", keepdims=0)
    g.node("Mul", ["sum", g.constant("scale", np.array(SCALE, np.float32))], "log_odds")
    places = (SIDE // 8) ** 2
    return g.model(
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            _floats("log_odds", "N", a),
            _floats("visual", "N", d, places),
            _floats("channel", "N", a, d),
            _floats("spatial", "N", a, places),
        ],
    )


def captioner(seed: int = 1) -> onnx.ModelProto:
    """Greedy decoding in an ONNX Loop: a plain recurrent cell that starts from the features and the decided state."""
    g, a, d, v = _Graph(seed), len(UNITS), CHANNELS, len(VOCABULARY)
    places = (SIDE // 8) ** 2
    g.node("Split", ["rows"], "face_", axis=1, num_outputs=2)
    g.nodes[-1].output[:] = ["face_column", "unit_column"]
    g.node("Squeeze", ["face_column", g.constant("one", np.array([1]))], "face")
    g.node("Gather", ["visual", "face"], "visual_rows", axis=0)  # (R, d, L)
    g.node("GatherND", ["channel", "rows"], "channel_rows")  # (R, d)
    g.node("GatherND", ["spatial", "rows"], "spatial_rows")  # (R, L)
    g.node("GatherND", ["active", "rows"], "state")  # (R,)
    g.node("Unsqueeze", ["spatial_rows", g.constant("two", np.array([2]))], "spatial_column")
    g.node("MatMul", ["visual_rows", "spatial_column"], "seen_column")
    g.node("Squeeze", ["seen_column", "two"], "seen")
    g.node("Mul", ["seen", "channel_rows"], "refined")
    g.node("Unsqueeze", ["state", "one"], "state_column")
    g.node("Mul", ["state_column", g.weight("says", 1, d)], "told")
    g.node("Add", ["refined", "told"], "local_first")
    g.node("ReduceMean", ["visual", "two"], "pooled", keepdims=0)
    g.node("MatMul", ["pooled", g.weight("looks", d, d)], "look")
    g.node("MatMul", ["active", g.weight("sums", a, d)], "all_told")
    g.node("Add", ["look", "all_told"], "global_first")
    g.node("MatMul", ["pooled", g.weight("head", d, a)], "global_log_odds")
    g.weight("cell", d, d, fan_in=d)
    g.weight("embedding", v, d)
    g.weight("speak", d, v, fan_in=d)
    g.constant("often", np.where(np.arange(v) == 2, 0.7, 0).astype(np.float32))  # END comes at different words
    g.constant("words", np.array(WORDS))
    g.constant("go", np.array(True))
    for part in ("local", "global"):
        _decode(g, part, f"{part}_first")
    inputs = [
        _floats("visual", "n", d, places),
        _floats("channel", "n", a, d),
        _floats("spatial", "n", a, places),
        _floats("active", "n", a),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["R", 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("local_tokens", TensorProto.INT64, ["R", WORDS]),
        helper.make_tensor_value_info("global_tokens", TensorProto.INT64, ["n", WORDS]),
        _floats("global_log_odds", "n", a),
    ]
    return g.model(inputs, outputs)


def _decode(g: _Graph, part: str, first: str) -> None:
    """Adds the loop over words: the likeliest word, or PAD after END."""
    body = _Graph(0)
    body.node("MatMul", ["hidden_in", "speak"], "bare")
    body.node("Add", ["bare", "often"], "logits")
    body.node("ArgMax", ["logits"], "likeliest", axis=-1, keepdims=0)
    body.node("Mul", ["likeliest", "alive_in"], "token")
    body.constant("end", np.array(2))
    body.node("Equal", ["likeliest", "end"], "ended")
    body.node("Not", ["ended"], "going")
    body.node("Cast", ["going"], "going_number", to=TensorProto.INT64)
    body.node("Mul", ["alive_in", "going_number"], "alive_out")
    body.node("Gather", ["embedding", "likeliest"], "embedded", axis=0)
    body.node("MatMul", ["hidden_in", "cell"], "turned")
    body.node("Add", ["turned", "embedded"], "before")
    body.node("Tanh", ["before"], "hidden_out")
    body.node("Identity", ["go_in"], "go_out")
    graph = helper.make_graph(
        body.nodes,
        f"{part}_step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            _floats("hidden_in", "B", CHANNELS),
            helper.make_tensor_value_info("alive_in", TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            _floats("hidden_out", "B", CHANNELS),
            helper.make_tensor_value_info("alive_out", TensorProto.INT64, ["B"]),
            helper.make_tensor_value_info("token", TensorProto.INT64, ["B"]),
        ],
        body.weights,
    )
    g.node("Shape", [first], f"{part}_size", start=0, end=1)
    g.node("ConstantOfShape", [f"{part}_size"], f"{part}_alive", value=numpy_helper.from_array(np.array([1], np.int64)))
    g.nodes.append(
        helper.make_node(
            "Loop",
            ["words", "go", first, f"{part}_alive"],
            [f"{part}_last", f"{part}_ended", f"{part}_by_word"],
            name=f"{part}_loop",
            body=graph,
        )
    )
    g.node("Transpose", [f"{part}_by_word"], f"{part}_tokens", perm=[1, 0])


def crops(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random images: coarse noise, enlarged, so that neighbouring pixels are alike, as in faces."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return coarse.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)


def reference(
    encoder: onnx.ModelProto, captioner: onnx.ModelProto | None, pictures: NDArray[np.uint8]
) -> dict[str, Any]:
    """What ONNX's reference evaluator answers; `rows` are all units of all faces, in order."""
    names = [output.name for output in encoder.graph.output]
    stored: dict[str, Any] = {"crops": pictures}
    stored |= dict(zip(names, ReferenceEvaluator(encoder).run(None, {"crops": pictures})))
    if captioner is not None:
        stored["active"] = (stored["log_odds"] >= 0).astype(np.float32)
        stored["rows"] = np.argwhere(np.ones_like(stored["active"])).astype(np.int64)
        feed = {name: stored[name] for name in ("visual", "channel", "spatial", "active", "rows")}
        words = [output.name for output in captioner.graph.output]
        stored |= dict(zip(words, ReferenceEvaluator(captioner).run(None, feed)))
    return stored


def small_bundle(folder: Path, *, captions: bool = True, seed: int = 0) -> Bundle:
    """Writes the stand-in and opens it as any bundle is opened."""
    folder.mkdir(parents=True, exist_ok=True)
    first, second = encoder(seed), captioner(seed + 1) if captions else None
    onnx.save(first, folder / "encoder.onnx")
    files = {"encoder.onnx": "", "selftest.npz": ""}
    if second is not None:
        onnx.save(second, folder / "caption.onnx")
        files["caption.onnx"] = ""
    stored = reference(first, second, crops(3, seed + 2))
    kept = ("crops", "log_odds", "active", "local_tokens", "global_tokens")
    np.savez(folder / "selftest.npz", **{name: stored[name] for name in kept if name in stored})
    manifest = Manifest(
        name="small",
        units=UNITS,
        side=SIDE,
        network={"kind": "stand-in"},
        thresholds=(0.5,) * len(UNITS),
        temperatures=(1.0,) * len(UNITS),
        tiers=("unrated",) * len(UNITS),
        vocabulary=VOCABULARY if captions else (),
        words=WORDS if captions else 0,
        files=files,
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)
