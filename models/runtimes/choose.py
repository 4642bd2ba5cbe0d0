"""`auto`: which runtime is fastest here. Probes what could run, tries each for half a second, and remembers the answer.

The choice is kept in the user's cache, keyed by everything it depends on; --runtime NAME overrules it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import UserError
from .cache import cache_folder

PACKAGES = ("openvino", "onnxruntime", "onnxruntime-gpu", "torch", "torch-tensorrt", "tensorrt", "tensorrt-rtx")
TRIAL_S = 0.5
Trial = Callable[[str], tuple[float, str]]  # runtime -> seconds for one face, precision


@dataclass(frozen=True)
class Choice:
    runtime: str
    precision: str | None
    device: str | None
    reasons: tuple[str, ...]  # one line per runtime, the chosen one first

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def choose(
    bundle: Bundle,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    trial: Trial | None = None,
    say: Callable[[str], None] | None = None,
) -> Choice:
    """The fastest for one face; says which and why the others were passed over."""
    speak = say or (lambda line: print(line, file=sys.stderr))
    path, key = _remembered_at(), _key(bundle, device, precision, threads)
    known = _known(path)
    if key in known:
        choice = Choice(**{**known[key], "reasons": tuple(known[key]["reasons"])})
        speak(f"{choice}\n(measured earlier on this machine)")
        return choice
    reasons = probe(bundle, device, precision)
    candidates = [name for name, reason in reasons.items() if reason is None]
    if not candidates:
        passed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise UserError(f"No runtime can run this bundle here ({passed}). Run: pip install openvino")
    choice = _measured(candidates, reasons, device, precision, trial or _trial(bundle, device, precision, threads))
    speak(str(choice))
    if path is not None:
        _remember(path, key, choice)
    return choice


def probe(bundle: Bundle, device: str | None, precision: str | None) -> dict[str, str | None]:
    """Each runtime with the reason why it cannot be tried, or None. Imports nothing heavy."""
    from . import nvidia, torch_trt

    gpus = nvidia.gpu_count()
    cuda = gpus > 0 if device is None else device.lower().startswith("cuda")
    reasons: dict[str, str | None] = {}
    reasons["tensorrt"] = nvidia.unavailable() if cuda or not gpus else f"the device asked for is {device}"
    if reasons["tensorrt"] is None and not _engines(bundle):
        reasons["tensorrt"] = "no engine is compiled yet: vlfau-compile makes one"
    reasons["torch-tensorrt"] = torch_trt.unavailable() or "compiles for minutes: only when asked for"
    if find_spec("torch") is None:
        reasons["torch"] = "not installed"
    else:
        reasons["torch"] = None if cuda and gpus else "the reference, slow on a CPU: only when asked for"
    for name in ("openvino", "onnxruntime"):
        missing = find_spec(name) is None
        reasons[name] = (
            "not installed" if missing else (f"the device asked for is {device}" if cuda and device else None)
        )
    if precision in ("bf16", "fp16") and reasons["onnxruntime"] is None and bundle.manifest.precision != precision:
        reasons["onnxruntime"] = f"this bundle's graphs are written in {bundle.manifest.precision}"
    return reasons


def _measured(
    candidates: Sequence[str], reasons: dict[str, str | None], device: str | None, precision: str | None, trial: Trial
) -> Choice:
    passed = {name: reason for name, reason in reasons.items() if reason is not None}
    if len(candidates) == 1:
        (name,) = candidates
        first = f"runtime {name}: the only one that can run here"
        return Choice(name, precision, device, (first, *_lines(passed)))
    took: dict[str, tuple[float, str]] = {}
    for name in candidates:
        try:
            took[name] = trial(name)
        except UserError as error:
            passed[name] = str(error)
    if not took:
        raise UserError(f"No runtime passed its self-test here: {'; '.join(_lines(passed))}.")
    order = sorted(took, key=lambda name: took[name][0])
    best, said = order[0], [f"{name} {took[name][1]} takes {1e3 * took[name][0]:.2f} ms a face" for name in order]
    lines = (f"runtime {said[0]}", *(f"  not {line}" for line in said[1:]), *_lines(passed))
    return Choice(best, precision, device, lines)


def _lines(passed: dict[str, str]) -> list[str]:
    return [f"  not {name}: {reason}" for name, reason in passed.items()]


def _trial(bundle: Bundle, device: str | None, precision: str | None, threads: int | None) -> Trial:
    def run(name: str) -> tuple[float, str]:
        from . import open_runtime

        with open_runtime(bundle, name, device=device, precision=precision, threads=threads) as runtime:
            crops = bundle.selftest()["crops"]
            crop, two = crops[:1], runtime.predict(crops[:2])
            runtime.explain(two, range(len(two)), two.states, np.ones_like(two.states))  # nothing still compiles then
            took: list[float] = []
            until = time.perf_counter() + TRIAL_S
            while len(took) < 5 or time.perf_counter() < until:
                start = time.perf_counter()
                runtime.predict(crop)
                took.append(time.perf_counter() - start)
            return float(np.median(took[2:])), runtime.executor.precision

    return run


def _key(bundle: Bundle, *asked: object) -> str:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    machine = (platform.machine(), platform.processor(), platform.node(), os.cpu_count(), platform.python_version())
    body = json.dumps([bundle.checksum, machine, versions, _engines(bundle), *map(str, asked)])
    return hashlib.sha256(body.encode()).hexdigest()[:24]


def _engines(bundle: Bundle) -> list[str]:
    from .nvidia import engine_folder

    return sorted(path.name for path in engine_folder(bundle).glob(f"encoder-*-{bundle.checksum}.engine"))


def _remembered_at() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "choices.json"


def _known(path: Path | None) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text())) if path is not None and path.is_file() else {}
    except (OSError, ValueError):  # a damaged cache is measured anew
        return {}


def _remember(path: Path, key: str, choice: Choice) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps({**_known(path), key: asdict(choice)}, indent=1))
    os.replace(partial, path)
