"""Greedy decoding inside the graph, two ways: all steps unrolled, as bundles have it, or one step inside an ONNX Loop.

python bench/captions.py                     compact, untrained, in onnxruntime and OpenVINO
python bench/captions.py --size paper --rows 1 13

The Loop stops when every sentence has ended, the unrolled graph never does; both say the same words, which is checked.
An untrained network ends no sentence, so the Loop's early end is timed by making sentences end after --words words.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from measuring.arithmetic import fastest
from measuring.facts import about, heading, table
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from vlfau.models.errors import UserError
from vlfau.models.export.graphs import caption_graph, trace
from vlfau.models.export.selftest import structured_crops
from vlfau.models.networks import NetworkChoice, build, configure
from vlfau.models.networks.captioner import Decoder
from vlfau.models.networks.dair import unit_maps
from vlfau.models.networks.vlfau import VLFAU
from vlfau.models.sentences import loading
from vlfau.models.sentences.vocabulary import END, START

UNITS = tuple(f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43))
MEMORY = ("visual", "channel", "spatial")
Feed = dict[str, NDArray[Any]]


class Before(nn.Module):
    """Memory and states -> places, keys, hidden and cell of the units' decoder and of the face's."""

    def __init__(self, network: VLFAU) -> None:
        super().__init__()
        self.network = network

    def forward(self, visual: Tensor, channel: Tensor, spatial: Tensor, active: Tensor, rows: Tensor) -> Any:
        network = self.network
        assert network.describe_unit is not None
        assert network.describe_face is not None
        places = unit_maps(visual, channel, spatial, rows)
        hidden, cell, keys = network.describe_unit.start(places, network._told(active, rows))
        whole = visual.transpose(1, 2)
        told = network.face_state(active) if network.face_state is not None else None
        face_hidden, face_cell, face_keys = network.describe_face.start(whole, told)
        return places, keys, hidden, cell, whole, face_keys, face_hidden, face_cell


class OneWord(nn.Module):
    """What the Loop repeats: `Decoder.speak`'s loop body."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, token: Tensor, alive: Tensor, hidden: Tensor, cell: Tensor, keys: Tensor, places: Tensor
    ) -> tuple[Tensor, ...]:
        decoder = self.decoder
        word = decoder.word_gates(decoder.embedding(token))
        hidden, cell, context = decoder.step(word, hidden, cell, keys, places)
        token = decoder.output(hidden)[:, END:].argmax(1) + END
        said = token * alive
        alive = alive * (token != END).to(torch.int64)
        return token, alive, hidden, cell, said, context


def looped(network: VLFAU) -> onnx.ModelProto:
    """The caption graph with two Loops in it. The global AU head is left out: it costs nothing worth measuring."""
    inputs = _inputs(network, 2)
    before_names = [f"{who}_{what}" for who in ("unit", "face") for what in ("places", "keys", "hidden", "cell")]
    axes = {name: {0: "n"} for name in (*MEMORY, "active")} | {"rows": {0: "R"}}
    model = trace(Before(network), inputs, before_names, axes)
    graph = model.graph
    del graph.output[:]
    assert network.describe_unit is not None
    assert network.describe_face is not None
    for who, decoder, name in (
        ("unit", network.describe_unit, "local_tokens"),
        ("face", network.describe_face, "global_tokens"),
    ):
        _add_loop(graph, decoder, who, name, network.words)
    for opset in model.opset_import:
        assert opset.version >= 17
    onnx.checker.check_model(model)
    return model


