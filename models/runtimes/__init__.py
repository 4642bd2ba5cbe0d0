"""Opens a bundle with a runtime, by name or the fastest; imports only the one that is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from ..cache import recall, remember
from ..errors import UserError, unknown
from ..terminal import plain

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .base import Executor, Runtime
    from .choose import Trial

FAILED = "failed-precisions.json"  # in the cache: default precisions that failed their self-tests
RUNTIMES = ("auto", "openvino", "onnxruntime", "tensorrt", "torch-tensorrt", "torch")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8", "fp8")


def open_runtime(
    bundle: Bundle,
    runtime: str = "auto",
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    prove: bool = True,
    say: Callable[[str], None] | None = None,
) -> Runtime:
    """Loads a bundle, ready to predict; `prove` runs its self-test, `say` gets the lines on what `auto` chose and why.

    `device` is what the runtime calls it ("CPU", "cuda:1"); `precision` None or "auto" is the fastest that bundle and
    device support and that passes the self-test; with `threads` None the runtime decides.
    """
    from .base import Runtime, SelfTestFailed

    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES)
    if precision is not None and precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if threads is not None and threads < 1:
        raise UserError(f"A runtime needs at least 1 thread, got {threads}. Leave it out to let the runtime decide.")
    requested = None if precision == "auto" else precision
    if runtime == "auto":
        from .choose import choose

        choice = choose(
            bundle,
            device=device,
            precision=requested,
            threads=threads,
            trial=_trial(bundle, device, requested, threads),
            say=say,
        )
        runtime, device, requested = choice.runtime, choice.device, choice.precision
    own, failed_before = bundle.manifest.precision, _failed_before(bundle, runtime, device)
    if requested is None and failed_before is not None:
        requested = own
    opened = Runtime(bundle, open_executor(bundle, runtime, device, requested, threads))
    if prove:
        try:
            opened.prove()
        except BaseException as error:
            opened.close()
            if isinstance(error, SelfTestFailed):
                reopen = partial(open_runtime, bundle, runtime, device=device, threads=threads, say=say)
                precision_run = opened.executor.precision
                if precision_run != failed_before and opened.executor.drop_cache():  # which may have been damaged
                    return reopen(precision=requested)
                if requested is None and precision_run != own:  # the faster precision was not requested
                    _remember_failure(bundle, runtime, device, precision_run)
                    (say or _to_stderr)(f"{error} Continuing in {own}.")
                    return reopen(precision=own)
            raise
    return opened


def _failed_before(bundle: Bundle, runtime: str, device: str | None) -> str | None:
    """The runtime's default precision, if it failed the self-test on this machine."""
    failures = recall(FAILED)
    if not failures:
        return None
    from .choose import machine_key

    failed = failures.get(machine_key(bundle, runtime, device))
    return failed if failed in PRECISIONS else None


def _remember_failure(bundle: Bundle, runtime: str, device: str | None, precision: str) -> None:
    from .choose import machine_key

    remember(FAILED, machine_key(bundle, runtime, device), precision)


def _to_stderr(line: str) -> None:
    print(plain(line, lines=True), file=sys.stderr)


def open_executor(
    bundle: Bundle,
    runtime: str,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Executor:
    """What `Runtime` wraps, of any runtime but `auto`."""
    match runtime:
        case "openvino":
            from .openvino import OpenVino

            return OpenVino(bundle, device=device or "CPU", precision=precision, threads=threads)
        case "onnxruntime":
            from .onnxruntime import OnnxRuntime

            return OnnxRuntime(bundle, device=device or "CPU", precision=precision, threads=threads)
        case "tensorrt":
            from .tensorrt import TensorRT

            return TensorRT(bundle, device=device, precision=precision)
        case "torch-tensorrt":
            from .torch_tensorrt import TorchTensorRT

            return TorchTensorRT(bundle, device=device, precision=precision)
        case "torch":
            from .torch_eager import Torch

            return Torch(bundle, device=device, precision=precision, threads=threads)
        case _:
            raise unknown("runtime", runtime, RUNTIMES)


def _trial(bundle: Bundle, device: str | None, precision: str | None, threads: int | None) -> Trial:
    import numpy as np

    from .choose import TrialOutcome
    from .race import race

    def run(names: Sequence[str]) -> TrialOutcome:
        runtimes: dict[str, Runtime] = {}
        failed: dict[str, str] = {}
        crops = bundle.selftest()["crops"]
        with ExitStack() as opened:
            for name in names:
                try:
                    runtime = open_runtime(bundle, name, device=device, precision=precision, threads=threads)
                except UserError as error:
                    failed[name] = str(error)
                    continue
                runtimes[name] = opened.enter_context(runtime)
                two = runtime.predict(crops[:2])
                runtime.explain(two, range(len(two)), two.states, np.ones_like(two.states))  # waits for compilation
            rounds = race({name: partial(runtime.predict, crops[:1]) for name, runtime in runtimes.items()})
            return TrialOutcome(
                rounds, {name: runtime.executor.precision for name, runtime in runtimes.items()}, failed
            )

    return run
