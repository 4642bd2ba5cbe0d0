"""Which of a bundle's graphs serves a precision. Runs nothing."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import UserError

INT8_ENCODER, FP8_ENCODER = "encoder.int8.onnx", "encoder.fp8.onnx"
QUANTISED = {"int8": INT8_ENCODER, "fp8": FP8_ENCODER}


def encoder_file(precision: str) -> str:
    return QUANTISED.get(precision, "encoder.onnx")


def has_precision(bundle: Bundle, precision: str) -> bool:
    """Whether the bundle holds a quantised encoder for it."""
    return QUANTISED.get(precision) in bundle.manifest.files


def written_precision(bundle: Bundle, asked: str | None) -> str:
    """For runtimes that compute as the graph is written: INT8 if calibrated, else what the bundle was exported in."""
    own = bundle.manifest.precision
    if asked is None:
        return "int8" if has_precision(bundle, "int8") else own
    if asked in QUANTISED:
        require_quantised(bundle, asked)
    elif asked != own:
        raise UserError(
            f"This bundle's graphs are written in {own}, not {asked}. Export it with --precision {asked}, "
            f"or ask for {own}."
        )
    return asked


def require_quantised(bundle: Bundle, precision: str) -> None:
    if not has_precision(bundle, precision):
        raise UserError(
            f"Bundle {bundle.folder} has no {precision.upper()} encoder. Make it with: vlfau-calibrate {precision} "
            f"{bundle.folder} --pictures FOLDER"
        )
