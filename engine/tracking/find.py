"""The second stage: frames -> aligned faces with ids.

The landmark network locates every followed face in every frame and scores whether it still is one; the detector, which
costs more, only runs to find faces that are not followed yet. `follow.py` gives them stable ids.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlfau.models.faces.align import align, five_points
from vlfau.models.faces.base import Detector
from vlfau.models.faces.boxes import iou
from vlfau.models.faces.landmarks import Located, box_of

from ..packets import Ended, Faces, Frame
from ..pipeline import waiting
from ..settings import FaceSettings
from .follow import Seen, Tracker, distinct, looks
from .pose import head_pose
from .quality import quality, share_inside

APART = 0.3  # a detector's box that overlaps a followed face by more holds that face

SEARCH_S = 0.1  # detection interval while a face is missing; it costs more than the rest of a frame
# A followed face may score this share of the threshold for a new one, so that a hand or a turn does not end it at once.
KEEP = 0.6


class Landmarks(Protocol):
    threshold: float  # presence from which it counts as a face

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located: ...


@dataclass
class Watch:
    """The state of one stream from frame to frame."""

    tracker: Tracker
    size: tuple[int, int] = (0, 0)  # height, width
    now: float = 0.0  # seconds, never goes back
    last_pts: float | None = None
    detected: float = float("-inf")  # when the detector last ran
    frames: int = 0
    missing: bool = True  # a face was lost a moment ago and has not reappeared

    def advance(self, pts: float) -> None:
        """Follows the clock of the video; a jump counts as one usual frame."""
        step = 0.0 if self.last_pts is None else pts - self.last_pts
        self.now += step if 0 <= step < 10 else 0.04
        self.last_pts = pts


@dataclass(eq=False)
class Candidates:
    """Faces of one frame, not yet assigned to tracks."""

    points: list[NDArray[np.float32]] = field(default_factory=list)  # (68, 2)
    scores: list[float] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)  # id of the track whose box it came from, -1 for the detector

    def add(self, located: Located, origin: Sequence[int], threshold: float) -> None:
        for points, presence, track in zip(located.points, located.presence, origin):
            if presence >= (threshold * KEEP if track >= 0 else threshold):
                self.points.append(points)
                self.scores.append(float(presence))
                self.origin.append(track)


class FaceFinder:
    """Finds and follows the faces of several streams. Used on one thread."""

    def __init__(
        self,
        settings: FaceSettings,
        detector: Detector,
        landmarks: Landmarks,
        side: int,
        *,
        stills: Iterable[str] = (),
        keep_pixels: bool = False,
    ) -> None:
        self.keep_pixels = (
            keep_pixels  # otherwise a frame is freed once its faces are cropped; frames take most of the memory
        )
        self.settings, self.detector, self.landmarks, self.side = settings, detector, landmarks, side
        self._stills = set(stills)
        self._watches: dict[str, Watch] = {}

    def find(self, frames: Sequence[Frame]) -> Iterator[Faces]:
        """Frames of different streams, one each. Those that need the detector share one call of it."""
        watches = [self._prepare(frame) for frame in frames]
        due = [i for i, (frame, watch) in enumerate(zip(frames, watches)) if self._due(frame, watch)]
        detections = dict(zip(due, self._detect([frames[i] for i in due]))) if due else {}
        for i in due:
            watches[i].detected = watches[i].now
        for i, (frame, watch) in enumerate(zip(frames, watches)):
            yield self._faces(frame, watch, detections.get(i))

    def _prepare(self, frame: Frame) -> Watch:
        stamp = frame.stamp
        watch = self._watches.get(stamp.stream)
        if watch is None:
            watch = self._watches[stamp.stream] = Watch(Tracker(self.settings.memory))
        watch.advance(stamp.pts)
        watch.frames += 1
        if stamp.stream in self._stills:
            watch.tracker.reset()
        size = frame.pixels.shape[0], frame.pixels.shape[1]
        if watch.size not in (size, (0, 0)):
            watch.tracker.rescale(np.array([size[1] / watch.size[1], size[0] / watch.size[0]], np.float32))
            watch.missing = True
        watch.size = size
        return watch

    def _due(self, frame: Frame, watch: Watch) -> bool:
        every, since = self.settings.detect_every, watch.now - watch.detected
        if frame.stamp.stream in self._stills:
            return True
        if every:
            return (watch.frames - 1) % every == 0
        if len(watch.tracker.tracks) >= self.settings.max_faces:
            return False
        return since >= (SEARCH_S if watch.missing or not watch.tracker.tracks else self.settings.scan) - 1e-6

    def _detect(self, frames: Sequence[Frame]) -> list[NDArray[np.float32]]:
        """Boxes (P, 4) in each frame, in its pixels."""
        views, corners = zip(*(self._searched(frame.pixels) for frame in frames))
        faces = self.detector.find(views)
        return [detections.boxes + np.tile(corner, 2) for detections, corner in zip(faces, corners)]

    def _searched(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The part of the frame inside --roi, and the position of its corner."""
        if not self.settings.roi:
            return pixels, np.zeros(2, np.float32)
        x0, y0, x1, y1 = region(self.settings.roi, pixels.shape[0], pixels.shape[1])
        return pixels[y0:y1, x0:x1], np.array([x0, y0], np.float32)

    def _faces(self, frame: Frame, watch: Watch, detected: NDArray[np.float32] | None) -> Faces:
        candidates = self._candidates(frame, watch, detected)
        points, scores, origin = self._choose(frame, candidates)
        landmarks = five_points(points)
        aligning = time.monotonic_ns()
        crops = align(frame.pixels, landmarks, self.side)
        boxes = box_of(points)
        tracks = watch.tracker.update(Seen(boxes, looks(crops), origin), watch.now)
        if (tracks < 0).any():
            confirmed = tracks >= 0
            tracks, boxes, points = tracks[confirmed], boxes[confirmed], points[confirmed]
            landmarks, scores, crops = landmarks[confirmed], scores[confirmed], crops[confirmed]
        watch.missing = _missing(watch)
        poses = head_pose(points, frame.pixels.shape[1], frame.pixels.shape[0])
        qualities = quality(landmarks, poses, crops, share_inside(points, frame.pixels.shape[1], frame.pixels.shape[0]))
        done = time.monotonic_ns()
        return Faces(
            frame.stamp,
            tracks=tracks,
            boxes=boxes,
            landmarks=landmarks,
            scores=scores,
            poses=poses,
            quality=qualities,
            valid=qualities >= self.settings.min_quality,
            crops=crops,
            detect_ms=(aligning - frame.stamp.monotonic_ns) / 1e6,
            align_ms=(done - aligning) / 1e6,
            ready_ns=done,
            pixels=frame.pixels if self.keep_pixels else None,
        )

    def _candidates(self, frame: Frame, watch: Watch, detected: NDArray[np.float32] | None) -> Candidates:
        tracker = watch.tracker
        expected, ids = tracker.expected(watch.now), [track.id for track in tracker.tracks]
        reappearing = tracker.reappearing(watch.now)
        fresh = apart_from(reappearing if detected is None else np.concatenate([detected, reappearing]), expected)
        candidates = Candidates()
        self._locate(frame, np.concatenate([expected, fresh]), [*ids, *[-1] * len(fresh)], candidates)
        lost = set(ids) - set(candidates.origin)
        if lost:  # search for it at once
            if detected is None and not self.settings.detect_every:
                detected, watch.detected = self._detect([frame])[0], watch.now
            if detected is not None:
                located = box_of(np.stack(candidates.points)) if candidates.points else np.empty((0, 4), np.float32)
                others = apart_from(detected, located)
                self._locate(frame, others, [-1] * len(others), candidates)
        return candidates

    def _locate(self, frame: Frame, boxes: NDArray[np.float32], origin: Sequence[int], candidates: Candidates) -> None:
        if len(boxes):
            candidates.add(self.landmarks.locate(frame.pixels, boxes), origin, self.landmarks.threshold)

    def _choose(
        self, frame: Frame, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Points (F, 68, 2), scores (F,) and origins (F,) of distinct faces that are in --roi and large enough."""
        if not candidates.points:
            return np.empty((0, 68, 2), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
        points = np.stack(candidates.points)
        scores, origin = np.array(candidates.scores, np.float32), np.array(candidates.origin, np.int64)
        boxes = box_of(points)
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0]
        x0, y0, x1, y1 = region(self.settings.roi, frame.pixels.shape[0], frame.pixels.shape[1])
        inside = (centres >= (x0, y0)).all(1) & (centres <= (x1, y1)).all(1)
        ok = np.flatnonzero(inside & (sides >= self.settings.min_face) & np.isfinite(points).all((1, 2)))
        ok = ok[distinct(boxes[ok], scores[ok] + (origin[ok] >= 0))] if len(ok) > 1 else ok  # followed ones first
        if len(ok) > self.settings.max_faces:
            rank = np.lexsort((-sides[ok], origin[ok] < 0))
            ok = ok[rank[: self.settings.max_faces]]
        return points[ok], scores[ok], origin[ok]


def find_faces(
    items: Iterable[Frame | Ended], finder: FaceFinder, *, streams: int = 1
) -> Generator[Faces | Ended, None, None]:
    """The stage. Queued frames of different streams are handled together."""
    for group in waiting(items, limit=streams):
        while group:
            frames = _one_each(group)
            if frames:
                yield from finder.find(frames)
            while group and isinstance(ended := group[0], Ended):
                yield ended
                del group[0]


def _one_each(group: list[Frame | Ended]) -> list[Frame]:
    """Takes frames off the front, up to a second one of the same stream or an end."""
    frames: list[Frame] = []
    while group:
        item = group[0]
        if isinstance(item, Ended) or any(frame.stamp.stream == item.stamp.stream for frame in frames):
            break
        frames.append(item)
        group.pop(0)
    return frames


def _missing(watch: Watch) -> bool:
    """Whether a face was lost a moment ago. One lost for longer is left to the regular scan."""
    return any(watch.now - track.seen < 1 for track in watch.tracker.lost)


def apart_from(boxes: NDArray[np.float32], faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """The boxes that hold none of these faces."""
    if not len(boxes) or not len(faces):
        return boxes
    alone = np.array([iou(box, faces).max() < APART for box in boxes])
    return np.asarray(boxes[alone])


def region(roi: tuple[float, ...], height: int, width: int) -> tuple[int, int, int, int]:
    """--roi in pixels, inside the frame and never empty."""
    if not roi:
        return 0, 0, width, height
    x0, y0, x1, y1 = (v * n for v, n in zip(roi, (width, height) * 2)) if max(roi) <= 1 else roi
    left, top = int(np.clip(x0, 0, width - 1)), int(np.clip(y0, 0, height - 1))
    return left, top, int(np.clip(x1, left + 1, width)), int(np.clip(y1, top + 1, height))
