"""A loaded network behind one small interface, whatever executes it.

An `Executor` runs the two graphs of a bundle on arrays. `Runtime` adds what must be the same everywhere: checks of the
input, splitting of large batches, temperatures, tokens to sentences, and the self-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY, Bundle
from ..errors import UserError
from ..sentences.vocabulary import decode

# log-odds, worst of a few crops
SELFTEST_TOLERANCE = {"fp32": 2e-3, "bf16": 0.35, "fp16": 0.1, "int8": 1.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Axes: N crops, A action units, d channels, L places."""

    probabilities: NDArray[np.float32]  # (N, A) after the bundle's temperatures
    states: NDArray[np.bool_]  # (N, A) probability >= the bundle's threshold
    log_odds: NDArray[np.float32]  # (N, A) as the network computed them
    memory: dict[str, Any]  # visual (N, d, L), channel (N, A, d), spatial (N, A, L), or the executor's own handles

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, slots=True)
class Explanation:
    text: str  # the whole face
    why: dict[str, str]  # "AU12" -> its sentence, for the requested units


class Executor(Protocol):
    """Runs the graphs of one bundle. Not thread-safe; close() frees the device."""

    name: str  # "openvino", "onnxruntime", ...
    device: str  # "CPU: Intel(R) ...", "cuda:0 NVIDIA H100"
    precision: str  # fp32, bf16, fp16, int8, fp8
    max_batch: int

    @property
    def captions_ready(self) -> bool:
        """False while the captions' graph is still being compiled: `caption` would wait for it."""
        return True

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        """(n, S, S, 3) with 1 <= n <= max_batch -> log_odds (n, A) as an array, and the MEMORY entries."""

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        """Memory of n faces, active (n, A) 0/1, rows (R, 2) of (face, unit), R >= 1 -> tokens, END then PAD:
        local_tokens (R, T), global_tokens (n, T)."""

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        """The memory of some of the faces."""
        return {name: memory[name][list(faces)] for name in MEMORY}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The memories of several groups of faces as one."""
        return {name: np.concatenate([part[name] for part in parts]) for name in MEMORY}

    def drop_cache(self) -> bool:
        """After closing: deletes the compiled graphs that this executor was loaded from, or returns False."""
        return False

    def close(self) -> None: ...


class SelfTestFailed(UserError):
    """A runtime does not reproduce the stored answer of a bundle."""


def no_captions() -> UserError:
    return UserError("This bundle has no captions. Export a network with sentences, or do not request any.")


class Runtime:
    """What the engine, the bench and calibration use."""

    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self.bundle, self.executor = bundle, executor
        manifest = bundle.manifest
        self.units, self.side = manifest.units, manifest.side
        self.thresholds = np.array(manifest.thresholds, np.float32)
        self.temperatures = np.array(manifest.temperatures, np.float32)
        self._closed = False

    @property
    def max_batch(self) -> int:
        return self.executor.max_batch

    @property
    def description(self) -> str:
        return f"{self.executor.name} {self.executor.precision} on {self.executor.device}"

    @property
    def ready_to_explain(self) -> bool:
        """False while the captions' graph is still being compiled: `explain` would wait for it."""
        return self.executor.captions_ready

    def predict(self, crops: NDArray[np.uint8]) -> Prediction:
        """crops (N, S, S, 3) uint8 RGB, N >= 1; more than max_batch are split."""
        self._refuse_when_closed()
        expected = (self.side, self.side, 3)
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != expected or not len(crops):
            raise UserError(
                f"The network takes uint8 crops of shape (N, {self.side}, {self.side}, 3), "
                f"got {crops.dtype} {crops.shape}."
            )
        parts = [self.executor.encode(crops[i : i + self.max_batch]) for i in range(0, len(crops), self.max_batch)]
        log_odds = np.concatenate([np.asarray(part["log_odds"], np.float32) for part in parts])
        memory = parts[0] if len(parts) == 1 else {"parts": parts}
        # Not `metrics.sigmoid`, whose last bit may differ: published probabilities stay what they were.
        probabilities = (0.5 * (1 + np.tanh(0.5 * log_odds / self.temperatures))).astype(np.float32)
        return Prediction(probabilities, probabilities >= self.thresholds, log_odds, memory)

    def explain(
        self, prediction: Prediction, faces: Sequence[int], active: NDArray[np.bool_], units: NDArray[np.bool_]
    ) -> list[Explanation]:
        """Sentences for some of the faces just predicted: active (F, A) are their decided states, units (F, A) the
        units to describe."""
        self._refuse_when_closed()
        if not self.bundle.has_captions or not faces:
            return [Explanation("", {}) for _ in faces]
        explanations: list[Explanation] = []
        for i in range(0, len(faces), self.max_batch):
            part = slice(i, i + self.max_batch)
            explanations += self._explain(prediction, list(faces[part]), active[part], units[part])
        return explanations

    def _explain(
        self, prediction: Prediction, faces: list[int], active: NDArray[np.bool_], units: NDArray[np.bool_]
    ) -> list[Explanation]:
        memory = self._memory(prediction, faces)
        rows = np.argwhere(units).astype(np.int64)  # (R, 2)
        at_least_one = rows if len(rows) else np.zeros((1, 2), np.int64)  # graphs need a row
        tokens = self.executor.caption(memory, active.astype(np.float32), at_least_one)
        why: list[dict[str, str]] = [{} for _ in faces]
        for (face, unit), row in zip(rows, tokens["local_tokens"]):
            why[face][self.units[unit]] = self.sentence(row)
        return [Explanation(self.sentence(row), why[i]) for i, row in enumerate(tokens["global_tokens"])]

    def _memory(self, prediction: Prediction, faces: list[int]) -> dict[str, Any]:
        parts = prediction.memory.get("parts")
        if parts is None:
            return self.executor.take(prediction.memory, faces)
        return self.executor.join([self.executor.take(parts[f // self.max_batch], [f % self.max_batch]) for f in faces])

    def sentence(self, tokens: NDArray[np.integer]) -> str:
        return decode(tokens, self.bundle.manifest.vocabulary)

    def prove(self) -> float:
        """Runs the stored input; returns the largest difference in log-odds. Raises if another network is running."""
        stored = self.bundle.selftest()
        crops, expected = stored["crops"], expected_log_odds(stored, self.executor.precision)
        try:
            log_odds, other = self.predict(crops).log_odds, self.predict(255 - crops).log_odds
        except UserError:
            raise
        except Exception as error:  # each runtime has its own for graphs of other inputs and outputs
            raise self._failed(f"it stopped with {first_line(error)}") from error
        if log_odds.shape != expected.shape:
            raise self._failed(f"log-odds have the shape {log_odds.shape}, expected {expected.shape}")
        worst = float(np.abs(log_odds - expected).max())
        allowed = allowed_error(self.bundle, self.executor.precision)
        if not worst <= allowed:  # also if it is NaN
            raise self._failed(f"log-odds differ by {worst:.3g}, {allowed} is allowed")
        if not np.abs(other - log_odds).max() > worst:  # a runtime that ignores its input could pass the first check
            raise self._failed("another image gives the same answer")
        return worst

    def _failed(self, reason: str) -> SelfTestFailed:
        return SelfTestFailed(f"Self-test of {self.description} failed: {reason}. Try another --runtime.")

    def close(self) -> None:
        """Frees the device; closing again does nothing."""
        if not self._closed:
            self._closed = True
            self.executor.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:  # libraries crash on memory that was freed
            raise UserError("This runtime is closed. Open the bundle again to continue.")

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def first_line(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text[:200].rstrip('.')}"


def allowed_error(bundle: Bundle, precision: str) -> float:
    """Of log-odds in the self-test. The stored answer is FP32's; a graph in FP16 differs from it by FP16's error even
    if a CPU computes it in FP32, since its weights were rounded."""
    return max(SELFTEST_TOLERANCE[kind] for kind in (precision, bundle.manifest.precision))


def expected_log_odds(stored: dict[str, NDArray[Any]], precision: str) -> NDArray[np.float32]:
    """The self-test's answer. A quantised encoder has its own: on images without a face it may differ widely from FP32;
    how close it is on faces was measured by calibration."""
    return stored.get(f"log_odds_{precision}", stored["log_odds"])
