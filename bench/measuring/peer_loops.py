"""Common alternatives, each as its documentation shows it: one frame after the other through one library.

    PYTHONPATH=bench python -m measuring.peer_loops PEER CLIP BEGAN [--model FILE] [--limit SECONDS]

`peers.py` starts one process for each peer; it prints one JSON line. BEGAN is the unix time at which the process was
started. Latency runs from a decoded frame to its result: such a loop has no capture and no subscriber.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring.facts import peak_mb
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) BGR, as OpenCV gives it
Look = Callable[[Picture, int], int]  # frame and its time in ms -> number of faces

SIDE = 224
HAAR_SIDE = 320  # of the image that the cascade sees; at full size it would take most of the time


def haar() -> Callable[[Picture], list[NDArray[np.float64]]]:
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"))

    def find(picture: Picture) -> list[NDArray[np.float64]]:
        factor = max(picture.shape[:2]) / HAAR_SIDE
        small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        rows = cascade.detectMultiScale(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), 1.1, 4)
        return [np.array([x, y, x + w, y + h]) * factor for x, y, w, h in rows]

    return find


def scrfd(model: Path) -> Callable[[Picture], list[NDArray[np.float64]]]:
    """insightface's own class and defaults."""
    from insightface.model_zoo import get_model

    detector = get_model(str(model), providers=["CPUExecutionProvider"])
    detector.prepare(ctx_id=-1, input_size=(640, 640))
    return lambda picture: [row[:4].astype(np.float64) for row in detector.detect(picture)[0]]


def swin(find: Callable[[Picture], list[NDArray[np.float64]]]) -> Look:
    """ME-GraphAU's network with its Swin-Base stem, in eager PyTorch. Random weights: time does not depend on them."""
    import torch

    from vlfau.models.data.datasets import BP4D
    from vlfau.models.networks.graphau import GraphAU

    network = GraphAU(BP4D.units).eval()

    @torch.inference_mode()
    def look(picture: Picture, _: int) -> int:
        crops = [cut(picture, box) for box in find(picture)]
        if crops:
            network.encode(torch.from_numpy(np.stack(crops))).log_odds.numpy()
        return len(crops)

    return look


def cut(picture: Picture, box: NDArray[np.float64]) -> Picture:
    """A square around the box, as (SIDE, SIDE, 3) RGB."""
    centre, half = (box[:2] + box[2:]) / 2, 0.6 * float((box[2:] - box[:2]).max())
    (x0, y0), (x1, y1) = np.maximum(centre - half, 0).astype(int), (centre + half).astype(int)
    part = picture[y0:y1, x0:x1]
    return np.asarray(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[:, :, ::-1], np.uint8)


def detection(model: Path) -> Look:
    find = scrfd(model)
    return lambda picture, _: len(find(picture))


def mediapipe(model: Path) -> Look:
    """The face landmarker with blendshapes, in video mode, which tracks faces."""
    import mediapipe as mp
    from mediapipe.tasks.python.core.base_options import BaseOptions
    from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions, RunningMode

    options = FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        running_mode=RunningMode.VIDEO,
        output_face_blendshapes=True,
    )
    landmarker = FaceLandmarker.create_from_options(options)

    def look(picture: Picture, at_ms: int) -> int:
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture[:, :, ::-1]))
        return len(landmarker.detect_for_video(image, at_ms).face_blendshapes)

    return look


def pyfeat() -> Look:
    """py-feat's default detector; its models must be in its cache already."""
    from feat import Detector  # type: ignore[import-not-found]

    detector: Any = Detector(device="cpu")

    def look(picture: Picture, _: int) -> int:
        rgb = np.ascontiguousarray(picture[:, :, ::-1])
        faces = detector.detect_faces(rgb)
        landmarks = detector.detect_landmarks(rgb, faces)
        detector.detect_aus(rgb, landmarks)
        return len(faces[0])

    return look


def open_peer(name: str, model: Path | None) -> Look:
    path = model or Path()
    match name:
        case "swin-haar":
            return swin(haar())
        case "swin-scrfd":
            return swin(scrfd(path))
        case "insightface":
            return detection(path)
        case "mediapipe":
            return mediapipe(path)
        case "py-feat":
            return pyfeat()
        case _:
            raise SystemExit(f"There is no peer '{name}'.")


def loop(clip: Path, look: Look, began: float, limit_s: float) -> dict[str, Any]:
    video = cv2.VideoCapture(str(clip))
    latencies: list[float] = []
    faces = 0
    first = start_s = 0.0
    while True:
        more, picture = video.read()
        if not more or (len(latencies) > 1 and time.perf_counter() - first > limit_s):
            break
        at = time.perf_counter()
        faces += look(picture, round(video.get(cv2.CAP_PROP_POS_MSEC)))
        latencies.append(1e3 * (time.perf_counter() - at))
        if len(latencies) == 1:
            first, start_s = time.perf_counter(), time.time() - began
    last = time.perf_counter()
    video.release()
    p50, p95 = np.percentile(latencies[1:] or latencies, (50, 95))
    return {
        "fps": (len(latencies) - 1) / (last - first),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "faces": faces / len(latencies),
        "frames": len(latencies),
        "start_s": start_s,
        "peak_mb": peak_mb(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("clip", type=Path)
    parser.add_argument("began", type=float)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    print(json.dumps(loop(options.clip, open_peer(options.peer, options.model), options.began, options.limit)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
