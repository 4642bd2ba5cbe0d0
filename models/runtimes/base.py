"""A loaded network behind one small interface, whatever executes it. Knows no library; executors live in `runtimes/`.

An executor runs the two graphs of a bundle on arrays. `Runtime` adds what must be the same everywhere: checks at the
door, splitting of large batches, temperatures, the way from tokens to words, and the self-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import END, PAD, START, Bundle
from ..errors import UserError
from ..metrics import sigmoid

SELFTEST_TOLERANCE = {
    "fp32": 2e-3,
    "bf16": 0.35,
    "fp16": 0.1,
    "int8": 1.0,
    "fp8": 1.0,
}  # log-odds, worst of a few crops


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Axes: N crops, A action units, d channels, L places."""

    probabilities: NDArray[np.float32]  # (N, A) after the bundle's temperatures
    states: NDArray[np.bool_]  # (N, A) probability >= the bundle's threshold
    log_odds: NDArray[np.float32]  # (N, A) as the network gave them
    memory: dict[str, Any]  # visual (N, d, L), channel (N, A, d), spatial (N, A, L), or the executor's own handles

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, slots=True)
class Explanation:
    text: str  # the whole face
    why: dict[str, str]  # "AU12" -> its sentence, for the units asked for


class Executor(Protocol):
    """Runs the graphs of one bundle. One thread uses it; close() frees the device."""

    name: str  # "openvino", "onnxruntime", ...
    device: str  # "CPU: Intel(R) ...", "cuda:0 NVIDIA H100"
    precision: str  # fp32, bf16, fp16, int8, fp8
    max_batch: int

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        """(n, S, S, 3) with 1 <= n <= max_batch -> log_odds (n, A) as an array, and the MEMORY entries."""

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        """Memory of n faces, active (n, A) 0/1, rows (R, 2) of (face, unit), R >= 1 -> tokens, END then PAD:
        local_tokens (R, T), global_tokens (n, T)."""

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        """The memory of some of the faces."""

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The memories of several groups of faces as one."""

    def close(self) -> None: ...


class Runtime:
    """What the engine, the bench and calibration talk to."""

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
        """False while what makes sentences is still being compiled: `explain` would wait for it."""
        return bool(getattr(self.executor, "captions_ready", True))

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
        probabilities = sigmoid(np.asarray(log_odds / self.temperatures, np.float32))
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
        asked = rows if len(rows) else np.zeros((1, 2), np.int64)  # no graph likes zero rows
        tokens = self.executor.caption(memory, active.astype(np.float32), asked)
        why: list[dict[str, str]] = [{} for _ in faces]
        for (face, unit), row in zip(rows, tokens["local_tokens"]):
            why[face][self.units[unit]] = self.words(row)
        return [Explanation(self.words(row), why[i]) for i, row in enumerate(tokens["global_tokens"])]

    def _memory(self, prediction: Prediction, faces: list[int]) -> dict[str, Any]:
        parts = prediction.memory.get("parts")
        if parts is None:
            return self.executor.take(prediction.memory, faces)
        taken = [self.executor.take(parts[f // self.max_batch], [f % self.max_batch]) for f in faces]
        return self.executor.join(taken)

    def words(self, tokens: NDArray[np.integer]) -> str:
        """Tokens up to END -> a sentence with a capital and a full stop."""
        vocabulary = self.bundle.manifest.vocabulary
        found: list[str] = []
        for token in tokens:
            if token == END:
                break
            if token not in (PAD, START):
                found.append(vocabulary[int(token)])
        sentence = " ".join(found).replace(" ,", ",").replace(" ;", ";")
        return sentence[:1].upper() + sentence[1:] + "." if sentence else ""

    def prove(self) -> float:
        """Run the stored input; the largest difference in log-odds. Raises when it is another network that runs."""
        stored = self.bundle.selftest()
        crops, expected = stored["crops"], expected_log_odds(stored, self.executor.precision)
        found = self.predict(crops).log_odds
        worst = float(np.abs(found - expected).max())
        allowed = allowed_error(self.bundle, self.executor.precision)
        if not np.isfinite(found).all() or worst > allowed:
            raise UserError(
                f"Self-test of {self.description} failed: log-odds differ by {worst:.3g}, allowed {allowed}. "
                "Try another --runtime."
            )
        other = self.predict(255 - crops).log_odds
        if np.abs(other - found).max() <= worst:  # a runtime that ignores its input would pass the first check by luck
            raise UserError(
                f"Self-test of {self.description} failed: another picture gives the same answer. Try another --runtime."
            )
        return worst

    def close(self) -> None:
        """Frees the device; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self.executor.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:  # a library whose memory is gone would not say so in words
            raise UserError("This runtime is closed. Open the bundle again to go on.")

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def allowed_error(bundle: Bundle, precision: str) -> float:
    """Of log-odds in the self-test. The stored answer is FP32's; a graph in FP16 differs from it by FP16's error even
    where a CPU computes it in FP32, since its weights were rounded."""
    return max(SELFTEST_TOLERANCE[kind] for kind in (precision, bundle.manifest.precision))


def expected_log_odds(stored: dict[str, NDArray[Any]], precision: str) -> NDArray[np.float32]:
    """The self-test's answer. A quantised encoder has one of its own: on pictures that are no faces it leaves FP32 far
    behind, rightly; how near it stays on faces is what calibration measured."""
    return stored.get(f"log_odds_{precision}", stored["log_odds"])
