"""TensorRT, classic (10.x, 11.x) and RTX, which share their Python interface. Untested on a GPU; engines are built.

Networks are strongly typed: FP16 is written into the ONNX, INT8 and FP8 are Q/DQ nodes in it. Engines are stored next
to the bundle, named by all they depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY, Bundle
from ..errors import UserError, unknown
from .base import no_captions
from .cuda_buckets import Buckets, Tensors
from .on_torch import OnTorch, load_network
from .speaking import Sentences
from .tensorrt_engines import compile_part, flavour, gpu_count, show_progress

if TYPE_CHECKING:
    import torch

# Static shapes beat dynamic ones for Swin (NVIDIA/TensorRT 4294), and the sentences are an engine, too, unless
# bench/gpu_report.py, which times both alternatives of each, shows otherwise on a GPU.
BUCKETS = (1, 2, 4, 8, 16)
SHAPES, SPEAKERS = ("static", "profile"), ("engine", "torch")
PRECISIONS = ("fp16", "fp32", "int8", "fp8")

Engines = dict[int, tuple[Any, Any]]  # size -> engine and execution context


class TensorRT(OnTorch):
    """Runs engines; torch holds the buffers, the stream and the CUDA graph of each whole enqueue."""

    name = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        precision: str | None = None,
        sizes: Sequence[int] = BUCKETS,
        folder: Path | None = None,
        flavour_name: str | None = None,
        shapes: str = "static",
        speaker: str = "engine",
    ) -> None:
        """`shapes` of the encoder and `speaker` of the sentences are what the GPU report compares."""
        for name, value, choices in (("shapes", shapes, SHAPES), ("speaker", speaker, SPEAKERS)):
            if value not in choices:
                raise unknown(name, value, choices)
        at = _device(device)
        self._flavour = flavour(flavour_name)
        super().__init__(at)
        self._torch.cuda.set_device(at)
        self.name, self.precision, self.max_batch = self._flavour.name, precision or "fp16", max(sizes)
        if self.precision not in PRECISIONS:
            raise UserError(f"TensorRT runs {', '.join(PRECISIONS)}, not {self.precision}.")
        self._bundle, self._sizes, self._folder = bundle, tuple(sizes), folder
        self._units = len(bundle.manifest.units)
        self._logger = self._flavour.module.Logger(self._flavour.module.Logger.ERROR)
        self._runtime = self._flavour.module.Runtime(self._logger)
        self._encoder = self._encoder_buckets(shapes)
        self._captions: Buckets | None = None
        self._sentences: Sentences | None = None
        if bundle.has_captions and speaker == "torch":
            half_or_single = self._torch.float16 if self.precision == "fp16" else self._torch.float32
            network = load_network(bundle, at, half_or_single)
            self._sentences = Sentences(network, at, half_or_single, graphs=True)
        elif bundle.has_captions:
            self._captions = self._caption_buckets()

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        keep = MEMORY if self._bundle.has_captions else ()
        host, kept = self._encoder({"crops": crops}, len(crops), ["log_odds"], keep)
        return {**host, **kept}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._sentences is not None:
            return dict(self._sentences(memory, active, rows))
        if self._captions is None:
            raise no_captions()
        faces = len(active)
        # An engine of n faces describes all of their units; the requested rows are then picked. The others cost little:
        # a step is bound by launches, not by arithmetic.
        every = np.argwhere(np.ones((faces, self._units), bool))
        inputs = {**{name: memory[name] for name in MEMORY}, "active": active, "rows": every}
        host, _ = self._captions(inputs, faces, ["local_tokens", "global_tokens"])
        picked = rows[:, 0] * self._units + rows[:, 1]
        return {"local_tokens": host["local_tokens"][picked], "global_tokens": host["global_tokens"]}

    def close(self) -> None:
        self._encoder.close()
        if self._captions is not None:
            self._captions.close()
        self._sentences = None

    # ---- engines

    def _encoder_buckets(self, shapes: str) -> Buckets:
        if shapes == "static":
            engines = self._engines("encoder", self.precision)
        else:
            engine, _ = self._load(self._compiled("encoder", self.precision, max(self._sizes), shapes))
            # one context per size: a captured graph must not see the shapes of another
            engines = {size: (engine, engine.create_execution_context()) for size in self._sizes}
        side, kind = self._bundle.manifest.side, self._torch.uint8
        return Buckets(
            partial(self._enqueue, engines, "crops"),
            lambda size: {"crops": ((size, side, side, 3), kind)},
            self._at,
            sizes=self._sizes,
        )

    def _caption_buckets(self) -> Buckets:
        engines = self._engines("caption", "fp16" if self.precision == "fp16" else self._bundle.manifest.precision)
        return Buckets(
            partial(self._enqueue, engines, "visual"),
            lambda size: self._input_shapes(engines[size][0]),
            self._at,
            sizes=self._sizes,
        )

    def _engines(self, part: str, precision: str) -> Engines:
        return {size: self._load(self._compiled(part, precision, size)) for size in self._sizes}

    def _compiled(self, part: str, precision: str, size: int, shapes: str = "static") -> Path:
        major, minor = self._torch.cuda.get_device_capability(self._at)
        return compile_part(
            self._bundle,
            part,
            self._flavour,
            f"sm{major}{minor}",
            precision,
            size,
            folder=self._folder,
            shapes=shapes,
            progress=show_progress,
        )

    def _load(self, path: Path) -> tuple[Any, Any]:
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise UserError(f"{self.name} refuses {path.name}. Delete the file and compile again.")
        return engine, engine.create_execution_context()

    def _enqueue(self, engines: Engines, sized_by: str, inputs: Tensors) -> Tensors:
        """Queues the engine for as many faces as the input `sized_by` has. Capturable, since shapes are fixed."""
        engine, context = engines[len(inputs[sized_by])]
        names, outputs = self._names(engine)
        for name in names:
            context.set_input_shape(name, tuple(inputs[name].shape))
            context.set_tensor_address(name, inputs[name].data_ptr())
        results = {}
        for name in outputs:
            shape = tuple(context.get_tensor_shape(name))
            results[name] = self._torch.empty(shape, dtype=self._dtype(engine, name), device=self._at)
            context.set_tensor_address(name, results[name].data_ptr())
        context.execute_async_v3(self._torch.cuda.current_stream(self._at).cuda_stream)
        return results

    def _names(self, engine: Any) -> tuple[list[str], list[str]]:
        """Inputs, outputs"""
        inputs = self._flavour.module.TensorIOMode.INPUT
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return (
            [name for name in names if engine.get_tensor_mode(name) == inputs],
            [name for name in names if engine.get_tensor_mode(name) != inputs],
        )

    def _input_shapes(self, engine: Any) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        inputs, _ = self._names(engine)
        return {name: (tuple(engine.get_tensor_shape(name)), self._dtype(engine, name)) for name in inputs}

    def _dtype(self, engine: Any, name: str) -> torch.dtype:
        kinds, own = self._flavour.module.DataType, self._torch
        types: dict[Any, torch.dtype] = {
            kinds.FLOAT: own.float32,
            kinds.HALF: own.float16,
            kinds.INT64: own.int64,
            kinds.INT32: own.int32,
            kinds.UINT8: own.uint8,
        }
        return types[engine.get_tensor_dtype(name)]


def _device(name: str | None) -> torch.device:
    if gpu_count() == 0:
        raise UserError("TensorRT needs an NVIDIA GPU, and the driver shows none. Use --runtime openvino.")
    if name is not None and not name.lower().startswith("cuda"):
        raise UserError(f"TensorRT runs on cuda:N, not on '{name}'. Leave out --device, or use openvino.")
    import torch

    return torch.device(name.lower() if name and ":" in name else "cuda:0")
