"""`vlfau-stream --check`: what this installation is, what it can do, and whether it works. Prints; changes nothing."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from vlfau.models.bundle import Bundle, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.terminal import FAILED, OK

from ..settings import RUNTIMES, EngineSettings

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
    print("all good" if all(good) else "something is missing, see above")
    return OK if all(good) else FAILED


def _step(name: str, do: Callable[[], tuple[T, str]]) -> T | None:
    """Runs one check and prints its answer, or why it failed; None if it did."""
    began = time.perf_counter()
    try:
        found, said = do()
    except UserError as error:
        print(f"{name}: FAILED: {error}")
        return None
    except Exception as error:  # whatever breaks here is the answer that was asked for
        print(f"{name}: FAILED: {type(error).__name__}: {error}")
        return None
    print(f"{name}: {said} ({(time.perf_counter() - began) * 1e3:.0f} ms)")
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _bundle(settings: EngineSettings) -> tuple[Bundle, str]:
    bundle = open_bundle(settings.predict.model)
    manifest = bundle.manifest
    return bundle, (
        f"{manifest.name}, {len(manifest.units)} action units, crops of {manifest.side} pixels, {manifest.precision}, "
        f"{'with' if bundle.has_captions else 'without'} sentences, verified"
    )


def _runtimes(bundle: Bundle) -> tuple[list[str], str]:
    """Opens each; the reasons of those that do not open are the answer to "why is it not used"."""
    from vlfau.models.runtimes import open_runtime

    found: list[str] = []
    said: list[str] = []
    for name in RUNTIMES[1:]:
        try:
            with open_runtime(bundle, name) as runtime:
                found.append(name)
                said.append(f"\n  {name}: {runtime.description}")
        except UserError as error:
            said.append(f"\n  {name}: not used: {error}")
    if not found:
        raise UserError("no runtime can run this bundle." + "".join(said))
    return found, "".join(said) + "\n "


def _selftest(settings: EngineSettings, bundle: Bundle) -> tuple[bool, str]:
    from vlfau.models.runtimes import open_runtime

    with open_runtime(bundle, settings.predict.runtime, device=settings.predict.device) as runtime:
        worst = runtime.prove()
        return True, f"{runtime.description} repeats the bundle's stored answer, log-odds within {worst:.2g}"


def _detector(settings: EngineSettings) -> tuple[bool, str]:
    from vlfau.models.faces import open_detector
    from vlfau.models.faces.landmarks import open_landmarks

    faces = settings.faces
    detector = open_detector(faces.detector, faces.detector_model, size=faces.detector_size)
    empty = np.full((240, 320, 3), 128, np.uint8)
    found = len(detector.find([empty])[0])
    open_landmarks().locate(empty, np.array([[100.0, 60, 220, 180]]))
    if found:
        raise UserError(f"{detector.reason} finds {found} faces in a grey picture.")
    return True, detector.reason


def _video() -> tuple[bool, str]:
    """Writes and reads a few pictures in memory, which is what every source and --render need."""
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
        raise UserError(f"H.264 gives back other pictures than were written: {shades}.")
    return True, f"H.264 is written and read, PyAV {av.__version__}"
