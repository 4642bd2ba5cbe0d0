"""Runs a network at a few fixed batch sizes, each captured once as a CUDA graph: one launch instead of hundreds.

Shared by the runtimes of NVIDIA GPUs. Without a GPU the same code pads, runs and cuts without graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

SIZES = (1, 2, 4, 8, 16, 32)
Tensors = dict[str, Any]  # of torch tensors


def bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest size that holds `count`."""
    return next(size for size in sizes if size >= count)


@dataclass(eq=False)
class Slot:
    """One size: its buffers and its graph."""

    inputs: Tensors  # device
    staged: Tensors  # pinned host memory, written by the caller's thread
    results: Tensors
    landed: Tensors  # pinned host memory, where fetched results arrive
    graph: Any = None


class Buckets:
    """`run` maps device tensors to device tensors and must not look at values on the host."""

    def __init__(
        self,
        run: Callable[[Tensors], Tensors],
        shapes: Callable[[int], dict[str, tuple[tuple[int, ...], torch.dtype]]],
        device: torch.device,
        *,
        sizes: Sequence[int] = SIZES,
        graphs: bool = True,
    ) -> None:
        """`shapes(size)` names the inputs of a bucket: name -> (shape, type)."""
        import torch

        self._torch, self._run, self._shapes, self.device, self.sizes = torch, run, shapes, device, tuple(sizes)
        self._on_gpu = device.type == "cuda"
        self._graphs = graphs and self._on_gpu
        self._stream: Any = torch.cuda.Stream(device) if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._slots: dict[int, Slot] = {}

    def __call__(
        self, inputs: Tensors, count: int, fetch: Sequence[str], keep: Sequence[str] = ()
    ) -> tuple[dict[str, NDArray[Any]], Tensors]:
        """Arrays or device tensors of `count` rows -> fetched results as arrays, kept ones on the device."""
        torch = self._torch
        size = bucket(count, self.sizes)
        slot = self._slot(size)
        if self._on_gpu:  # inputs may be written on another stream
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with self._streamed():
            for name in slot.inputs:
                value = inputs[name]
                rows = len(value)
                if isinstance(value, torch.Tensor):
                    slot.inputs[name][:rows].copy_(value, non_blocking=True)
                else:
                    np.copyto(slot.staged[name].numpy()[:rows], value)
                    slot.inputs[name][:rows].copy_(slot.staged[name][:rows], non_blocking=True)
            if slot.graph is not None:
                slot.graph.replay()
            else:
                slot.results = self._run(slot.inputs)
            # A result may have several rows per face.
            whole = {name: slot.results[name] for name in (*fetch, *keep)}
            cut = {name: value[: len(value) * count // size] for name, value in whole.items()}
            host = {name: self._landing(slot, name).narrow(0, 0, len(cut[name])) for name in fetch}
            for name, place in host.items():
                place.copy_(cut[name], non_blocking=True)
            fetched = torch.cuda.Event() if self._on_gpu else None
            if fetched is not None:
                fetched.record(self._stream)
            # The next call writes the same memory: what is kept is copied on the device, while the host waits.
            kept = {name: cut[name].clone() for name in keep}
        if fetched is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
            fetched.synchronize()
        return {name: value.numpy().copy() for name, value in host.items()}, kept  # the next call writes there, too

    def close(self) -> None:
        self._slots.clear()
        if self._on_gpu:
            self._torch.cuda.synchronize(self.device)

    def _slot(self, size: int) -> Slot:
        if size in self._slots:
            return self._slots[size]
        torch = self._torch
        inputs, staged = {}, {}
        with self._streamed():
            for name, (shape, kind) in self._shapes(size).items():
                inputs[name] = torch.zeros(shape, dtype=kind, device=self.device)
                staged[name] = torch.zeros(shape, dtype=kind, pin_memory=self._on_gpu)
        slot = Slot(inputs, staged, {}, {})
        if self._graphs:
            with self._streamed(), torch.inference_mode():
                for _ in range(3):  # libraries choose their algorithms and allocate before the capture
                    self._run(inputs)
                self._stream.synchronize()
                slot.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(slot.graph, stream=self._stream):
                    slot.results = self._run(inputs)
        self._slots[size] = slot
        return slot

    def _landing(self, slot: Slot, name: str) -> Any:
        """As large as the whole result, so that it is allocated once."""
        if name not in slot.landed:
            whole = slot.results[name]
            slot.landed[name] = self._torch.empty(whole.shape, dtype=whole.dtype, pin_memory=self._on_gpu)
        return slot.landed[name]

    def _streamed(self) -> Any:
        from contextlib import nullcontext

        return self._torch.cuda.stream(self._stream) if self._on_gpu else nullcontext()
