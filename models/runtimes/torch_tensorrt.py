"""torch-tensorrt: the trained modules compiled through its dynamo frontend. Imported last: its import needs a GPU.

The encoder is compiled, sentences are spoken by the torch runtime's captured steps. Has not run on a GPU yet.
"""

from __future__ import annotations

from importlib.util import find_spec
from inspect import signature
from typing import Any

from ..bundle import Bundle
from ..errors import UserError
from .tensorrt_engines import gpu_count
from .torch_eager import Torch


def unavailable() -> str | None:
    """Why it cannot be used here; None when it can be tried."""
    if find_spec("torch_tensorrt") is None:
        return "torch_tensorrt is not installed"
    return "no NVIDIA GPU" if gpu_count() == 0 else None


class TorchTensorRT(Torch):
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
        self._library: Any = torch_tensorrt
        self._built: dict[int, Any] = {}

    def _encode(self, given: dict[str, Any]) -> dict[str, Any]:
        from ..bundle import MEMORY

        crops = given["crops"]
        if len(crops) not in self._built:  # before any capture: `Buckets` runs each size plainly first
            torch, network = self._torch, self._network

            class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined]
                def __init__(self) -> None:
                    super().__init__()
                    self.network = network

                def forward(self, crops: Any) -> Any:
                    encoded = self.network.encode(crops)
                    return (encoded.log_odds.float(), *(encoded.memory if self.network.has_captions else ()))

            program = torch.export.export(Encoder().eval(), (crops,))
            compiler = self._library.dynamo.compile
            options: dict[str, Any] = {"inputs": [crops], "min_block_size": 1}
            if "use_explicit_typing" in signature(compiler).parameters:  # 2.11 has it; later versions know nothing else
                options["use_explicit_typing"] = True
            self._built[len(crops)] = compiler(program, **options)
        names = ("log_odds", *(MEMORY if self._network.has_captions else ()))
        return dict(zip(names, self._built[len(crops)](crops)))
