"""Checks of one runtime: agreement with the stored answers, steady memory, and time per call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring.comparison import percentiles
from measuring.facts import resident_mb

from vlfau.models.errors import UserError
from vlfau.models.runtimes.base import Runtime

TOLERANCE = {
    "fp32": 1e-3,
    "bf16": 0.05,
    "fp16": 0.02,
}  # of a probability; the encoder's weights are random, not trained
CALLS = 1000  # without growth of memory
GROWTH_MB = 8.0  # leaking one output of `compact` per call would be 20 or more
EQUAL_WORDS = {"fp32": 0.98, "bf16": 0.5, "fp16": 0.8}  # a near tie changes a word and all after it


def agreement(runtime: Runtime) -> dict[str, Any]:
    """In short: FP32's answers, other answers for other images, any batch size, wrong input refused."""
    stored = runtime.bundle.selftest()
    kind = runtime.executor.precision
    expected = 1 / (1 + np.exp(-stored["log_odds"]))
    prediction = runtime.predict(stored["crops"])
    worst = float(np.abs(prediction.probabilities - expected).max())
    control = float(np.abs(runtime.predict(255 - stored["crops"]).probabilities - expected).max())
    faces = len(stored["crops"])
    rows = np.argwhere(np.ones_like(stored["active"])).astype(np.int64)
    memory = runtime.executor.take(prediction.memory, range(faces))
    tokens = runtime.executor.caption(memory, stored["active"], rows)
    words = float((np.asarray(tokens["local_tokens"]) == stored["local_tokens"]).mean())
    single = np.concatenate([runtime.predict(stored["crops"][[i]]).probabilities for i in range(faces)])
    batch = float(np.abs(single - prediction.probabilities).max())
    many = np.concatenate([stored["crops"]] * (runtime.max_batch // faces + 1))
    split = float(np.abs(runtime.predict(many).probabilities[-faces:] - prediction.probabilities).max())
    try:
        runtime.predict(stored["crops"].astype(np.float32))
        refused = False
    except UserError:
        refused = True
    allowed = TOLERANCE.get(kind, 0.1)
    holds = worst <= allowed < control and max(batch, split) <= allowed and refused
    holds = holds and words >= EQUAL_WORDS.get(kind, 0.5)
    text = f"{'holds' if holds else 'DOES NOT HOLD'}: differs by {worst:.1e} (other images {control:.2f}), "
    text += f"{100 * words:.1f} % equal words"
    return {"holds": bool(holds), "worst": worst, "control": control, "words": words, "batch": batch, "said": text}


def growth(runtime: Runtime, calls: int = CALLS, seconds: float = 8.0) -> dict[str, Any]:
    """Memory of the process and of the device before and after `calls` calls, or as many as fit into the time."""
    import torch

    crops = runtime.bundle.selftest()["crops"][:3]

    def used_mb() -> tuple[float, float]:
        free, whole = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
        return resident_mb(), (whole - free) / 1e6

    def work(most: int) -> int:
        until = time.monotonic() + seconds
        for i in range(most):
            runtime.predict(crops[: 1 + i % 3])
            if time.monotonic() > until:
                return i + 1
        return most

    work(calls // 5)
    before = used_mb()
    done = work(calls)
    host, device = (after - was for after, was in zip(used_mb(), before))
    steady = max(host, device) <= GROWTH_MB
    verdict = "holds" if steady else "DOES NOT HOLD"
    text = f"{verdict}: memory after {done} calls {host:+.1f} MB, the GPU's {device:+.1f} MB"
    return {"holds": steady, "calls": done, "host_mb": host, "device_mb": device, "said": text}


def times(runtime: Runtime, batch: int, seconds: float) -> dict[str, Any]:
    """From images on the host to states, and to tokens, on the host: p50, p95 and p99 in ms."""
    stored = runtime.bundle.selftest()
    crops = np.ascontiguousarray(np.resize(stored["crops"], (batch, *stored["crops"].shape[1:])))
    active = np.resize(stored["active"], (batch, stored["active"].shape[1])).astype(np.float32)
    rows = np.argwhere(np.ones_like(active)).astype(np.int64)
    executor = runtime.executor
    memory = executor.take(runtime.predict(crops).memory, range(batch))

    def both() -> None:
        prediction = runtime.predict(crops)
        executor.caption(executor.take(prediction.memory, range(batch)), active, rows)

    work = {
        "states": lambda: runtime.predict(crops),
        "captions": lambda: executor.caption(memory, active, rows),
        "both": both,
    }
    return {name: percentiles(_timed(one, seconds)) for name, one in work.items()}


def _timed(work: Callable[[], Any], seconds: float) -> list[float]:
    for _ in range(3):
        work()
    took: list[float] = []
    until = time.perf_counter() + seconds
    while len(took) < 5 or (time.perf_counter() < until and len(took) < 1000):
        start = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - start))
    return took
