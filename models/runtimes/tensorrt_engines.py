"""Builds and finds TensorRT engines, which RTX does without a GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..cache import cache_folder
from ..errors import UserError
from ..files import embedded
from .graphs import QUANTISED, encoder_file, require_quantised

FLAVOURS = ("tensorrt", "tensorrt_rtx")  # the first that is installed


Progress = Callable[[str], None]


@dataclass(frozen=True)
class Flavour:
    """One installed TensorRT."""

    module: Any
    name: str  # "tensorrt" or "tensorrt_rtx"

    @property
    def version(self) -> str:
        return str(self.module.__version__)


def flavour(name: str | None = None) -> Flavour:
    """The installed one, or the named one."""
    reasons = []
    for candidate in [name] if name else FLAVOURS:
        try:
            module = import_module(candidate)
            if hasattr(module, "Builder"):  # without its libraries the classic wheel is an empty module
                return Flavour(module, candidate)
            reasons.append(f"{candidate}: its libraries are missing")
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{candidate}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise UserError(
        f"TensorRT cannot be imported ({'; '.join(reasons)}). Run: pip install 'vlfau-stream[tensorrt]', "
        "or [tensorrt-rtx] for RTX cards."
    )


def unavailable() -> str | None:
    """The reason why it cannot be used here, or None if it can be tried; imports nothing heavy."""
    if not any(find_spec(name) for name in FLAVOURS):
        return "neither tensorrt nor tensorrt_rtx is installed"
    if gpu_count() == 0:
        return "no NVIDIA GPU"
    return None if find_spec("torch") else "torch, which holds its buffers, is not installed"


def gpu_count() -> int:
    """As reported by the driver; needs no library."""
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
    """Contains all that an engine depends on, so that a change of any of it leads to a new file."""
    name = f"{part}-{used.name}-{used.version}-{capability}-{precision}-b{size}-{bundle.checksum}.engine"
    return (folder or engine_folder(bundle)) / name


def engine_folder(bundle: Bundle) -> Path:
    """Next to the bundle; for the embedded one, or if nothing can be written there, in the user's cache."""
    beside = bundle.folder / "engines"
    if beside.is_dir() or (bundle.folder != embedded() and os.access(bundle.folder, os.W_OK)):
        return beside
    return cache_folder("engines") or beside


def graph_bytes(bundle: Bundle, part: str, precision: str) -> bytes:
    """The ONNX to parse, in the requested precision."""
    if precision in QUANTISED:
        if part == "encoder":
            require_quantised(bundle, precision)
            return bundle.path(encoder_file(precision)).read_bytes()
        precision = bundle.manifest.precision  # captions are never quantised
    from .rewriting import graph_in

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
    `capability`, such as "sm89", builds for a GPU that is not in this machine."""
    trt = used.module
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = getattr(
        trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None
    )  # absent in later versions, which have no other mode
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
            raise UserError(f"{used.name} {used.version} builds only for the GPU it runs on. Leave out the capability.")
        capabilities = {name.lower(): value for name, value in trt.ComputeCapability.__members__.items()}
        if capability not in capabilities:
            raise UserError(
                f"{used.name} {used.version} cannot build for {capability}. Choose one of: {', '.join(capabilities)}."
            )
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(capabilities[capability], 0):
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
        value = network.get_input(i)
        least, largest = ([size if axis < 0 else axis for axis in value.shape] for size in (1, most))
        profile.set_shape(value.name, least, least, largest)
    return profile


def _fixed(graph: bytes, sizes: dict[str, int]) -> bytes:
    """Replaces symbolic axes by numbers before parsing, so that all shape computations fold into constants."""
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
    """The engine file, built if it does not exist: for `size` faces, with a "profile" for 1 to `size` (encoders only).
    `elsewhere`: for a GPU that is not in this machine."""
    profile = shapes == "profile"
    path = engine_path(bundle, part, used, capability, precision, f"1to{size}" if profile else size, folder)
    if path.is_file():
        return path
    graph = graph_bytes(bundle, part, precision)
    units = len(bundle.manifest.units)
    sizes = {"N": size, "n": size, "R": size * units}
    target = capability if elsewhere else None
    plan = build_engine(used, graph, sizes, most=size if profile else None, capability=target, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(plan)
    os.replace(partial, path)
    return path


def show_progress(line: str) -> None:
    """A line that is overwritten, and erased when the engine is built."""
    print(f"\r\033[K{f'building the engine: {line}' if line else ''}", end="", file=sys.stderr, flush=True)
