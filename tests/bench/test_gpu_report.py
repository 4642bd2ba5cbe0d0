"""The GPU report on a CPU: it runs to its JSON line, notices disagreement, and lists what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from shared_files import ROOT
from small_bundle import encoder, small_bundle

from vlfau.models.bundle import Bundle
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.base import Runtime

HIDDEN = (
    *(
        "timm",
        "safetensors",
        "cv2",
        "onnxruntime",
        "openvino",
        "onnxscript",
        "onnx_ir",
        "msgspec",
        "av",
        "zmq",
        "numba",
    ),
    *("scipy", "PIL", "torchvision", "tensorrt", "tensorrt_rtx", "rich", "prometheus_client", "matplotlib", "pyarrow"),
)
BENCH = ROOT / "bench"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))
    import gpu_report

    return gpu_report


def variants_of(bench: ModuleType, *names: str) -> list[Any]:
    def opener(name: str) -> Any:
        return lambda bundle: open_runtime(bundle, name, prove=False).executor

    return [bench.Variant(name, opener(name)) for name in names]


def test_variants_are_measured_and_failures_are_reported(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    monkeypatch.setattr(bench, "cost", lambda _: (0.001, 0.01))

    def broken(_: Bundle) -> Any:
        raise UserError("this machine has no such library")

    chosen = [*variants_of(bench, "openvino", "onnxruntime"), bench.Variant("imaginary", broken)]
    report = bench.Log(time.monotonic() + 60)
    rates = {"fp32": bench.Rates(100.0, 10.0)}
    results = bench.measure(report, bundle, chosen, [1, 2, 64], 0.01, rates)
    for name in ("openvino", "onnxruntime"):
        row = results["runtimes"][name]
        assert row["agreement"]["holds"]
        assert row["growth"]["holds"]
        assert 100 < row["growth"]["calls"] <= 1000  # fewer if time ran out
        assert [cell["batch"] for cell in row["cells"]] == [1, 2]  # 64 is more than the executor takes at once
        for cell in row["cells"]:
            p50, p95, p99 = cell["both"]
            assert 0 < p50 <= p95 <= p99
            assert cell["floor_ms"] == pytest.approx(max(cell["batch"] * 0.01, 0.004))
    assert "no such library" in results["runtimes"]["imaginary"]["failed"]
    assert "imaginary: cannot run." in capsys.readouterr().out
    json.dumps(results)
    late = bench.Log(time.monotonic() - 1)
    assert bench.measure(late, bundle, chosen, [1], 0.01, rates)["runtimes"]["openvino"] == {
        "passed_over": "no time left"
    }


def test_a_runtime_that_disagrees_does_not_hold(bench: ModuleType, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    with open_runtime(bundle, "onnxruntime") as runtime:
        assert bench.agreement(runtime)["holds"]
        whole = runtime.executor.encode

        def off(crops: np.ndarray) -> dict[str, Any]:
            memory = whole(crops)
            return {**memory, "log_odds": memory["log_odds"] + 0.5}

        runtime.executor.encode = off  # type: ignore[method-assign]
        assert not bench.agreement(runtime)["holds"]

        def blind(crops: np.ndarray) -> dict[str, Any]:
            return dict(whole(np.resize(bundle.selftest()["crops"], crops.shape)))

        runtime.executor.encode = blind  # type: ignore[method-assign]
        assert not bench.agreement(runtime)["holds"]
    assert isinstance(runtime, Runtime)


def test_growing_memory_does_not_hold(bench: ModuleType, tmp_path: Path) -> None:
    with open_runtime(small_bundle(tmp_path / "bundle"), "onnxruntime") as runtime:
        whole, leak = runtime.executor.encode, []

        def leaking(crops: np.ndarray) -> dict[str, Any]:
            leak.append(np.ones(20_000))  # 160 kB, touched
            return whole(crops)

        runtime.executor.encode = leaking  # type: ignore[method-assign]
        assert not bench.growth(runtime, calls=300)["holds"]


def test_targets_of_a_gpu_are_reached_or_not(bench: ModuleType) -> None:
    def cells(ms: float, batch_ms: float) -> dict[str, Any]:
        one = {"batch": 1, "states": (ms, ms, 1.2 * ms), "both": (2 * ms, 2 * ms, 3 * ms)}
        many = {"batch": 32, "states": (batch_ms,) * 3, "both": (batch_ms,) * 3}
        return {"runtimes": {"torch": {"cells": [one, many]}, "tensorrt": {"failed": "no such library"}}}

    lines = bench.targets(cells(1.4, 7.9))
    assert [line.rpartition(": ")[2] for line in lines] == [
        "reached", "reached", "reached", "NOT REACHED", "reached"
    ]  # fmt: skip
    assert all("NOT REACHED" in line for line in bench.targets(cells(1.6, 8.1)) if "p99" not in line)
    assert bench.targets({"runtimes": {}}) == ["no targets: nothing ran"]


def test_stand_ins_have_the_shapes_and_products_of_the_originals(bench: ModuleType) -> None:
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from measuring import stand_ins
    from torch.utils.flop_counter import FlopCounterMode

    def counted(body: Any, side: int) -> tuple[Any, ...]:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shapes = [tuple(one.shape) for one in body.eval()(torch.zeros(1, 3, side, side))]
        return (
            shapes,
            body.feature_info.channels(),
            sum(p.numel() for p in body.parameters()),
            counter.get_total_flops(),
        )

    narrow = [32, 64, 128, 256]
    for name, options, mine, side in (
        ("swin_base_patch4_window7_224", {}, stand_ins.Swin(), 224),
        ("resnet18", {"channels": narrow}, stand_ins.ResNet(narrow), 112),
    ):
        theirs = timm.create_model(name, features_only=True, pretrained=False, **options)
        assert counted(mine, side) == counted(theirs, side)
        assert getattr(mine, "output_fmt", "NCHW") == getattr(theirs, "output_fmt", "NCHW")


def test_the_report_needs_torch_numpy_and_onnx_only(tmp_path: Path) -> None:
    """In a process that can import nothing else, it uses plain stems and the older tracer."""
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import sys\n"
        f"HIDDEN = {HIDDEN!r}\n"
        "class Only:\n"
        "    def __init__(self, finders): self.finders = finders\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in HIDDEN: return None\n"
        "        found = (f.find_spec(name, path, target) for f in self.finders if hasattr(f, 'find_spec'))\n"
        "        return next((spec for spec in found if spec is not None), None)\n"
        "sys.meta_path[:] = [Only(list(sys.meta_path))]\n"
    )
    arguments = ["--sizes", "compact", "--batches", "1", "2", "--seconds", "0.01", "--words", "3"]
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_report.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "VLFAU_CACHE": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["stand_ins"] == ["timm", "safetensors", "cv2", "msgspec"]
    assert "compact: exported to ONNX" in done.stdout
    row = facts["compact"]["runtimes"]["torch eager"]
    assert row["agreement"]["holds"]
    assert [cell["batch"] for cell in row["cells"]] == [1, 2]
    assert "cannot be imported" in facts["compact"]["runtimes"]["openvino"]["failed"]


def test_wheels_are_tried_oldest_first_in_separate_processes(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.10.0", "1.4.0.76", "1.7.1"):
        with zipfile.ZipFile(wheels / f"tensorrt_rtx-{version}-py3-none-any.whl", "w") as archive:
            archive.writestr("tensorrt_rtx/__init__.py", f"raise ImportError('this is {version}')\n")
    assert [version for version, _ in bench.rtx_wheels.versions(wheels)] == ["1.4.0.76", "1.7.1", "1.10.0"]
    small_bundle(tmp_path / "compact")
    (wheels / "tensorrt_rtx-1.10.0-py3-none-any.whl").unlink()
    answers = bench.try_wheels(bench.Log(time.monotonic() + 100), wheels, tmp_path)
    assert list(answers) == ["1.4.0.76", "1.7.1"]
    for version, answer in answers.items():
        assert f"this is {version}" in answer["failed"]  # the wheel answered, not the installed library
    assert "1.4.0.76" in capsys.readouterr().out


def test_graphs_are_traced_without_onnxscript_too(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with a GPU may have only torch and onnx. The older tracer's graphs agree with the network, too."""
    from vlfau.models.export import tracing

    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    report = bench.Log(time.monotonic() + 60)
    bundle = bench.make_bundle(report, "tiny", tmp_path / "tiny", 3)
    assert {"encoder.onnx", "caption.onnx"} < set(bundle.manifest.files)
    for name in ("openvino", "onnxruntime"):
        with open_runtime(bundle, name) as runtime:
            assert bench.agreement(runtime)["holds"]
            assert bench.agreement(runtime)["words"] == 1.0
            crops = bundle.selftest()["crops"]
            assert len(runtime.predict(crops[:3])) == 3  # the batch stayed open
    engines = pytest.importorskip("vlfau.models.runtimes.tensorrt_engines")
    pytest.importorskip("tensorrt_rtx")
    for part in ("encoder", "caption"):
        graph = engines.graph_bytes(bundle, part, "fp16")
        sizes = {"N": 1, "n": 1, "R": len(bundle.manifest.units)}
        assert engines.build_engine(engines.flavour("tensorrt_rtx"), graph, sizes, capability="sm89")


