"""`auto`: the fastest runtime on this machine. Finds those that could run, races them for half a second each, and
remembers the result.

The choice is stored in the user's cache, keyed by everything it depends on; --runtime NAME overrules it. A race on a
busy machine is noisy, so the default is only replaced by a runtime that is clearly faster.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import msgspec

from ..bundle import Bundle
from ..cache import cache_folder, recall, remember
from ..errors import UserError
from ..terminal import plain
from .race import Rounds

PACKAGES = ("openvino", "onnxruntime", "onnxruntime-gpu", "torch", "torch-tensorrt", "tensorrt", "tensorrt-rtx")
CHOICES = "choices.json"  # in the cache
UNSURE_S = 3600.0  # lifetime of a trial on a busy machine
PREFERRED = ("tensorrt", "torch", "openvino", "onnxruntime")  # the default is the first that can run


@dataclass(frozen=True, eq=False)
class TrialOutcome:
    rounds: Rounds
    precisions: dict[str, str]  # of those that ran
    failed: dict[str, str]  # name -> why


Trial = Callable[[Sequence[str]], TrialOutcome]


@dataclass(frozen=True)
class Choice:
    runtime: str
    precision: str | None
    device: str | None
    reasons: tuple[str, ...]  # one line per runtime, the chosen one first
    sure: bool = True  # False: measured while other programs used the processor; will be measured again soon
    measured_at: float = 0.0  # unix seconds

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def choose(
    bundle: Bundle,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    trial: Trial,
    say: Callable[[str], None] | None = None,
) -> Choice:
    """The fastest for one face; `say` gets a line about it and one about each of the others."""
    report = say or (lambda line: print(plain(line, lines=True), file=sys.stderr))
    key = machine_key(bundle, device, precision, threads)
    choice = _remembered(key, device, precision)
    if choice is not None and (choice.sure or 0 <= time.time() - choice.measured_at < UNSURE_S):
        report(f"{choice}\n(measured earlier on this machine; delete {cache_folder()}/{CHOICES} to measure again)")
        return choice
    reasons = probe(bundle, device, precision)
    candidates = [name for name, reason in reasons.items() if reason is None]
    if not candidates:
        against = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise UserError(f"No runtime can run this bundle here ({against}). Run: pip install openvino")
    choice = _measured(candidates, reasons, device, precision, trial)
    report(str(choice) if choice.sure else f"{choice}\n(this machine was busy: will be measured again in an hour)")
    remember(CHOICES, key, asdict(replace(choice, measured_at=time.time())))
    return choice


def probe(bundle: Bundle, device: str | None, precision: str | None) -> dict[str, str | None]:
    """Each runtime with the reason not to try it, or None. Imports nothing heavy."""
    from . import tensorrt_engines, torch_tensorrt

    gpus = tensorrt_engines.gpu_count()
    cuda = gpus > 0 if device is None else device.lower().startswith("cuda")
    reasons: dict[str, str | None] = {}
    reasons["tensorrt"] = tensorrt_engines.unavailable() if cuda or not gpus else f"the requested device is {device}"
    if reasons["tensorrt"] is None and not _engines(bundle):
        reasons["tensorrt"] = "no engine is compiled yet: run vlfau-compile"
    reasons["torch-tensorrt"] = torch_tensorrt.unavailable() or "compiles for minutes: only on request"
    if find_spec("torch") is None:
        reasons["torch"] = "not installed"
    else:
        reasons["torch"] = None if cuda and gpus else "the reference, slow on a CPU: only on request"
    for name in ("openvino", "onnxruntime"):
        missing = find_spec(name) is None
        reasons[name] = (
            "not installed" if missing else (f"the requested device is {device}" if cuda and device else None)
        )
    if precision in ("bf16", "fp16") and reasons["onnxruntime"] is None and bundle.manifest.precision != precision:
        reasons["onnxruntime"] = f"this bundle's graphs are written in {bundle.manifest.precision}"
    return reasons


def _measured(
    candidates: Sequence[str], reasons: dict[str, str | None], device: str | None, precision: str | None, trial: Trial
) -> Choice:
    rejected = {name: reason for name, reason in reasons.items() if reason is not None}
    if len(candidates) == 1:
        (name,) = candidates
        first = f"runtime {name}: the only one that can run here"
        return Choice(name, precision, device, (first, *_lines(rejected)))
    outcome = trial(candidates)
    rejected |= outcome.failed
    rounds, able = outcome.rounds, [name for name in PREFERRED if name in outcome.precisions]
    if not able:
        raise UserError(f"No runtime passed its self-test here: {'; '.join(_lines(rejected))}.")
    default, *others = able
    better = [name for name in others if rounds.clearly_faster(name, default)]
    best = min(better, key=rounds.seconds, default=default)
    times = {n: f"{n} {outcome.precisions[n]} takes {1e3 * rounds.seconds(n):.2f} ms a face" for n in able}
    lines = [f"runtime {times[best]}"]
    for name in sorted(set(able) - {best}, key=rounds.seconds):
        close = rounds.seconds(name) <= rounds.seconds(best)
        lines.append(f"  not {times[name]}{f', not clearly faster than the default {default}' if close else ''}")
    return Choice(best, precision, device, (*lines, *_lines(rejected)), sure=not rounds.disturbed)


def _lines(rejected: dict[str, str]) -> list[str]:
    return [f"  not {name}: {reason}" for name, reason in rejected.items()]


def _remembered(key: str, device: str | None, precision: str | None) -> Choice | None:
    try:
        choice = msgspec.convert(recall(CHOICES).get(key), Choice)
    except msgspec.ValidationError:
        return None
    return choice if choice.runtime in PREFERRED and (choice.device, choice.precision) == (device, precision) else None


def machine_key(bundle: Bundle, *requested: object) -> str:
    """Identifies the bundle, this machine, what is installed on it and what was requested."""
    from .tensorrt_engines import gpu_count

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    machine = (platform.machine(), platform.processor(), platform.node(), os.cpu_count(), platform.python_version())
    body = json.dumps([bundle.checksum, machine, gpu_count(), versions, _engines(bundle), *map(str, requested)])
    return hashlib.sha256(body.encode()).hexdigest()[:24]


def _engines(bundle: Bundle) -> list[str]:
    from .tensorrt_engines import engine_folder

    return sorted(path.name for path in engine_folder(bundle).glob(f"encoder-*-{bundle.checksum}.engine"))
