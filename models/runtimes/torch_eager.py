"""The reference: the bundle's own weights in the modules that were trained. On a GPU in half precision and CUDA graphs.

States and sentences are separate calls, so that states are published first. Tokens stay on the device until all are
spoken; once per chunk of words the host reads one flag, whether all rows have ended. The captured path has not run on a
GPU yet; its plain twin has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY, Bundle
from ..errors import UserError
from .cuda_buckets import SIZES, Buckets
from .graphs import cpu_threads
from .speaking import Words

if TYPE_CHECKING:
    import torch

    from ..networks.base import AUNetwork


class Torch:
    name = "torch"
    max_batch = SIZES[-1]

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
        try:
            import torch
        except ImportError as error:
            raise UserError(f"PyTorch cannot be imported ({error}). Run: pip install 'vlfau-stream[train]'") from None
        self._torch = torch
        self._at = _device(device)
        on_gpu = self._at.type == "cuda"
        self.device = f"{self._at} {torch.cuda.get_device_name(self._at)}" if on_gpu else "CPU"
        self.precision = precision or ("fp16" if on_gpu else "fp32")
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, **({"fp16": torch.float16} if on_gpu else {})}
        if self.precision not in kinds:
            raise UserError(f"PyTorch on {self._at.type} runs {', '.join(kinds)} here, not {self.precision}.")
        if threads is not None or not on_gpu:
            torch.set_num_threads(cpu_threads(threads))
        self._kind = kinds[self.precision]
        self._network = load_network(bundle, self._at, self._kind)
        encode: Any = self._encode
        if compiled:
            encode = torch.compile(self._encode, dynamic=False)
        shape = (bundle.manifest.side, bundle.manifest.side, 3)
        self._buckets = Buckets(encode, lambda size: {"crops": ((size, *shape), torch.uint8)}, self._at, graphs=graphs)
        self._words = Words(self._network, graphs=graphs and on_gpu) if bundle.has_captions else None

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        keep = MEMORY if self._words is not None else ()
        with self._torch.inference_mode():
            host, kept = self._buckets({"crops": crops}, len(crops), ["log_odds"], keep)
        return {**host, **kept}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._words is None:
            raise UserError("This bundle has no captions. Export a network with sentences, or ask for none.")
        given = self._torch.from_numpy(np.ascontiguousarray(active)).to(self._at, self._kind)
        asked = self._torch.from_numpy(np.ascontiguousarray(rows)).to(self._at)
        with self._torch.inference_mode():
            local, whole = self._words(memory, given, asked)
        return {"local_tokens": local, "global_tokens": whole}

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        chosen = self._torch.tensor(list(faces), device=self._at)
        return {name: memory[name][chosen] for name in MEMORY}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {name: self._torch.cat([part[name] for part in parts]) for name in MEMORY}

    def close(self) -> None:
        self._buckets.close()
        self._words = None

    def _encode(self, given: dict[str, Any]) -> dict[str, Any]:
        encoded = self._network.encode(given["crops"])
        found = {"log_odds": encoded.log_odds.float()}
        if self._network.has_captions:
            found |= dict(zip(MEMORY, encoded.memory))
        return found


def load_network(bundle: Bundle, device: torch.device, kind: torch.dtype) -> AUNetwork:
    """The trained network, channels last; normalisation of the pixels stays in FP32."""
    import torch

    from ..networks import build
    from ..tensors import load_tensors

    network = build(bundle.manifest.network)
    network.load_state_dict(load_tensors(bundle.path("weights.safetensors")))
    network = network.eval().to(device)
    buffers = dict(network.stem.named_buffers(recurse=False))
    network = network.to(kind).to(memory_format=torch.channels_last)
    for name, value in buffers.items():
        setattr(network.stem, name, value)

    def narrow(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(one.to(kind).contiguous(memory_format=torch.channels_last) for one in given)

    network.stem.body.register_forward_pre_hook(narrow)
    network.requires_grad_(False)
    return network


def _device(asked: str | None) -> torch.device:
    import torch

    if asked is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked.lower())
    except RuntimeError:
        raise UserError(f"PyTorch does not know the device '{asked}'. Choose cpu or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"PyTorch sees no CUDA GPU here, so '{asked}' cannot be used. Use the CPU.")
    return torch.device("cuda:0") if device.type == "cuda" and device.index is None else device
