"""TensorRT, classic (10.x, 11.x) and RTX, driven by one module: they share their Python interface.

Networks are strongly typed: FP16 is written into the ONNX, INT8 and FP8 are Q/DQ nodes in it. Building with RTX needs
no GPU and has run; executing has not run on a GPU yet. Engines lie beside the bundle, named by all they depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY, Bundle
from ..errors import UserError, unknown
from .cuda_buckets import Buckets
from .tensorrt_engines import compile_part, flavour, gpu_count, show_progress

if TYPE_CHECKING:
    from .speaking import Words

# Static shapes beat dynamic ones for Swin (NVIDIA/TensorRT 4294) and the sentences are an engine too, as long as
# bench/gpu_report.py, which times both alternatives of each, has not said otherwise on a GPU.
BUCKETS = (1, 2, 4, 8, 16)
SHAPES, SPEAKERS = ("static", "profile"), ("engine", "torch")
PRECISIONS = ("fp16", "fp32", "int8", "fp8")


class TensorRT:
    """Executor over engines; torch holds the buffers, the stream and the CUDA graphs round each whole enqueue."""

    name = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        precision: str | None = None,
        sizes: Sequence[int] = BUCKETS,
        folder: Path | None = None,
        asked: str | None = None,
        shapes: str = "static",
        speaker: str = "engine",
    ) -> None:
        """`asked` names a flavour; `shapes` of the encoder and `speaker` of the sentences are what the GPU report
        compares."""
        for name, value, known in (("shapes", shapes, SHAPES), ("speaker", speaker, SPEAKERS)):
            if value not in known:
                raise unknown(name, value, known)
        if gpu_count() == 0:
            raise UserError("TensorRT needs an NVIDIA GPU, and the driver shows none. Use --runtime openvino.")
        if device is not None and not device.lower().startswith("cuda"):
            raise UserError(f"TensorRT runs on cuda:N, not on '{device}'. Leave --device out, or use openvino.")
        used = flavour(asked)
        import torch

        self._torch, self._used = torch, used
        self._at = torch.device(device.lower() if device and ":" in device else "cuda:0")
        torch.cuda.set_device(self._at)
        major, minor = torch.cuda.get_device_capability(self._at)
        capability = f"sm{major}{minor}"
        self.name, self.device = used.name, f"{self._at} {torch.cuda.get_device_name(self._at)}"
        self.precision, self.max_batch = precision or "fp16", max(sizes)
        if self.precision not in PRECISIONS:
            raise UserError(f"TensorRT runs {', '.join(PRECISIONS)}, not {self.precision}.")
        self._units = len(bundle.manifest.units)
        self._logger = used.module.Logger(used.module.Logger.ERROR)
        self._runtime = used.module.Runtime(self._logger)

        def engines(part: str, kind: str) -> dict[int, Any]:
            found = {}
            for size in sizes:
                path = compile_part(bundle, part, used, capability, kind, size, folder=folder, progress=show_progress)
                found[size] = self._load(path)
            return found

        if shapes == "profile":
            path = compile_part(
                bundle,
                "encoder",
                used,
                capability,
                self.precision,
                max(sizes),
                folder=folder,
                shapes=shapes,
                progress=show_progress,
            )
            encoders = dict.fromkeys(sizes, self._load(path))
            # a context of its own for each size: a captured graph must not see another one's shapes
            encoders = {size: (engine, engine.create_execution_context()) for size, (engine, _) in encoders.items()}
        else:
            encoders = engines("encoder", self.precision)
        side = bundle.manifest.side
        self._encoder = Buckets(
            lambda given: self._enqueue(encoders[len(given["crops"])], given),
            lambda size: {"crops": ((size, side, side, 3), torch.uint8)},
            self._at,
            sizes=sizes,
        )
        self._caption: Buckets | None = None
        self._words: Words | None = None
        if bundle.has_captions and speaker == "torch":
            from .speaking import Words
            from .torch_eager import load_network

            self._kind_of_words = torch.float16 if self.precision == "fp16" else torch.float32
            self._words = Words(load_network(bundle, self._at, self._kind_of_words), graphs=True)
        elif bundle.has_captions:
            speakers = engines("caption", "fp16" if self.precision == "fp16" else bundle.manifest.precision)
            self._caption = Buckets(
                lambda given: self._enqueue(speakers[len(given["visual"])], given),
                lambda size: self._caption_shapes(speakers[size][0]),
                self._at,
                sizes=sizes,
            )

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        keep = () if self._caption is None and self._words is None else MEMORY
        host, kept = self._encoder({"crops": crops}, len(crops), ["log_odds"], keep)
        return {**host, **kept}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._words is not None:
            kind, torch = self._kind_of_words, self._torch
            with torch.inference_mode():
                local, whole = self._words(
                    {name: memory[name].to(kind) for name in MEMORY},
                    torch.from_numpy(np.ascontiguousarray(active)).to(self._at, kind),
                    torch.from_numpy(np.ascontiguousarray(rows)).to(self._at),
                )
            return {"local_tokens": local, "global_tokens": whole}
        if self._caption is None:
            raise UserError("This bundle has no captions. Export a network with sentences, or ask for none.")
        faces = len(active)
        # An engine of n faces describes all of their units; the rows asked for are then picked. Rows that nobody asked
        # for cost little: a step is bound by launches, not by arithmetic.
        every = np.argwhere(np.ones((faces, self._units), bool))
        given = {**{name: memory[name] for name in MEMORY}, "active": active, "rows": every}
        host, _ = self._caption(given, faces, ["local_tokens", "global_tokens"])
        picked = rows[:, 0] * self._units + rows[:, 1]
        return {"local_tokens": host["local_tokens"][picked], "global_tokens": host["global_tokens"]}

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        chosen = self._torch.tensor(list(faces), device=self._at)
        return {name: memory[name][chosen] for name in MEMORY}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {name: self._torch.cat([part[name] for part in parts]) for name in MEMORY}

    def close(self) -> None:
        self._encoder.close()
        if self._caption is not None:
            self._caption.close()
        self._words = None

    def _load(self, path: Path) -> tuple[Any, Any]:
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise UserError(f"{self.name} refuses {path.name}. Delete the file and compile again.")
        return engine, engine.create_execution_context()

    def _enqueue(self, loaded: tuple[Any, Any], given: dict[str, Any]) -> dict[str, Any]:
        """Queues the engine on the current stream; capturable, since shapes are fixed."""
        trt, (engine, context) = self._used.module, loaded
        results = {}
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in inputs:
            context.set_input_shape(name, tuple(given[name].shape))
            context.set_tensor_address(name, given[name].data_ptr())
        for name in set(names) - set(inputs):
            shape = tuple(context.get_tensor_shape(name))
            results[name] = self._torch.empty(shape, dtype=self._kind(engine, name), device=self._at)
            context.set_tensor_address(name, results[name].data_ptr())
        context.execute_async_v3(self._torch.cuda.current_stream(self._at).cuda_stream)
        return results

    def _caption_shapes(self, engine: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        trt = self._used.module
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        return {name: (tuple(engine.get_tensor_shape(name)), self._kind(engine, name)) for name in inputs}

    def _kind(self, engine: Any, name: str) -> Any:
        known, torch = self._used.module.DataType, self._torch
        kinds = {
            known.FLOAT: torch.float32,
            known.HALF: torch.float16,
            known.INT64: torch.int64,
            known.INT32: torch.int32,
            known.UINT8: torch.uint8,
        }
        return kinds[engine.get_tensor_dtype(name)]
