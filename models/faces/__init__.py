"""Picture -> faces: which detector to use, and the one shape in which all of them answer. Follows nobody over time.

`embedded` needs no download and finds faces with what the package carries (`embedded.py`), `insightface` runs
a user's SCRFD model (`scrfd.py`), `yunet` a user's YuNet file through OpenCV. Points beyond these five are found by
`landmarks.py`, tracks are the engine's.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError, unknown
from .base import Detector
from .scrfd import _insightface_file, _insightface_on_disk, _scrfd_file
from .yunet import YuNet

CHOICES = ("auto", "embedded", "insightface", "yunet")


def open_detector(
    choice: str = "auto",
    model: Path | str | None = None,
    *,
    size: int | None = None,
    threshold: float | None = None,
    device: str | None = None,
) -> Detector:
    """`model` is a file or folder for insightface, a file for yunet; `size` the longer side of what is looked at."""
    if choice not in CHOICES:
        raise unknown("detector", choice, CHOICES)
    path = Path(model).expanduser() if model is not None else None
    if choice == "auto":
        if path is not None:
            raise UserError(
                f"A detector model ({path}) was given without saying whose it is. Add --detector insightface or yunet."
            )
        found, why = _insightface_on_disk()
        if found is None:
            return _embedded(size, threshold, f"embedded detector, because {why}")
        return _scrfd(found, size, threshold, device, f"insightface, because its model {found} is on this machine")
    if choice == "embedded":
        if path is not None:
            raise UserError(
                f"The embedded detector takes no model file, got {path}. Choose insightface or yunet for it."
            )
        return _embedded(size, threshold, "embedded detector, as asked")
    if choice == "insightface":
        found = _scrfd_file(path) if path is not None else _insightface_file()
        return _scrfd(found, size, threshold, device, f"insightface, as asked, model {found}")
    if path is None:
        raise UserError(
            "Detector 'yunet' needs its model file. Get face_detection_yunet_*.onnx from OpenCV's model zoo "
            "and name it with --detector-model."
        )
    return YuNet(path, size or 320, 0.6 if threshold is None else threshold)


def _embedded(size: int | None, threshold: float | None, reason: str) -> Detector:
    from .embedded import EmbeddedDetector

    return EmbeddedDetector(size, threshold, reason)


def _scrfd(path: Path, size: int | None, threshold: float | None, device: str | None, reason: str) -> Detector:
    from .scrfd import Scrfd

    return Scrfd(path, size or 640, 0.5 if threshold is None else threshold, device, reason)
