"""Opens face detectors by name: `embedded` comes with the package, `insightface` and `yunet` run a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, unknown

if TYPE_CHECKING:
    from .base import Detector

CHOICES = ("auto", "embedded", "insightface", "yunet")  # read by --help, which loads no detector


def open_detector(
    choice: str = "auto",
    model: Path | str | None = None,
    *,
    size: int | None = None,
    threshold: float | None = None,
    device: str | None = None,
) -> Detector:
    """`model` is a file or folder for insightface, a file for yunet; `size` the longer side of the detector's input."""
    if choice not in CHOICES:
        raise unknown("detector", choice, CHOICES)
    path = Path(model).expanduser() if model is not None else None
    if choice == "auto":
        if path is not None:
            raise UserError(
                f"A detector model ({path}) was given without its kind. Add --detector insightface or yunet."
            )
        from .scrfd import model_on_disk

        file, why = model_on_disk()
        if file is None:
            return _embedded(size, threshold, f"embedded detector, because {why}")
        return _scrfd(file, size, threshold, device, f"insightface, because its model {file} is on this machine")
    if choice == "embedded":
        if path is not None:
            raise UserError(
                f"The embedded detector takes no model file, got {path}. Choose insightface or yunet for it."
            )
        return _embedded(size, threshold, "embedded detector, as requested")
    if choice == "insightface":
        from .scrfd import model_file

        file = model_file(path)
        return _scrfd(file, size, threshold, device, f"insightface, as requested, model {file}")
    if path is None:
        raise UserError(
            "Detector 'yunet' needs its model file. Get face_detection_yunet_*.onnx from OpenCV's model zoo "
            "and name it with --detector-model."
        )
    from .yunet import YuNet

    return YuNet(path, size or 320, 0.6 if threshold is None else threshold)


def _embedded(size: int | None, threshold: float | None, reason: str) -> Detector:
    from .embedded import EmbeddedDetector

    return EmbeddedDetector(size, threshold, reason)


def _scrfd(path: Path, size: int | None, threshold: float | None, device: str | None, reason: str) -> Detector:
    from .scrfd import Scrfd

    return Scrfd(path, size or 640, 0.5 if threshold is None else threshold, device, reason)
