"""OpenVINO, the default on CPUs. Compiled graphs are cached, so that the second start is quick.

Captions are compiled on another thread while the first frames are processed; only `caption` waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY, Bundle
from ..cache import cache_folder
from ..errors import UserError
from ..openvino_core import openvino_core
from .base import Executor, no_captions
from .graphs import check_ports, cpu_threads, encoder_file, has_precision, require_quantised

# The common case is one face with a few units. Shapes that are fixed, and do not change from call to call, take about
# half the time: 9 to 11 ms instead of 13 to 25 for a face of `compact`, one thread of a busy machine.
QUICK_ROWS = 8
NAMES = ("log_odds", *MEMORY, "local_tokens", "global_tokens", "global_log_odds")
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}  # int8: the rest of the graph stays in float


class OpenVino(Executor):
    name = "openvino"
    max_batch = 16

    def __init__(
        self, bundle: Bundle, *, device: str = "CPU", precision: str | None = None, threads: int | None = None
    ) -> None:
        self._core, self._bundle = openvino_core(), bundle
        if device not in self._core.available_devices:
            available = ", ".join(self._core.available_devices)
            raise UserError(f"OpenVINO has no device '{device}' on this machine. It has: {available}.")
        abilities = self._core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        self.precision = precision or best_precision(bundle, abilities)
        if self.precision == "int8":
            require_quantised(bundle, "int8")
        native = self.precision in ("fp32", "int8", bundle.manifest.precision)
        if self.precision not in HINTS or not (native or self.precision.upper() in abilities):
            raise UserError(
                f"OpenVINO on this {device} cannot run {self.precision}; it can run {', '.join(sorted(abilities))}. "
                "Choose another --precision, or leave it out."
            )
        self.device = f"{device}: {self._core.get_property(device, 'FULL_DEVICE_NAME').strip()}"
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        options["INFERENCE_NUM_THREADS"] = str(cpu_threads(threads))
        self._cache = cache_folder("openvino", bundle.checksum)
        if self._cache is not None:
            options["CACHE_DIR"] = str(self._cache)
        hint = HINTS[self.precision] if self.precision.upper() in abilities else "f32"
        encoder = bundle.path(encoder_file(self.precision))
        self._encoder = self._compile(encoder, device, options | {"INFERENCE_PRECISION_HINT": hint})
        self._was_cached = self._encoder.was_cached
        self._outputs = {_name(output): _row(output) for output in self._encoder.model_outputs}
        self._compiling = ThreadPoolExecutor(1, "compile-captions")
        self._quick: Future[_Request] | None = None
        self._captions: Future[_Request] | None = None
        if bundle.has_captions:
            # Words are chosen by argmax over near ties, so the decoder runs in FP32 whatever the encoder's precision.
            captions = (bundle.path("caption.onnx"), device, options | {"INFERENCE_PRECISION_HINT": "f32"})
            self._quick = self._compiling.submit(self._compile, *captions, {"n": 1, "R": QUICK_ROWS})
            self._captions = self._compiling.submit(self._compile, *captions)

    @property
    def captions_ready(self) -> bool:
        return all(graph is None or graph.done() for graph in (self._quick, self._captions))

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        # New arrays for every call, written by OpenVINO without a copy, which outlive the next call.
        results = {name: np.empty((len(crops), *shape), kind) for name, (shape, kind) in self._outputs.items()}
        self._encoder({"crops": crops}, results)
        return results

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._quick is None or self._captions is None:
            raise no_captions()
        inputs = {**memory, "active": active, "rows": rows}
        if len(active) > 1 or len(rows) > QUICK_ROWS:
            return self._captions.result()(inputs)
        padded = np.zeros((QUICK_ROWS, 2), np.int64)
        padded[: len(rows)] = rows
        tokens = self._quick.result()({**inputs, "rows": padded})
        return {**tokens, "local_tokens": tokens["local_tokens"][: len(rows)]}

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        if list(faces) == list(range(len(memory["visual"]))):
            return {name: memory[name] for name in MEMORY}
        return super().take(memory, faces)

    def drop_cache(self) -> bool:
        if self._cache is None or not self._was_cached:
            return False
        try:
            for compiled in self._cache.glob("*.blob"):
                compiled.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._compiling.shutdown(wait=True, cancel_futures=True)  # a running compilation cannot be stopped
        self._quick = self._captions = None
        self._encoder.release()

    def _compile(
        self, path: Path, device: str, options: dict[str, Any], sizes: dict[str, int] | None = None
    ) -> _Request:
        """`sizes` fixes the first axis of `rows` ("R") and of everything else ("n")."""
        try:
            if sizes is None:
                return self._request(self._core.compile_model(str(path), device, options), path)
            model = self._core.read_model(str(path))
            model.reshape(
                {
                    port.any_name: [
                        sizes["R" if port.any_name == "rows" else "n"],
                        *[size.get_length() for size in list(port.partial_shape)[1:]],
                    ]
                    for port in model.inputs
                }
            )
            return self._request(self._core.compile_model(model, device, options), path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200].rstrip(".")
            raise UserError(f"OpenVINO cannot compile {path.name}: {reason}. Try --runtime onnxruntime.") from error

    def _request(self, compiled: Any, path: Path) -> _Request:
        request = _Request(compiled)
        outputs = [_name(output) for output in request.model_outputs]
        check_ports(self._bundle, path, request.model_inputs, outputs)
        return request


class _Request:
    """One compiled graph and its one inference request."""

    def __init__(self, compiled: Any) -> None:
        self._request: Any = compiled.create_infer_request()
        self.was_cached = bool(compiled.get_property("LOADED_FROM_CACHE"))
        self.model_outputs = list(compiled.outputs)
        self.model_inputs = [port.any_name for port in compiled.inputs]

    def __call__(
        self, inputs: dict[str, NDArray[Any]], results: dict[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]]:
        import openvino

        arrays = {name: np.ascontiguousarray(inputs[name]) for name in self.model_inputs}  # alive until infer() is done
        for name, array in arrays.items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        for name, array in (results or {}).items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        self._request.infer()
        if results is not None:
            return results
        names = [_name(output) for output in self.model_outputs]
        return {name: self._request.get_tensor(name).data.copy() for name in names}

    def release(self) -> None:
        self._request = None


def best_precision(bundle: Bundle, abilities: Sequence[str]) -> str:
    """INT8 only if it was calibrated for this bundle."""
    if has_precision(bundle, "int8") and "INT8" in abilities:
        return "int8"
    return "bf16" if "BF16" in abilities else bundle.manifest.precision


def _name(output: Any) -> str:
    """A value may have several names: the one in NAMES."""
    names = output.get_names()
    return next((name for name in NAMES if name in names), str(output.any_name))


def _row(output: Any) -> tuple[tuple[int, ...], Any]:
    """Shape without the batch axis, and type."""
    sizes = list(output.get_partial_shape())[1:]
    if any(size.is_dynamic for size in sizes):
        raise UserError(f"Output {output.any_name} of encoder.onnx has unknown sizes {sizes}. Export the bundle again.")
    return tuple(size.get_length() for size in sizes), output.get_element_type().to_dtype()
