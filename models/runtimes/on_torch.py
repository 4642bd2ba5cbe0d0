"""What the runtimes that use PyTorch share: memory as tensors on a device, and the trained network with its buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MANIFEST, MEMORY, Bundle
from ..errors import UserError
from .base import Executor, first_line, no_captions
from .cuda_buckets import SIZES, Buckets, Tensors
from .graphs import cpu_threads
from .speaking import Sentences

if TYPE_CHECKING:
    import torch

    from ..networks.base import AUNetwork


class OnTorch(Executor):
    """Keeps the memory as tensors on one device."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._torch, self._at = torch, device
        self.device = f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "CPU"

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        chosen = self._torch.tensor(list(faces), device=self._at)
        return {name: memory[name][chosen] for name in MEMORY}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {name: self._torch.cat([part[name] for part in parts]) for name in MEMORY}


class NetworkOnTorch(OnTorch):
    """The trained network, its encoder in buckets. States and sentences are separate calls: states are published first.

    A kind says in `_encode` how the encoder runs.
    """

    max_batch = SIZES[-1]

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        graphs: bool = True,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise UserError(f"PyTorch cannot be imported ({error}). Run: pip install 'vlfau-stream[train]'") from None
        super().__init__(_device(device))
        on_gpu = self._at.type == "cuda"
        self.precision = precision or ("fp16" if on_gpu else "fp32")
        types = {"fp32": torch.float32, "bf16": torch.bfloat16, **({"fp16": torch.float16} if on_gpu else {})}
        if self.precision not in types:
            raise UserError(f"PyTorch on {self._at.type} runs {', '.join(types)}, not {self.precision}.")
        if threads is not None or not on_gpu:
            torch.set_num_threads(cpu_threads(threads))
        self._network = load_network(bundle, self._at, types[self.precision])
        shape = (bundle.manifest.side, bundle.manifest.side, 3)
        self._buckets = Buckets(
            lambda inputs: self._encode(inputs["crops"]),
            lambda size: {"crops": ((size, *shape), torch.uint8)},
            self._at,
            graphs=graphs,
        )
        self._sentences: Sentences | None = None
        if bundle.has_captions:
            self._sentences = Sentences(self._network, self._at, types[self.precision], graphs=graphs and on_gpu)

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        keep = MEMORY if self._sentences is not None else ()
        with self._torch.inference_mode():
            host, kept = self._buckets({"crops": crops}, len(crops), ["log_odds"], keep)
        return {**host, **kept}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._sentences is None:
            raise no_captions()
        return dict(self._sentences(memory, active, rows))

    def close(self) -> None:
        self._buckets.close()
        self._sentences = None

    def _encode(self, crops: torch.Tensor) -> Tensors:
        """Crops of one bucket -> log_odds and the MEMORY entries."""
        raise NotImplementedError


def load_network(bundle: Bundle, device: torch.device, precision: torch.dtype) -> AUNetwork:
    """The trained network, frozen, channels last."""
    import torch

    from ..networks import build
    from ..tensors import load_tensors

    weights = load_tensors(bundle.path("weights.safetensors"))
    try:
        network = build(bundle.manifest.network)
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # what is missing in `network`, or does not fit
        raise UserError(
            f"The network that {bundle.folder / MANIFEST} describes cannot be built or does not fit the weights "
            f"({first_line(error)}). Export the bundle again."
        ) from error
    network = network.eval().to(device).to(precision).to(memory_format=torch.channels_last)
    network.requires_grad_(False)
    return network


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name.lower())
    except RuntimeError:
        raise UserError(f"PyTorch does not know the device '{name}'. Choose cpu or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"PyTorch sees no CUDA GPU here, so '{name}' cannot be used. Use the CPU.")
    return torch.device("cuda:0") if device.type == "cuda" and device.index is None else device
