"""Detectors on the same real clips: recall, false faces, landmark error, milliseconds.

    python bench/detectors.py --shared FOLDER [--every 1]

The folder holds real/ (clips, and the points of a face-mesh tracker in every second frame) and detectors/ (SCRFD,
YuNet). Real clips are for measuring only; nothing is fitted on them. A face is found when a box overlaps the square box
of the reference points by more than 0.35. Images without faces are frames of the clips with the face painted out
(OpenCV's inpainting of the mesh's enlarged hull; hair, neck, hands and rooms stay), windows of those at twice the size,
and random shapes. "embedded+tracking" runs the detector only when it has no face and follows the points otherwise, as
the engine does. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from measuring.facts import about, heading, table
from measuring.shared_folder import add_flag, require
from numpy.typing import NDArray

from vlfau.engine.tracking.find import KEEP
from vlfau.models.errors import UserError
from vlfau.models.faces import open_detector
from vlfau.models.faces.align import five_points
from vlfau.models.faces.base import Detections, Detector, no_detections
from vlfau.models.faces.boxes import iou
from vlfau.models.faces.landmarks import LandmarkNet, box_of, open_landmarks

Picture = NDArray[np.uint8]

# The vertices of the 478-point mesh that lie nearest to the 68 points (jaw, brows, nose, eyes, lips). The jaw line
# has no exact partner, so the error of the inner points is a separate column.
MESH_OF_68 = (
    *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 197, 195, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
FOUND = 0.35  # intersection over union


@dataclass
class Score:
    frames: int = 0
    found: int = 0
    extra: int = 0  # boxes beside the face in frames that have one
    empty: int = 0  # images without a face
    false: int = 0  # boxes in those
    seconds: float = 0.0
    pictures: int = 0
    looks: int = 0  # detector calls
    five: list[float] = field(default_factory=list)  # mean error of a face's five points, percent of the eye distance
    inner: list[float] = field(default_factory=list)  # of its 51 points without the jaw
    by_clip: dict[str, float] = field(default_factory=dict)


class Tracked:
    """Runs the detector when it has no face and follows the points otherwise, as the engine's loop does."""

    name, reason = "embedded+tracking", "embedded detector when lost, landmarks in between"

    def __init__(self, detector: Detector, landmarks: LandmarkNet) -> None:
        self.detector, self.landmarks = detector, landmarks
        self.boxes: NDArray[np.float32] = np.empty((0, 4), np.float32)
        self.looks = 0
        self.points: NDArray[np.float32] = np.empty((0, 68, 2), np.float32)

    def find(self, pictures: list[Picture]) -> list[Detections]:
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: Picture) -> Detections:
        if not len(self.boxes):
            self.looks += 1
            self.boxes = self.detector.find([picture])[0].boxes
        located = self.landmarks.locate(picture, self.boxes)
        is_face = located.presence >= self.landmarks.threshold * KEEP
        self.points = located.points[is_face]
        self.boxes = box_of(self.points)
        return Detections(self.boxes, located.presence[is_face], five_points(self.points))


class Cascade:
    """OpenCV's cascade alone, as the baseline."""

    name, reason = "haar", "frontalface_alt2, 320 px, scale 1.1, 4 neighbours"

    def __init__(self) -> None:
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        self.cascade = cv2.CascadeClassifier(str(path))

    def find(self, pictures: list[Picture]) -> list[Detections]:
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: Picture) -> Detections:
        factor = max(1.0, max(picture.shape[:2]) / 320)
        small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        rows = self.cascade.detectMultiScale(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), 1.1, 4)
        squares = np.array(rows, np.float32).reshape(-1, 4) * np.float32(factor)
        boxes = np.concatenate([squares[:, :2], squares[:, :2] + squares[:, 2:]], 1)
        nowhere = np.full((len(squares), 5, 2), np.nan, np.float32)
        return Detections(boxes, np.ones(len(squares), np.float32), nowhere) if len(squares) else no_detections()


