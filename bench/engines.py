"""How long TensorRT-RTX takes to build the FP16 engines of paper and compact, on a machine without a GPU.

    python bench/engines.py                              both, encoder and sentences, one face, for an RTX 4090 (sm89)
    python bench/engines.py --sizes compact --batch 8 --capability sm120

Weights are random, because the engines do not depend on training. Nothing is executed, because an engine only runs on
its GPU. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import onnx
import torch
from measuring.facts import commit

from vlfau.models.data.datasets import BP4D
from vlfau.models.errors import UserError
from vlfau.models.export.tracing import caption_graph, encoder_graph
from vlfau.models.networks import NetworkChoice, build, configure
from vlfau.models.runtimes import tensorrt_engines
from vlfau.models.runtimes.half_precision import to_half
from vlfau.models.sentences import loading

UNITS = BP4D.units
Result = TypeVar("Result")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["paper", "compact"])
    parser.add_argument("--parts", nargs="+", default=["encoder", "caption"], choices=("encoder", "caption"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--capability", default="sm89", help="compute capability of the target GPU (default: sm89)")
    options = parser.parse_args(arguments)
    try:
        flavour = tensorrt_engines.flavour("tensorrt_rtx")
        rows = [
            measure(flavour, size, part, options.batch, options.words, options.capability)
            for size in options.sizes
            for part in options.parts
        ]
    except UserError as error:
        print(f"engines: {error}", file=sys.stderr)
        return 2
    print(table(flavour, rows, options.capability))
    return 0


def measure(
    flavour: tensorrt_engines.Flavour, size: str, part: str, batch: int, words: int, capability: str
) -> dict[str, Any]:
    """Seconds from modules to ONNX, from FP32 to FP16, and from FP16 to the engine."""
    torch.manual_seed(0)
    choice = NetworkChoice(size=size, pretrained=False)
    network = build(configure(choice, UNITS, loading.load(), {"words": words})).eval()
    graph, exported = timed(lambda: (encoder_graph if part == "encoder" else caption_graph)(network))
    half, halved = timed(lambda: to_half(graph))
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in half.graph.initializer)
    body, axes = half.SerializeToString(), {"N": batch, "n": batch, "R": batch * len(UNITS)}
    plan, built = timed(lambda: tensorrt_engines.build_engine(flavour, body, axes, capability=capability))
    facts = {"size": size, "part": part, "batch": batch, "nodes": len(half.graph.node), "onnx_mb": len(body) / 1e6}
    return facts | {"engine_mb": len(plan) / 1e6, "export_s": exported, "half_s": halved, "build_s": built}


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def table(flavour: tensorrt_engines.Flavour, rows: Sequence[dict[str, Any]], capability: str) -> str:
    where = (
        f"{flavour.name} {flavour.version} for {capability}, FP16, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    lines = [f"{where}, {time.strftime('%Y-%m-%d')}, commit {commit()}", ""]
    lines += [
        "| network | part | batch | nodes | ONNX MB | engine MB | export s | FP16 s | build s |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        named = f"| {row['size']} | {row['part']} | {row['batch']} | {row['nodes']} | {row['onnx_mb']:.1f} | "
        seconds = " | ".join(f"{row[key]:.1f}" for key in ("export_s", "half_s", "build_s"))
        lines.append(f"{named}{row['engine_mb']:.1f} | {seconds} |")
    facts = {"runtime": flavour.name, "version": flavour.version, "capability": capability, "precision": "fp16"}
    return "\n".join([*lines, json.dumps(facts | {"commit": commit(), "rows": rows})])


if __name__ == "__main__":
    sys.exit(main())
