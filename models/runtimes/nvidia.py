"""TensorRT, classic (10.x, 11.x) and RTX, driven by one module: they share their Python interface.

Networks are strongly typed: FP16 is written into the ONNX, INT8 and FP8 are Q/DQ nodes in it. Building with RTX needs
no GPU and has run; executing has not run on a GPU yet. Engines lie beside the bundle, named by all they depend on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, embedded
from ..errors import UserError, unknown
from ..runtime import MEMORY
from .cache import cache_folder
from .cuda_buckets import Buckets
from .graphs import QUANTISED, encoder_file, require_quantised

if TYPE_CHECKING:
    from .torch_eager import Words

FLAVOURS = ("tensorrt", "tensorrt_rtx")  # the first that is installed
# Static shapes beat dynamic ones for Swin (NVIDIA/TensorRT 4294) and the sentences are an engine too, as long as
# bench/gpu_report.py, which times both alternatives of each, has not said otherwise on a GPU.
BUCKETS = (1, 2, 4, 8, 16)
SHAPES, SPEAKERS = ("static", "profile"), ("engine", "torch")
PRECISIONS = ("fp16", "fp32", "int8", "fp8")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Flavour:
    """One installed TensorRT."""

    module: Any
    name: str  # "tensorrt" or "tensorrt_rtx"

    @property
    def version(self) -> str:
        return str(self.module.__version__)


def flavour(asked: str | None = None) -> Flavour:
    """The installed one, or the one asked for."""
    reasons = []
    for name in [asked] if asked else FLAVOURS:
        try:
            module = import_module(name)
            if hasattr(module, "Builder"):  # the classic wheel without its libraries imports as an empty shell
                return Flavour(module, name)
            reasons.append(f"{name}: its libraries are missing")
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise UserError(
        f"TensorRT cannot be imported ({'; '.join(reasons)}). Run: pip install 'vlfau-stream[tensorrt]', "
        "or [tensorrt-rtx] for RTX cards."
    )


def unavailable() -> str | None:
    """Why this runtime cannot be used here, without importing anything heavy; None when it can be tried."""
    if not any(find_spec(name) for name in FLAVOURS):
        return "neither tensorrt nor tensorrt_rtx is installed"
    if gpu_count() == 0:
        return "no NVIDIA GPU"
    return None if find_spec("torch") else "it keeps its buffers with torch, which is not installed"


def gpu_count() -> int:
    """Asked from the driver itself: no library is needed for it."""
    import ctypes

    for name in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def engine_path(
    bundle: Bundle,
    part: str,
    used: Flavour,
    capability: str,
    precision: str,
    size: int | str,
    folder: Path | None = None,
) -> Path:
    """Rebuilt when runtime, version, compute capability, precision or the bundle differ, since each is in the name."""
    name = f"{part}-{used.name}-{used.version}-{capability}-{precision}-b{size}-{bundle.checksum}.engine"
    return (folder or engine_folder(bundle)) / name


def engine_folder(bundle: Bundle) -> Path:
    """Beside the bundle; for the one inside the package, or where nothing can be written, in the user's cache."""
    beside = bundle.folder / "engines"
    if beside.is_dir() or (bundle.folder != embedded() and os.access(bundle.folder, os.W_OK)):
        return beside
    return cache_folder("engines") or beside


def graph_bytes(bundle: Bundle, part: str, precision: str) -> bytes:
    """The ONNX that is parsed, in the precision asked for."""
    if precision in QUANTISED:
        if part == "encoder":
            require_quantised(bundle, precision)
            return bundle.path(encoder_file(precision)).read_bytes()
        precision = bundle.manifest.precision  # captions are never quantised
    from ..rewriting import graph_in

    return graph_in(bundle, f"{part}.onnx", precision)


def build_engine(
    used: Flavour,
    graph: bytes,
    sizes: dict[str, int],
    *,
    most: int | None = None,
    capability: str | None = None,
    progress: Progress | None = None,
) -> bytes:
    """`sizes` fixes symbolic axes by name ("N", "n", "R"); with `most` the batch stays open, from 1 to `most`.
    `capability` "sm89" builds for a GPU that is not here."""
    trt = used.module
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # later versions know nothing else
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_fixed(graph, sizes) if most is None else graph):
        errors = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise UserError(f"{used.name} {used.version} cannot read this graph: {errors}. Try --runtime torch.")
    config = builder.create_builder_config()
    if most is not None:
        config.add_optimization_profile(_profile(builder, network, most))
    if capability is not None:
        if not hasattr(config, "set_compute_capability"):
            raise UserError(f"{used.name} {used.version} builds only for the GPU it runs on. Leave the capability out.")
        known = {name.lower(): value for name, value in trt.ComputeCapability.__members__.items()}
        if capability not in known:
            raise UserError(f"{used.name} {used.version} cannot build for {capability}; it knows {', '.join(known)}.")
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(known[capability], 0):
            raise UserError(f"{used.name} {used.version} refused to build for {capability}.")
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    plan = builder.build_serialized_network(network, config)
    if progress is not None:
        progress("")
    if plan is None:
        raise UserError(f"{used.name} {used.version} could not build the engine. Try another --precision.")
    return bytes(plan)


def _profile(builder: Any, network: Any, most: int) -> Any:
    """Any batch up to `most`, tuned for one face."""
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        given = network.get_input(i)
        least, largest = ([size if axis < 0 else axis for axis in given.shape] for size in (1, most))
        profile.set_shape(given.name, least, least, largest)
    return profile


def _fixed(graph: bytes, sizes: dict[str, int]) -> bytes:
    """Symbolic axes get their numbers before parsing, so that every shape computation folds away."""
    import onnx

    model = onnx.load_from_string(graph)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in sizes:
                axis.dim_value = sizes[axis.dim_param]  # clears the name
    for value in model.graph.input:
        left = [axis.dim_param for axis in value.type.tensor_type.shape.dim if axis.dim_param]
        if left:
            raise UserError(f"Input {value.name} has unknown axes {left}. Export the bundle again.")
    return bytes(model.SerializeToString())


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"{phase_name} {step + 1}/{self._steps.get(phase_name, 0)}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def compile_part(
    bundle: Bundle,
    part: str,
    used: Flavour,
    capability: str,
    precision: str,
    size: int,
    *,
    folder: Path | None = None,
    elsewhere: bool = False,
    shapes: str = "static",
    progress: Progress | None = None,
) -> Path:
    """The engine file, built if it is not there: for `size` faces, with a "profile" for 1 to `size` (encoders only).
    `elsewhere`: for a GPU that this machine does not have."""
    wide = shapes == "profile"
    path = engine_path(bundle, part, used, capability, precision, f"1to{size}" if wide else size, folder)
    if path.is_file():
        return path
    graph = graph_bytes(bundle, part, precision)
    units = len(bundle.manifest.units)
    sizes = {"N": size, "n": size, "R": size * units}
    target = capability if elsewhere else None
    plan = build_engine(used, graph, sizes, most=size if wide else None, capability=target, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(plan)
    os.replace(partial, path)
    return path


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
            from .torch_eager import Words, load_network

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


def show_progress(line: str) -> None:
    """One line that is written over; it goes when the engine is there."""
    print(f"\r\033[K{f'building the engine: {line}' if line else ''}", end="", file=sys.stderr, flush=True)
