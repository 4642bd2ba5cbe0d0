"""torch-tensorrt: the trained encoder compiled through its dynamo frontend, sentences as in the torch runtime.

Untested on a GPU. torch_tensorrt itself is imported last, since that needs a GPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle
from ..errors import UserError
from .cuda_buckets import Tensors
from .on_torch import NetworkOnTorch
from .tensorrt_engines import gpu_count

if TYPE_CHECKING:
    import torch


def unavailable() -> str | None:
    """The reason why it cannot be used here, or None if it can be tried."""
    if find_spec("torch_tensorrt") is None:
        return "torch_tensorrt is not installed"
    return "no NVIDIA GPU" if gpu_count() == 0 else None


class TorchTensorRT(NetworkOnTorch):
    name = "torch-tensorrt"

    def __init__(self, bundle: Bundle, *, device: str | None = None, precision: str | None = None) -> None:
        if (reason := unavailable()) is not None:
            raise UserError(f"torch-tensorrt cannot be used: {reason}. Use --runtime torch, or openvino on a CPU.")
        try:
            import torch_tensorrt
        except Exception as error:  # version pairs are strict, and a wrong one fails in many ways
            raise UserError(
                f"torch-tensorrt cannot be imported ({type(error).__name__}: {error}). Its version must match torch's: "
                "2.11 with TensorRT 10.15, 2.12 with 10.16, 2.13 with 11.0, 2.14 with 11.1."
            ) from None
        super().__init__(bundle, device=device or "cuda:0", precision=precision)
        from ..networks.base import EncoderOutputs

        self._library: Any = torch_tensorrt
        self._outputs = EncoderOutputs(self._network).eval()
        self._compiled: dict[int, Any] = {}  # batch size -> encoder

    def _encode(self, crops: torch.Tensor) -> Tensors:
        if len(crops) not in self._compiled:  # before any capture: `Buckets` first runs each size without a graph
            program = self._torch.export.export(self._outputs, (crops,))
            compiler = self._library.dynamo.compile
            options: dict[str, Any] = {"inputs": [crops], "min_block_size": 1}
            if "use_explicit_typing" in signature(compiler).parameters:  # an option in 2.11, the only mode later
                options["use_explicit_typing"] = True
            self._compiled[len(crops)] = compiler(program, **options)
        return dict(zip(self._outputs.names, self._compiled[len(crops)](crops)))
