"""`vlfau-stream --check`: prints what is installed and which runtimes open, and tests bundle, detector and video."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.runtimes import RUNTIMES
from vlfau.models.terminal import FAILED, OK, plain

from ..settings import EngineSettings

T = TypeVar("T")

PACKAGES = ("vlfau-stream", "numpy", "opencv-python", "av", "openvino", "onnxruntime", "torch", "tensorrt", "pyzmq")


def check(settings: EngineSettings) -> int:
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        print(f"{package} {_version(package)}")
    bundle = _step("bundle", lambda: _bundle(settings))
    good = [bundle is not None]
    if bundle is not None:
        good.append(_step("runtimes", lambda: _runtimes(bundle)) is not None)
        good.append(_step("self-test", lambda: _selftest(settings, bundle)) is not None)
    good.append(_step("detector", lambda: _detector(settings)) is not None)
    good.append(_step("video", _video) is not None)
    print("all good" if all(good) else "something failed, see above")
    return OK if all(good) else FAILED


def _step(name: str, do: Callable[[], tuple[T, str]]) -> T | None:
    """Runs one check and prints its result, or why it failed. Returns None if it failed."""
    began = time.perf_counter()
    try:
        result, message = do()
    except UserError as error:
        print(f"{name}: FAILED: {plain(error, lines=True)}")
        return None
    except Exception as error:  # reporting failures is the purpose of this command
        print(f"{name}: FAILED: {type(error).__name__}: {plain(error, lines=True)}")
        return None
    print(f"{name}: {plain(message, lines=True)} ({(time.perf_counter() - began) * 1e3:.0f} ms)")
    return result


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _bundle(settings: EngineSettings) -> tuple[Bundle, str]:
    bundle = open_bundle(settings.predict.model)
    manifest = bundle.manifest
    return bundle, (
        f"{plain(manifest.name)}, {len(manifest.units)} action units, crops of {manifest.side} pixels, "
        f"{manifest.precision}, "
        f"{'with' if bundle.has_captions else 'without'} sentences, verified"
    )


def _runtimes(bundle: Bundle) -> tuple[list[str], str]:
    """Opens every runtime, and lists why those that do not open are not used."""
    from vlfau.models.runtimes import open_runtime

    names: list[str] = []
    lines: list[str] = []
    for name in RUNTIMES[1:]:
        try:
            with open_runtime(bundle, name) as runtime:
                names.append(name)
                lines.append(f"\n  {name}: {runtime.description}")
        except UserError as error:
            lines.append(f"\n  {name}: not used: {plain(error)}")
    if not names:
        raise UserError("no runtime can run this bundle." + "".join(lines))
    return names, "".join(lines) + "\n "


def _selftest(settings: EngineSettings, bundle: Bundle) -> tuple[bool, str]:
    from vlfau.models.runtimes import open_runtime

    with open_runtime(bundle, settings.predict.runtime, device=settings.predict.device) as runtime:
        worst = runtime.prove()
        return True, f"{runtime.description} reproduces the stored answer of the bundle, log-odds within {worst:.2g}"


def _detector(settings: EngineSettings) -> tuple[bool, str]:
    from vlfau.models.faces import open_detector
    from vlfau.models.faces.landmarks import open_landmarks

    faces = settings.faces
    detector = open_detector(faces.detector, faces.detector_model, size=faces.detector_size)
    empty = np.full((240, 320, 3), 128, np.uint8)
    count = len(detector.find([empty])[0])
    open_landmarks().locate(empty, np.array([[100.0, 60, 220, 180]]))
    if count:
        raise UserError(f"{detector.reason} finds {count} faces in a grey picture.")
    return True, detector.reason


def _video() -> tuple[bool, str]:
    """Encodes and decodes a few pictures in memory, as sources and --render do."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for shade in (40, 120, 200):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), "rgb24")))
        output.mux(stream.encode())
    buffer.seek(0)
    from ..sources.decoding import Decoder

    with Decoder(buffer) as decoder:
        shades = [int(picture.pixels.mean()) for picture in decoder]
    if not np.allclose(shades, (40, 120, 200), atol=6):
        raise UserError(f"H.264 returns other pictures than were written: {shades}.")
    return True, f"H.264 is written and read, PyAV {av.__version__}"
