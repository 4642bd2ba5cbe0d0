"""ONNX Runtime on the CPU, or on CUDA if its GPU package is installed. Runs the graphs in the precision they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import UserError
from .base import Executor, first_line, no_captions
from .graphs import check_ports, cpu_threads, encoder_file, written_precision


class OnnxRuntime(Executor):
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
        provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        available = onnxruntime.get_available_providers()
        if not cuda and device.upper() != "CPU":
            raise UserError(f"ONNX Runtime has no device '{device}' here. Choose CPU, or cuda:N.")
        if provider not in available:
            raise UserError(
                f"This ONNX Runtime has no {provider} (it has {', '.join(available)}). Install onnxruntime-gpu."
            )
        self.precision = written_precision(bundle, precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads(threads)
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # spinning takes a core from the video decoder
        index = int(device.partition(":")[2] or 0) if cuda else 0
        providers = [(provider, {"device_id": index})] if cuda else [provider]

        def session(path: Path) -> Any:
            try:
                opened = onnxruntime.InferenceSession(str(path), options, providers=providers)
            except Exception as error:  # a dozen kinds with no common base
                raise UserError(
                    f"ONNX Runtime cannot load {path.name}: {first_line(error)}. Export the bundle again."
                ) from error
            ports = ([port.name for port in side] for side in (opened.get_inputs(), opened.get_outputs()))
            check_ports(bundle, path, *ports)
            if opened.get_providers()[0] != provider:
                raise UserError(f"ONNX Runtime did not load the libraries of {provider}. Use the CPU.")
            return opened

        self.device = f"cuda:{index}" if cuda else "CPU"
        self._encoder: Any = session(bundle.path(encoder_file(self.precision)))
        self._caption: Any = session(bundle.path("caption.onnx")) if bundle.has_captions else None
        self._outputs = [output.name for output in self._encoder.get_outputs()]

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._encoder.run(None, {"crops": np.ascontiguousarray(crops)})))

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._caption is None:
            raise no_captions()
        values = {**memory, "active": active, "rows": rows}
        inputs = {one.name: np.ascontiguousarray(values[one.name]) for one in self._caption.get_inputs()}
        return dict(zip([one.name for one in self._caption.get_outputs()], self._caption.run(None, inputs)))

    def close(self) -> None:
        self._encoder = self._caption = None