def _add_loop(graph: onnx.GraphProto, decoder: Decoder, who: str, output: str, words: int) -> None:
    width, hidden = decoder.key.in_features, decoder.hidden_gates.in_features
    one = torch.ones(2, dtype=torch.int64)
    example = {
        "token": START * one,
        "alive": one.clone(),
        "hidden": torch.zeros(2, hidden),
        "cell": torch.zeros(2, hidden),
        "keys": torch.zeros(2, 9, decoder.key.out_features),
        "places": torch.zeros(2, 9, width),
    }
    axes = {name: {0: "R", **({1: "L"} if name in ("keys", "places") else {})} for name in example}
    step = trace(OneWord(decoder), example, ["token_", "alive_", "hidden_", "cell_", "said", "context"], axes).graph
    prefix = f"{who}_"

    def named(name: str) -> str:
        return prefix + name if name else name

    for weight in step.initializer:  # weights live outside, so that each is stored once
        weight.name = named(weight.name)
        graph.initializer.append(weight)
    nodes = []
    for node in step.node:
        for i, name in enumerate(node.input):
            node.input[i] = named(name)
        for i, name in enumerate(node.output):
            node.output[i] = named(name)
        node.name = named(node.name)
        nodes.append(node)
    nodes += [
        helper.make_node("ReduceMax", [named("alive_")], [named("any")], keepdims=0),
        helper.make_node("Cast", [named("any")], [named("more")], to=TensorProto.BOOL),
    ]
    state = [("token", TensorProto.INT64, 1), ("alive", TensorProto.INT64, 1)]
    state += [("hidden", TensorProto.FLOAT, 2), ("cell", TensorProto.FLOAT, 2)]

    def value(name: str, kind: int, rank: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(named(name), kind, [None] * rank)

    body = helper.make_graph(
        nodes,
        named("word"),
        [value("step", TensorProto.INT64, 0), value("going", TensorProto.BOOL, 0), *(value(*one) for one in state)],
        [
            value("more", TensorProto.BOOL, 0),
            *(value(f"{name}_", kind, rank) for name, kind, rank in state),
            value("said", TensorProto.INT64, 1),
        ],
    )
    constants = {
        "most": np.array(words, np.int64),
        "yes": np.array(True),
        "start": np.array([START], np.int64),
        "one": np.array([1], np.int64),
    }
    for name, constant in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(constant, named(name)))
    graph.node.extend(
        [
            helper.make_node("Shape", [named("hidden")], [named("rows")], start=0, end=1),
            helper.make_node("Expand", [named("start"), named("rows")], [named("token0")]),
            helper.make_node("Expand", [named("one"), named("rows")], [named("alive0")]),
            helper.make_node(
                "Loop",
                [
                    *(named(name) for name in ("most", "yes", "token0", "alive0")),
                    *(f"{prefix}{name}" for name in ("hidden", "cell")),
                ],
                [*(named(f"last_{name}") for name, _, _ in state), named("spoken")],
                body=body,
            ),
            helper.make_node("Transpose", [named("spoken")], [output], perm=[1, 0]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.INT64, [None, None]))


def _inputs(network: VLFAU, faces: int, units: Sequence[int] | None = None) -> dict[str, Tensor]:
    with torch.inference_mode():
        encoded = network.encode(torch.from_numpy(structured_crops(faces, network.side)))
    chosen = list(range(len(network.units))) if units is None else list(units)
    rows = torch.tensor([[face, unit] for face in range(faces) for unit in chosen])
    made = {name: tensor.clone() for name, tensor in zip(MEMORY, encoded.memory)}
    return made | {"active": (encoded.log_odds >= 0).float().clone(), "rows": rows}


def untrained(size: str) -> VLFAU:
    corpus = loading.load().only(UNITS)
    torch.manual_seed(3)
    network = build(configure(NetworkChoice(size=size), UNITS, corpus, {}))
    if not isinstance(network, VLFAU) or network.describe_unit is None or network.describe_face is None:
        raise UserError(f"Size '{size}' has no two decoders. Choose compact, paper or tiny.")
    return network.eval()


def end_after(network: VLFAU, words: int) -> None:
    """Makes END the likeliest word once the hidden state has moved for so many steps: a clock in one hidden unit.

    Unit 0 of each decoder counts: its gates let through a fixed amount per word, and END's weight on it grows with it.
    """
    for decoder in (network.describe_unit, network.describe_face):
        assert decoder is not None
        hidden = decoder.hidden_gates.in_features
        with torch.no_grad():
            for layer in (decoder.word_gates, decoder.place_gates, decoder.hidden_gates):
                layer.weight[[0, hidden, 2 * hidden, 3 * hidden]] = 0.0
            # cell grows by tanh(atanh(1 / words)) each word: enter and forget gates open, the step is the `new` gate's.
            decoder.word_gates.bias[0], decoder.word_gates.bias[hidden] = 20.0, 20.0
            decoder.word_gates.bias[2 * hidden] = float(np.arctanh(1.0 / words))
            decoder.word_gates.bias[3 * hidden] = 20.0
            for first in (decoder.first_cell, decoder.first_hidden):
                first.weight[0], first.bias[0] = 0.0, 0.0
            decoder.output.weight[END, 0] = 1000.0
            decoder.output.bias[END] = -1000.0 * float(np.tanh(1.0 - 0.5 / words))


def onnxruntime_runner(model: onnx.ModelProto, threads: int) -> Callable[[Feed], Feed]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    wanted = {one.name for one in session.get_inputs()}
    return lambda feed: dict(zip(names, session.run(None, {key: feed[key] for key in feed if key in wanted})))


def openvino_runner(model: onnx.ModelProto, threads: int) -> Callable[[Feed], Feed]:
    from vlfau.models.openvino_core import openvino_core

    core = openvino_core()
    read = core.read_model(model.SerializeToString())
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(read, "CPU", hints)
    wanted = {one.any_name for one in compiled.inputs}
    request = compiled.create_infer_request()

    def run(feed: Feed) -> Feed:
        found = request.infer({key: feed[key] for key in feed if key in wanted})
        return {port.any_name: np.array(value) for port, value in found.items()}

    return run


RUNNERS = {"onnxruntime": onnxruntime_runner, "openvino": openvino_runner}


def padded(tokens: NDArray[Any], words: int) -> NDArray[Any]:
    return np.pad(tokens, ((0, 0), (0, words - tokens.shape[1])))


def compare(network: VLFAU, rows: Sequence[int], threads: int, seconds: float, ended: str) -> list[dict[str, Any]]:
    """Milliseconds of both graphs in every runtime; raises where they do not say the same."""
    graphs = {"unrolled": caption_graph(network), "loop": looped(network)}
    found = []
    for runtime, opened in RUNNERS.items():
        runs, build_s, failed = {}, {}, {}
        for name, model in graphs.items():
            began = time.perf_counter()
            try:
                runs[name] = opened(model, threads)
            except Exception as error:  # a runtime's own words for what it cannot read
                failed[name] = str(error).splitlines()[0]
            build_s[name] = time.perf_counter() - began
        for count in rows:
            tensors = _inputs(network, 1, [unit % len(network.units) for unit in range(count)])
            feed = {name: tensor.numpy() for name, tensor in tensors.items()}
            said = {name: run(feed) for name, run in runs.items()}
            for tokens in ("local_tokens", "global_tokens"):
                both = [padded(one[tokens], network.words) for one in said.values()]
                if len(both) == 2 and (both[0] != both[1]).any():
                    raise UserError(f"{runtime}: the Loop says other words than the unrolled graph. Do not use it.")
            # one after the other in turns, so that a busy moment strikes both
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(3):
                for name, run in runs.items():
                    times[name].append(fastest(functools.partial(run, feed), least=3, seconds=seconds / 3))
            found.append(
                {
                    "runtime": runtime,
                    "rows": count,
                    "sentences": ended,
                    "steps": int((said["unrolled"]["local_tokens"] != 0).any(0).sum()) if "unrolled" in said else None,
                    **{f"{name}_ms": round(1e3 * min(took), 3) for name, took in times.items()},
                    **{f"{name}_build_s": round(took, 2) for name, took in build_s.items()},
                    **{f"{name}_failed": sentence for name, sentence in failed.items()},
                }
            )
    sizes = {f"{name}_nodes": len(model.graph.node) for name, model in graphs.items()}
    sizes |= {f"{name}_mb": round(model.ByteSize() / 1e6, 2) for name, model in graphs.items()}
    return [one | sizes for one in found]


def main(arguments: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", default="compact")
    made.add_argument("--rows", type=int, nargs="+", default=[1, 3, 17], help="units described at once")
    made.add_argument("--words", type=int, default=12, help="length of the sentences that end early (default: 12)")
    made.add_argument("--seconds", type=float, default=1.0, help="per cell")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = made.parse_args(arguments)
    facts = about()
    print(heading(facts), flush=True)
    try:
        found = compare(untrained(options.size), options.rows, options.threads, options.seconds, "full length")
        short = untrained(options.size)
        end_after(short, options.words)
        found += compare(short, options.rows, options.threads, options.seconds, f"end after {options.words}")
    except UserError as error:
        print(f"captions: {error}", file=sys.stderr)
        return 2
    rows = [["runtime", "sentences", "rows", "steps", "unrolled ms", "loop ms", "loop / unrolled", "build s, both"]]
    for one in found:
        unrolled, loop = one.get("unrolled_ms"), one.get("loop_ms")
        ratio = f"{loop / unrolled:.2f}" if unrolled is not None and loop is not None else "-"
        cells = [f"{value:.2f}" if value is not None else "failed" for value in (unrolled, loop)]
        builds = f"{one['unrolled_build_s']:.1f}, {one['loop_build_s']:.1f}"
        rows.append([one["runtime"], one["sentences"], str(one["rows"]), str(one["steps"]), *cells, ratio, builds])
    print(table(rows), "\n")
    for failed in sorted({one["loop_failed"] for one in found if "loop_failed" in one}):
        print(f"The Loop could not be run: {failed}")
    print(json.dumps({"bench": "captions", "size": options.size, **facts, "found": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
