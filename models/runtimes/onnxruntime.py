"""ONNX Runtime on the CPU, or on CUDA where its GPU package is installed. Runs the graphs as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY, Bundle
from ..errors import UserError
from .graphs import cpu_threads, encoder_file, written_precision


class OnnxRuntime:
    name = "onnxruntime"
    max_batch = 16

    def __init__(
        self, bundle: Bundle, *, device: str = "CPU", precision: str | None = None, threads: int | None = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"ONNX Runtime cannot be imported ({error}). Run: pip install onnxruntime") from None
        cuda = device.lower().startswith("cuda")
        wanted = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        have = onnxruntime.get_available_providers()
        if not cuda and device.upper() != "CPU":
            raise UserError(f"ONNX Runtime has no device '{device}' here. Choose CPU, or cuda:N.")
        if wanted not in have:
            raise UserError(f"This ONNX Runtime has no {wanted} (it has {', '.join(have)}). Install onnxruntime-gpu.")
        self.precision = written_precision(bundle, precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning steals the decoder's core
        index = int(device.partition(":")[2] or 0) if cuda else 0
        providers = [(wanted, {"device_id": index})] if cuda else [wanted]

        def session(path: Path) -> Any:
            made = onnxruntime.InferenceSession(str(path), options, providers=providers)
            if made.get_providers()[0] != wanted:
                raise UserError(f"ONNX Runtime fell back from {wanted}: its CUDA libraries did not load. Use the CPU.")
            return made

        self.device = f"cuda:{index}" if cuda else "CPU"
        self._encoder: Any = session(bundle.path(encoder_file(self.precision)))
        self._caption: Any = session(bundle.path("caption.onnx")) if bundle.has_captions else None
        self._outputs = [output.name for output in self._encoder.get_outputs()]

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._encoder.run(None, {"crops": np.ascontiguousarray(crops)})))

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        given = {**memory, "active": active, "rows": rows}
        asked = {one.name: np.ascontiguousarray(given[one.name]) for one in self._caption.get_inputs()}
        return dict(zip([one.name for one in self._caption.get_outputs()], self._caption.run(None, asked)))

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        return {name: memory[name][list(faces)] for name in MEMORY}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {name: np.concatenate([part[name] for part in parts]) for name in MEMORY}

    def close(self) -> None:
        self._encoder = self._caption = None