def frames(path: Path) -> Iterator[tuple[int, Picture]]:
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield index, frame.to_ndarray(format="rgb24")


def painted_out(picture: Picture, mesh: NDArray[np.float32]) -> Picture:
    """The frame without its face. Painted at a quarter of the size, which is enough for a smooth patch."""
    centre = mesh.mean(0)
    hull = cv2.convexHull(((mesh - centre) * [1.25, 1.3] + centre).astype(np.float32))
    small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    hole = np.zeros(small.shape[:2], np.uint8)
    cv2.fillConvexPoly(hole, np.round(hull / 4).astype(np.int32), 255)
    filled = cv2.inpaint(small, hole, 4, cv2.INPAINT_TELEA)
    large = cv2.resize(filled, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(hole, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)[:, :, None] / 255
    return np.asarray(picture * (1 - mask) + large * mask, np.uint8)


def without_faces(picture: Picture, mesh: NDArray[np.float32], random: np.random.Generator) -> list[Picture]:
    painted = painted_out(picture, mesh)
    height, width = (n // 2 for n in painted.shape[:2])
    y, x = int(random.integers(0, height)), int(random.integers(0, width))
    window = cv2.resize(painted[y : y + height, x : x + width], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    return [painted, np.asarray(window, np.uint8), drawn(random)]


def drawn(random: np.random.Generator, width: int = 640, height: int = 360) -> Picture:
    """Discs and bars on a gradient; drawn differently from the clutter of training."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    a, b, c = random.uniform(0, 255, (3, 3))
    picture = (a * (1 - x)[:, :, None] + b * (x * y)[:, :, None] + c * (x * (1 - y))[:, :, None]).clip(0, 255)
    canvas = picture.astype(np.uint8)
    for _ in range(60):
        colour = tuple(int(v) for v in random.integers(0, 256, 3))
        u, v, r = int(random.integers(0, width)), int(random.integers(0, height)), int(random.exponential(25)) + 2
        if random.random() < 0.5:
            cv2.circle(canvas, (u, v), r, colour, -1, cv2.LINE_AA)
        else:
            p, q = (int(n) for n in random.integers(-80, 80, 2))
            cv2.line(canvas, (u, v), (u + p, v + q), colour, max(1, r // 4), cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), float(random.uniform(0.3, 2))), np.uint8)


def look(detector: Any, picture: Picture, score: Score) -> Detections:
    start = time.perf_counter()
    faces: Detections = detector.find([picture])[0]
    score.seconds += time.perf_counter() - start
    score.pictures += 1
    return faces


def score_frame(
    faces: Detections, truth: NDArray[np.float32], score: Score, points: NDArray[np.float32] | None
) -> bool:
    """One frame against the reference's 68 points; True when the face was faces."""
    score.frames += 1
    overlap = iou(box_of(truth), faces.boxes) if len(faces) else np.zeros(1)
    best = int(overlap.argmax())
    hit = bool(overlap[best] > FOUND)
    score.found += hit
    score.extra += len(faces) - hit
    if hit:
        eyes = float(np.linalg.norm(truth[36] - truth[45]))
        error = np.linalg.norm(faces.landmarks[best] - five_points(truth), axis=1).mean() / eyes * 100
        score.five.append(float(error))
        if points is not None:
            score.inner.append(float(np.linalg.norm(points[best] - truth, axis=1)[17:].mean() / eyes * 100))
    return hit


def measure(shared: Path, every: int, names: list[str]) -> tuple[dict[str, Score], dict[str, str]]:
    reference = np.load(shared / "real" / "reference.npz")
    clips = sorted({key.split(".")[0] for key in reference.files if key.endswith(".frame")})
    landmarks = open_landmarks()
    embedded = open_detector("embedded")
    makers: dict[str, Any] = {
        "embedded": lambda: embedded,
        "embedded+tracking": lambda: Tracked(embedded, landmarks),
        "haar": Cascade,
        "scrfd": lambda: open_detector("insightface", shared / "detectors" / "scrfd_500m_kps.onnx"),
        "yunet": lambda: open_detector("yunet", shared / "detectors" / "yunet_n_640_640.onnx", size=320),
    }
    detectors = {name: makers[name]() for name in names}
    scores = {name: Score() for name in names}
    random = np.random.default_rng(7)
    for clip in clips:
        meshes = dict(zip(reference[f"{clip}.frame"].tolist(), reference[f"{clip}.landmarks"]))
        before = {name: (score.found, score.frames) for name, score in scores.items()}
        for detector in detectors.values():
            if isinstance(detector, Tracked):
                detector.boxes = np.empty((0, 4), np.float32)
        for index, picture in frames(shared / "real" / "clips" / f"{clip}.mp4"):
            size = np.array(picture.shape[1::-1], np.float32)
            mesh = meshes[index][:, :2] * size if index in meshes else None
            for name, detector in detectors.items():
                if isinstance(detector, Tracked):  # it must see every frame
                    faces = look(detector, picture, scores[name])
                    if mesh is not None:
                        score_frame(faces, mesh[list(MESH_OF_68)], scores[name], detector.points)
                elif mesh is not None and index % (2 * every) == 0:
                    faces = look(detector, picture, scores[name])
                    points = landmarks.locate(picture, faces.boxes).points if name == "embedded" else None
                    score_frame(faces, mesh[list(MESH_OF_68)], scores[name], points)
            if mesh is not None and index % (2 * every) == 0:
                for empty in without_faces(picture, mesh, random):
                    for name, detector in detectors.items():
                        if not isinstance(detector, Tracked):
                            scores[name].empty += 1
                            scores[name].false += len(look(detector, empty, scores[name]))
        for name, score in scores.items():
            found_before, frames_before = before[name]
            score.by_clip[clip] = round((score.found - found_before) / max(1, score.frames - frames_before), 3)
        print(clip, {name: score.by_clip[clip] for name, score in scores.items()}, file=sys.stderr, flush=True)
    for name, detector in detectors.items():
        scores[name].looks = detector.looks if isinstance(detector, Tracked) else scores[name].pictures
    return scores, {name: detector.reason for name, detector in detectors.items()}


def summary(score: Score) -> dict[str, Any]:
    def mean(values: list[float]) -> float | None:
        return round(float(np.mean(values)), 2) if values and np.isfinite(values).all() else None

    return {
        "recall": round(score.found / max(1, score.frames), 4),
        "frames": score.frames,
        "extra_boxes": score.extra,
        "false_faces_per_1000": round(1000 * score.false / score.empty, 2) if score.empty else None,
        "empty_pictures": score.empty,
        "five_point_error_percent": mean(score.five),
        "inner_51_error_percent": mean(score.inner),
        "ms_a_picture": round(1000 * score.seconds / max(1, score.pictures), 2),
        "share_of_frames_looked_at": round(score.looks / max(1, score.pictures), 4),
        "recall_by_clip": score.by_clip,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flag(parser)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth reference frame (default: 1)")
    detectors = ["embedded", "embedded+tracking", "haar", "scrfd", "yunet"]
    parser.add_argument("--only", nargs="+", choices=detectors, default=detectors)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        scores, reasons = measure(require(options.shared, "real/reference.npz"), options.every, options.only)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    rows = {name: summary(score) for name, score in scores.items()}
    facts = about("insightface")
    columns = list(next(iter(rows.values())))[:-1]  # recall by clip is in the last line only
    print(heading(facts))
    print("OpenCV on one thread; errors in percent of the distance between the eyes.\n")
    lines = [[name, *("" if row[key] is None else str(row[key]) for key in columns)] for name, row in rows.items()]
    print(table([["detector", *(key.replace("_", " ") for key in columns)], *lines]))
    print(json.dumps({"bench": "detectors", **facts, "rows": rows, "reasons": reasons}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
