"""The reference: the bundle's weights in the modules that were trained; on a GPU in half precision and CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..bundle import Bundle
from .cuda_buckets import Tensors
from .on_torch import NetworkOnTorch

if TYPE_CHECKING:
    import torch


class Torch(NetworkOnTorch):
    name = "torch"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        super().__init__(bundle, device=device, precision=precision, threads=threads, graphs=graphs)
        from ..networks.base import EncoderOutputs

        outputs = EncoderOutputs(self._network).eval()
        self._names = outputs.names
        self._outputs: Any = self._torch.compile(outputs, dynamic=False) if compiled else outputs

    def _encode(self, crops: torch.Tensor) -> Tensors:
        return dict(zip(self._names, self._outputs(crops)))