def test_multiply_adds_are_counted(bench: ModuleType) -> None:
    from measuring import arithmetic

    weights = [
        onnx.numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w"),
        onnx.numpy_helper.from_array(np.zeros((8, 5), np.float32), "v"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["y"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "v"], ["z"]),
    ]
    crops = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 10, 10])
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "counted", [crops], [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert arithmetic.macs(model) == pytest.approx((8 * 100 * 27 + 8 * 5) / 1e9)
    assert arithmetic.macs(encoder()) > 0


def test_floors_are_the_slower_of_arithmetic_and_memory(bench: ModuleType) -> None:
    rates = bench.Rates(gmac_s=100.0, gbyte_s=10.0)
    assert rates.floor_ms(gmac=1.0, megabytes=1.0, batch=2) == pytest.approx(20.0)
    assert rates.floor_ms(gmac=0.001, megabytes=400.0, batch=2) == pytest.approx(40.0)
    measured = bench.cpu_rates("fp32", 1, side=256)
    assert 0.5 < measured.gmac_s < 1e5
    assert 0.1 < measured.gbyte_s < 1e4


def test_throughput_prints_ratios_and_ends_in_json(bench: ModuleType, tmp_path: Path) -> None:
    import throughput

    bundle = small_bundle(tmp_path / "bundle")
    table = throughput.measure(bundle, [("openvino", "fp32"), ("onnxruntime", "fp32")], [1, 4], 1, 0.02).splitlines()
    facts = json.loads(table[-1])
    assert [row["batch"] for row in facts["rows"]] == [1, 1, 4, 4]
    assert all(row["ms"] > 0 and row["floor_ms"] > 0 for row in facts["rows"])
    assert sum(line.endswith("| 1.00 |") for line in table) >= 2  # the first row of each batch is the unit
    table = throughput.measure(bundle, [("openvino", "int8"), ("onnxruntime", "fp32")], [1], 1, 0.02).splitlines()
    assert any(line.startswith("without openvino int8: ") for line in table), "what cannot be opened is listed"
    assert [row["runtime"] for row in json.loads(table[-1])["rows"]] == ["onnxruntime fp32"]


def test_targets_are_reached_or_not(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import throughput

    bundle = small_bundle(tmp_path / "bundle")

    def facts(**ms: float) -> dict[str, Any]:
        rows = [{"runtime": name.replace("_", " "), "batch": 1, "ms": value} for name, value in ms.items()]
        return {"load": 0.1, "rows": [*rows, {"runtime": "openvino int8", "batch": 8, "ms": 0.1}]}

    for best, held in ((30.0, True), (40.0, False)):
        lines, reached = throughput.targets(bundle, facts(torch_fp32=100.0, openvino_int8=best))
        assert reached == held
        assert f"measured {100 / best:.2f} times (openvino int8)" in lines[0]
        assert ("NOT REACHED" in lines[0]) != held
    assert "add --torch" in throughput.targets(bundle, facts(openvino_fp32=1.0))[0][0]
    compact = replace(bundle, manifest=replace(bundle.manifest, side=112))
    assert throughput.targets(compact, facts(openvino_fp32=7.0, openvino_int8=5.9))[1]
    assert not throughput.targets(compact, facts(openvino_fp32=7.0))[1]
    busy = throughput.targets(compact, facts(openvino_fp32=5.0) | {"load": 3.0})[0]
    assert "repeat on an idle machine" in busy[0]
    assert throughput.main([str(bundle.folder), "--hints", "--seconds", "0.02"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"fp32 latency 1", "fp32 throughput 1"} <= set(json.loads(lines[-1])["ms"])


def test_a_size_is_built_with_random_weights_in_two_precisions(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import throughput

    monkeypatch.setattr(
        "vlfau.models.export.tracing.find_spec", lambda _: None
    )  # the exporter that takes one second only
    bundle = throughput.random_bundle("tiny", tmp_path / "tiny")
    assert not bundle.has_captions
    for precision in ("fp32", "int8"):
        with open_runtime(bundle, "openvino", precision=precision) as runtime:
            assert runtime.executor.precision == precision


@pytest.mark.slow
def test_the_whole_report_runs_on_a_cpu_to_its_json_line(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sizes", "tiny", "--batches", "1", "2", "--seconds", "0.02", "--words", "6"]
    assert bench.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = json.loads(lines[-1])
    runtimes = facts["tiny"]["runtimes"]
    for name in ("torch eager", "openvino", "onnxruntime"):
        assert runtimes[name]["agreement"]["holds"]
        assert len(runtimes[name]["cells"]) == 2
    if facts["capability"] is None:
        assert "needs an NVIDIA GPU" in runtimes["tensorrt"]["failed"]
        assert any("how fast a GPU is" in line for line in lines)


def test_the_results_page_names_a_gpu_or_says_that_none_has_run() -> None:
    text = (BENCH / "RESULTS-gpu.md").read_text(encoding="utf-8")
    assert "has not run on a GPU yet" in text or "GPU report: NVIDIA" in text


def test_the_report_starts_in_a_bare_checkout(tmp_path: Path) -> None:
    """Without an installed package the script finds the sources through the links in the checkout."""
    if not (BENCH.parent / ".typing" / "vlfau").is_dir():
        pytest.skip("the checkout has no links for type checkers")
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
    )
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_report.py"), "--help"],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "--wheels" in done.stdout
