"""One GPU in one command and under ten minutes: which runtimes run, whether they agree, and how fast they are.

    python bench/gpu_report.py                        paper and compact, batches 1 to 32
    python bench/gpu_report.py --wheels DIR           also tries every TensorRT-RTX version with wheels in DIR
    python bench/gpu_report.py --sizes tiny --batches 1 2 --seconds 0.05      a short run on a CPU

Needs torch, numpy and onnx; everything else is optional, and what is missing is listed. Runs from a checkout that is
not installed. Weights are random, because speed and agreement do not depend on training. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]
try:
    import vlfau.models  # noqa: F401
except ImportError:
    sys.path[:0] = [str(HERE.parent / ".typing")]  # links for type checkers, which also serve a bare checkout

from measuring import facts, stand_ins  # noqa: E402
from measuring.arithmetic import Rates, cpu_rates, gpu_rates  # noqa: E402

STANDING_IN = stand_ins.install()  # before anything imports the modules that they replace

from measuring import rtx_wheels  # noqa: E402
from measuring.conformance import agreement, growth, times  # noqa: E402

from vlfau.models.bundle import Bundle, Manifest, open_bundle, write_manifest  # noqa: E402
from vlfau.models.errors import UserError  # noqa: E402
from vlfau.models.runtimes.base import Executor, Runtime  # noqa: E402

# BP4D's, written out because `models/data/datasets.py` lies in a package that needs more than torch, numpy and onnx
UNITS = ("AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24")
WORDS = 32  # 12 units and the face: 13 sentences of 32 words, as in the target
BUDGET_S = 540.0


@dataclass
class Log:
    """Prints lines, and collects facts for the last one."""

    until: float
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, line: str = "") -> None:
        print(line, flush=True)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


@dataclass(frozen=True)
class Variant:
    name: str
    open: Callable[[Bundle], Executor]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["paper", "compact"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=0.8, help="per table cell")
    parser.add_argument("--words", type=int, default=WORDS)
    parser.add_argument("--wheels", type=Path, help="folder with wheels of TensorRT-RTX, of any versions")
    parser.add_argument(
        "--budget", type=float, default=BUDGET_S, help="seconds; what does not fit is skipped and listed"
    )
    parser.add_argument(rtx_wheels.TRIAL, type=Path, help=argparse.SUPPRESS)  # the child process of --wheels
    options = parser.parse_args(arguments)
    if options.rtx_trial:
        print(json.dumps(rtx_wheels.trial(options.rtx_trial)))
        return 0
    report = Log(time.monotonic() + options.budget)
    _machine(report)
    with tempfile.TemporaryDirectory(prefix="vlfau-gpu-") as folder:
        rates = _rates(report)
        for size in options.sizes:
            bundle = make_bundle(report, size, Path(folder) / size, options.words)
            report.facts[size] = measure(report, bundle, variants(), options.batches, options.seconds, rates)
        if report.facts["capability"] and "paper" in options.sizes:
            report.facts["targets"] = targets(report.facts["paper"])
            report.say("\n".join(["## Targets for Swin-Base on an H100", "", *report.facts["targets"]]))
        if options.wheels is not None:
            report.facts["rtx"] = try_wheels(report, options.wheels, Path(folder))
    print(json.dumps(report.facts))
    return 0


def _machine(report: Log) -> None:
    import torch

    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if on_gpu else f"CPU ({platform.processor() or platform.machine()})"
    report.facts |= {
        "device": name,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if on_gpu else None,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": facts.commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    report.say(f"# GPU report: {name}\n")
    report.say(", ".join(f"{key} {value}" for key, value in report.facts.items() if key != "device") + "\n")
    if STANDING_IN:
        report.facts["stand_ins"] = STANDING_IN
        report.say(f"Not installed, replaced by plain modules of the same shapes: {', '.join(STANDING_IN)}.\n")
    if not on_gpu:
        report.say("There is no GPU: this run shows that the script works, not how fast a GPU is.\n")


def _rates(report: Log) -> dict[str, Rates]:
    import torch

    if torch.cuda.is_available():
        device = torch.device("cuda:0")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # FP32 is to mean FP32
        rates = {"fp16": gpu_rates(torch, device, torch.float16), "fp32": gpu_rates(torch, device, torch.float32)}
    else:
        try:
            rates = {"fp32": cpu_rates("fp32", 1, side=512)}
        except (ImportError, UserError):
            rates = {}
    for kind, rate in rates.items():
        report.say(
            f"measured {kind}: {rate.gmac_s / 1e3:.2f} TMAC/s in a matrix product, {rate.gbyte_s:.0f} GB/s of memory"
        )
    report.facts["rates"] = {kind: [rate.gmac_s, rate.gbyte_s] for kind, rate in rates.items()}
    report.say()
    return rates


def make_bundle(report: Log, size: str, folder: Path, words: int = WORDS) -> Bundle:
    """A bundle with random weights; with ONNX graphs if the exporter's packages are installed."""
    import torch

    from vlfau.models.export.selftest import selftest
    from vlfau.models.export.tracing import caption_graph, encoder_graph
    from vlfau.models.networks import NetworkChoice, build, configure
    from vlfau.models.sentences import loading
    from vlfau.models.tensors import save_tensors

    torch.manual_seed(0)
    config = configure(NetworkChoice(size=size, pretrained=False), UNITS, loading.load(), {"words": words})
    network = build(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("classify"):
                parameter.mul_(30.0)  # untrained log-odds depend too little on the image
    folder.mkdir(parents=True)
    save_tensors(folder / "weights.safetensors", network.state_dict())
    answers: dict[str, Any] = selftest(network)
    np.savez(folder / "selftest.npz", **answers)
    files = ["weights.safetensors", "selftest.npz"]
    try:
        import onnx

        start = time.monotonic()
        for name, graph in (("encoder.onnx", encoder_graph), ("caption.onnx", caption_graph)):
            onnx.save(graph(network), folder / name)
            files.append(name)
        report.say(f"{size}: exported to ONNX in {time.monotonic() - start:.0f} s")
    except ImportError as error:
        report.say(f"{size}: no ONNX graphs, so no TensorRT: {error}")
    count = len(UNITS)
    manifest = Manifest(
        name=size,
        units=UNITS,
        side=network.side,
        network=config,
        thresholds=(0.5,) * count,
        temperatures=(1.0,) * count,
        tiers=("unrated",) * count,
        vocabulary=tuple(config["vocabulary"]),
        words=network.words,
        files=dict.fromkeys(files, ""),
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)


def variants() -> list[Variant]:
    """Every runtime that this machine might have; each may still fail when it is opened."""
    import torch

    def eager(**how: Any) -> Callable[[Bundle], Executor]:
        def opened(bundle: Bundle) -> Executor:
            from vlfau.models.runtimes.torch_eager import Torch

            return Torch(bundle, **how)

        return opened

    def tensorrt(flavour: str, **how: Any) -> Callable[[Bundle], Executor]:
        def opened(bundle: Bundle) -> Executor:
            from vlfau.models.runtimes.tensorrt import TensorRT

            return TensorRT(bundle, flavour_name=flavour, sizes=(1, 2, 4, 8, 16, 32), **how)

        return opened

    def torch_tensorrt(bundle: Bundle) -> Executor:
        from vlfau.models.runtimes.torch_tensorrt import TorchTensorRT

        return TorchTensorRT(bundle)

    def on_cpu(name: str) -> Callable[[Bundle], Executor]:
        def opened(bundle: Bundle) -> Executor:
            from vlfau.models.runtimes import open_executor

            return open_executor(bundle, name, precision="fp32")

        return opened

    if not torch.cuda.is_available():
        return [
            Variant("torch eager", eager(device="cpu")),
            Variant("openvino", on_cpu("openvino")),
            Variant("onnxruntime", on_cpu("onnxruntime")),
            Variant("tensorrt", tensorrt("tensorrt")),
            Variant("torch-tensorrt", torch_tensorrt),
        ]
    return [
        Variant("torch eager fp32", eager(precision="fp32", graphs=False)),
        Variant("torch eager fp16", eager(precision="fp16", graphs=False)),
        Variant("torch graphs fp16", eager(precision="fp16")),
        Variant("torch graphs bf16", eager(precision="bf16")),
        Variant("torch.compile graphs fp16", eager(precision="fp16", compiled=True)),
        Variant("tensorrt fp16", tensorrt("tensorrt")),
        Variant(
            "tensorrt fp16, one profile, torch's sentences", tensorrt("tensorrt", shapes="profile", speaker="torch")
        ),
        Variant("tensorrt_rtx fp16", tensorrt("tensorrt_rtx")),
        Variant(
            "tensorrt_rtx fp16, one profile, torch's sentences",
            tensorrt("tensorrt_rtx", shapes="profile", speaker="torch"),
        ),
        Variant("torch-tensorrt fp16", torch_tensorrt),
    ]


def measure(
    report: Log,
    bundle: Bundle,
    chosen: Sequence[Variant],
    batches: Sequence[int],
    seconds: float,
    rates: dict[str, Rates],
) -> dict[str, Any]:
    """Agreement and times of every variant that opens, and the reasons of those that do not."""
    report.say(f"\n## {bundle.manifest.name}\n")
    costs = cost(bundle)
    results: dict[str, Any] = {"gmac": costs[0], "parameters_m": costs[1], "runtimes": {}}
    report.say(f"encoder: {costs[0]:.2f} GMAC per face, {costs[1]:.1f} M parameters\n")
    for variant in chosen:
        row: dict[str, Any] = {}
        results["runtimes"][variant.name] = row
        if report.left < 10:
            row["passed_over"] = "no time left"
            report.say(f"{variant.name}: no time left")
            continue
        start = time.monotonic()
        try:
            with Runtime(bundle, variant.open(bundle)) as runtime:
                row["agreement"] = agreement(runtime)
                row["opened_s"] = round(time.monotonic() - start, 1)
                report.say(
                    f"{runtime.description} ({variant.name}), ready in {row['opened_s']} s: "
                    f"{row['agreement']['said']}\n"
                )
                row["cells"] = _cells(report, runtime, batches, seconds, rates, costs)
                row["growth"] = growth(runtime)
                report.say(f"{row['growth']['said']}\n")
        except Exception as error:  # the report lists what failed and continues
            row["failed"] = (
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            )
            report.say(f"{variant.name}: cannot run. {row['failed']}")
    return results


def targets(paper: dict[str, Any]) -> list[str]:
    """The targets for Swin-Base in FP16 on an H100, with the best measured values."""
    cells = [(name, cell) for name, row in paper["runtimes"].items() for cell in row.get("cells", ())]
    alone = [(name, cell) for name, cell in cells if cell["batch"] == 1]
    if not alone:
        return ["no targets: nothing ran"]
    lines = []
    for what, key, target in (("states of one face", "states", 1.5), ("with all sentences", "both", 3.0)):
        name, cell = min(alone, key=lambda one: float(one[1][key][0]))
        p50, _, p99 = cell[key]
        for label, value, most in ((f"{what}, ms", p50, target), (f"{what}, p99 / p50", p99 / p50, 1.3)):
            held = "reached" if value <= most else "NOT REACHED"
            lines.append(f"{label}: target at most {most:g}, measured {value:.2f} ({name}): {held}")
    name, cell = max(cells, key=lambda one: one[1]["batch"] / one[1]["states"][0])
    speed = 1e3 * cell["batch"] / cell["states"][0]
    held = "reached" if speed >= 4000 else "NOT REACHED"
    return [*lines, f"faces/s: target at least 4000, measured {speed:.0f} (batch {cell['batch']}, {name}): {held}"]


def _cells(
    report: Log,
    runtime: Runtime,
    batches: Sequence[int],
    seconds: float,
    rates: dict[str, Rates],
    costs: tuple[float, float],
) -> list[dict[str, Any]]:
    rate = rates.get(runtime.executor.precision) or rates.get("fp16") or rates.get("fp32")
    width = 4 if runtime.executor.precision == "fp32" else 2
    report.say("| batch | states p50/p95/p99 ms | captions | both | faces/s | floor ms | p50 / floor |")
    report.say("|---|---|---|---|---|---|---|")
    cells = []
    for batch in [batch for batch in batches if batch <= runtime.max_batch]:
        if report.left < 5:
            report.say(f"| {batch} | no time left | | | | | |")
            break
        cell = times(runtime, batch, seconds)
        floor = rate.floor_ms(costs[0], costs[1] * width, batch) if rate else None
        shown = " | ".join("/".join(f"{value:.2f}" for value in cell[name]) for name in ("states", "captions", "both"))
        ratio = f"{floor:.3f} | {cell['states'][0] / floor:.1f}" if floor else "| "
        report.say(f"| {batch} | {shown} | {1e3 * batch / cell['states'][0]:.0f} | {ratio} |")
        cells.append({"batch": batch, "floor_ms": floor, **cell})
    report.say()
    return cells


def cost(bundle: Bundle) -> tuple[float, float]:
    """GMAC to encode a face, and millions of parameters of the encoder."""
    from vlfau.models.networks import build
    from vlfau.models.networks.base import cost as counted

    totals = counted(build(bundle.manifest.network))
    return totals["gmac"], totals["parameters"] / 1e6


def try_wheels(report: Log, folder: Path, work: Path) -> dict[str, Any]:
    """What each version reports about this GPU."""
    report.say(f"\n## TensorRT-RTX from wheels in {folder.name}\n")
    answers: dict[str, Any] = {}
    for version, wheels in rtx_wheels.versions(folder):
        limit_s = max(20.0, min(120.0, report.left))
        answers[version] = rtx_wheels.attempt(wheels, work / f"rtx-{version}", Path(__file__), bundle_in(work), limit_s)
        report.say(f"{version}: {json.dumps(answers[version])}")
    if not answers:
        report.say("there are no wheels named tensorrt_rtx*.whl")
    return answers


def bundle_in(work: Path) -> Path:
    """`compact` if it was measured, else the first."""
    compact = work / "compact"
    return compact if compact.is_dir() else next(iter(sorted(work.glob("*/manifest.json")))).parent


if __name__ == "__main__":
    sys.exit(main())
