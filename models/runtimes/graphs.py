"""Which of a bundle's graphs a precision uses, and on how many threads of a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..bundle import MEMORY, Bundle
from ..errors import UserError

INT8_ENCODER, FP8_ENCODER = "encoder.int8.onnx", "encoder.fp8.onnx"
MOST_THREADS = 8  # more do not speed up a network of this size
QUANTISED = {"int8": INT8_ENCODER, "fp8": FP8_ENCODER}


def cpu_threads(requested: int | None) -> int:
    """One core is left to decoding and detection. On two busy cores a face of `compact` took 3-5 ms on one thread and
    6-8 ms on two: threads that wait for each other are slowed down by other programs."""
    return requested or max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))


def encoder_file(precision: str) -> str:
    return QUANTISED.get(precision, "encoder.onnx")


def check_ports(bundle: Bundle, path: Path, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Refuses a graph that does not take and give what its name promises, such as one of two that were exchanged.
    Without captions an encoder need not give the memory."""
    captions = path.name == "caption.onnx"
    takes = {*MEMORY, "active", "rows"} if captions else {"crops"}
    gives = {"local_tokens", "global_tokens"} if captions else {"log_odds", *(MEMORY if bundle.has_captions else ())}
    if not takes >= set(inputs) or not gives <= set(outputs):
        raise UserError(
            f"{path} takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}; expected were "
            f"{', '.join(sorted(takes))} and {', '.join(sorted(gives))}. Export the bundle again."
        )


def has_precision(bundle: Bundle, precision: str) -> bool:
    """Whether the bundle holds a quantised encoder for it."""
    return QUANTISED.get(precision) in bundle.manifest.files


def written_precision(bundle: Bundle, requested: str | None) -> str:
    """For runtimes that compute in the precision of the graph: the bundle's, INT8 only on request."""
    own = bundle.manifest.precision
    if requested is None:
        return own  # ONNX Runtime took 2 to 3 times longer for the Q/DQ graph of `compact` than for FP32
    if requested in QUANTISED:
        require_quantised(bundle, requested)
    elif requested != own:
        raise UserError(
            f"This bundle's graphs are written in {own}, not {requested}. Export it with --precision {requested}, "
            f"or use {own}."
        )
    return requested


def require_quantised(bundle: Bundle, precision: str) -> None:
    if not has_precision(bundle, precision):
        raise UserError(
            f"Bundle {bundle.folder} has no {precision.upper()} encoder. Create it with: vlfau-calibrate {precision} "
            f"{bundle.folder} --pictures FOLDER"
        )
