"""Frames -> aligned faces with ids: when the detector runs, how its finds and the followed faces come together.

The landmark network looks at every face in every frame and says whether it still is one; the detector only looks for
faces that nobody follows. Pairing over time is `follow.py`, the networks are vlfau.models'.
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

APART = 0.3  # a detector's box that overlaps a followed face more than this holds that face

SEARCH_S = 0.1  # while a face is missing, the detector looks so often; it costs more than all the rest of a frame
# A followed face may fall this far below the threshold for a new one, so that a hand or a turn does not end it at once.
KEEP = 0.6


class Landmarks(Protocol):
    threshold: float  # presence at and above which it is a face

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located: ...


@dataclass
class Watch:
    """What is known about one stream from frame to frame."""

    tracker: Tracker
    size: tuple[int, int] = (0, 0)  # height, width
    now: float = 0.0  # seconds, never backwards
    last_pts: float | None = None
    detected: float = float("-inf")  # when the detector last ran
    frames: int = 0
    missing: bool = True  # a face was lost and not found again yet

    def advance(self, pts: float) -> None:
        """A clock that jumps moves our time by one usual frame."""
        step = 0.0 if self.last_pts is None else pts - self.last_pts
        self.now += step if 0 <= step < 10 else 0.04
        self.last_pts = pts


@dataclass(eq=False)
class Candidates:
    """Faces of one frame before anybody says whose they are."""

    points: list[NDArray[np.float32]] = field(default_factory=list)  # (68, 2)
    scores: list[float] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)

    def add(self, located: Located, origin: Sequence[int], threshold: float) -> None:
        for points, presence, who in zip(located.points, located.presence, origin):
            if presence >= (threshold * KEEP if who >= 0 else threshold):
                self.points.append(points)
                self.scores.append(float(presence))
                self.origin.append(who)


class FaceFinder:
    """All streams of one stage. Used on one thread."""

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
        self.keep_pixels = keep_pixels  # else a picture goes as soon as its faces are cut out; it is most of the memory
        self.settings, self.detector, self.landmarks, self.side = settings, detector, landmarks, side
        self._stills = set(stills)
        self._watches: dict[str, Watch] = {}

    def find(self, frames: Sequence[Frame]) -> Iterator[Faces]:
        """One frame each of different streams. Those that need the detector share one call of it."""
        watches = [self._prepare(frame) for frame in frames]
        due = [i for i, (frame, watch) in enumerate(zip(frames, watches)) if self._due(frame, watch)]
        finds = dict(zip(due, self._detect([frames[i] for i in due]))) if due else {}
        for i in due:
            watches[i].detected = watches[i].now
        for i, (frame, watch) in enumerate(zip(frames, watches)):
            yield self._faces(frame, watch, finds.get(i))

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
        """(P, 4) boxes per frame, in its pixels."""
        views, corners = zip(*(self._looked_at(frame.pixels) for frame in frames))
        found = self.detector.find(views)
        return [detections.boxes + np.tile(corner, 2) for detections, corner in zip(found, corners)]

    def _looked_at(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The part of the picture inside --roi, and where its corner is."""
        if not self.settings.roi:
            return pixels, np.zeros(2, np.float32)
        x0, y0, x1, y1 = region(self.settings.roi, pixels.shape[0], pixels.shape[1])
        return pixels[y0:y1, x0:x1], np.array([x0, y0], np.float32)

    def _faces(self, frame: Frame, watch: Watch, finds: NDArray[np.float32] | None) -> Faces:
        candidates = self._candidates(frame, watch, finds)
        points, scores, origin = self._choose(frame, candidates)
        landmarks = five_points(points)
        aligning = time.monotonic_ns()
        crops = align(frame.pixels, landmarks, self.side)
        boxes = box_of(points)
        tracks = watch.tracker.update(Seen(boxes, looks(crops), origin), watch.now)
        if (tracks < 0).any():
            sure = tracks >= 0
            tracks, boxes, points, landmarks = tracks[sure], boxes[sure], points[sure], landmarks[sure]
            scores, crops = scores[sure], crops[sure]
        watch.missing = _missing(watch)
        poses = head_pose(points, frame.pixels.shape[1], frame.pixels.shape[0])
        good = quality(landmarks, poses, crops, share_inside(points, frame.pixels.shape[1], frame.pixels.shape[0]))
        done = time.monotonic_ns()
        return Faces(
            frame.stamp,
            tracks=tracks,
            boxes=boxes,
            landmarks=landmarks,
            scores=scores,
            poses=poses,
            quality=good,
            valid=good >= self.settings.min_quality,
            crops=crops,
            detect_ms=(aligning - frame.stamp.monotonic_ns) / 1e6,
            align_ms=(done - aligning) / 1e6,
            ready_ns=done,
            pixels=frame.pixels if self.keep_pixels else None,
        )

    def _candidates(self, frame: Frame, watch: Watch, finds: NDArray[np.float32] | None) -> Candidates:
        tracker = watch.tracker
        expected, ids = tracker.expected(watch.now), [track.id for track in tracker.tracks]
        reappearing = tracker.reappearing(watch.now)
        fresh = apart_from(reappearing if finds is None else np.concatenate([finds, reappearing]), expected)
        candidates = Candidates()
        self._locate(frame, np.concatenate([expected, fresh]), [*ids, *[-1] * len(fresh)], candidates)
        lost = set(ids) - set(candidates.origin)
        if lost:  # look at once where it went
            if finds is None and not self.settings.detect_every:
                finds, watch.detected = self._detect([frame])[0], watch.now
            if finds is not None:
                known = box_of(np.stack(candidates.points)) if candidates.points else np.empty((0, 4), np.float32)
                again = apart_from(finds, known)
                self._locate(frame, again, [-1] * len(again), candidates)
        return candidates

    def _locate(self, frame: Frame, boxes: NDArray[np.float32], origin: Sequence[int], candidates: Candidates) -> None:
        if len(boxes):
            candidates.add(self.landmarks.locate(frame.pixels, boxes), origin, self.landmarks.threshold)

    def _choose(
        self, frame: Frame, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Points (F, 68, 2), scores (F,) and origins (F,) of the faces that count."""
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
    """The stage. Frames that wait from different streams go together."""
    for group in waiting(items, limit=streams):
        while group:
            frames = _one_each(group)
            if frames:
                yield from finder.find(frames)
            while group and isinstance(ended := group[0], Ended):
                yield ended
                del group[0]


def _one_each(group: list[Frame | Ended]) -> list[Frame]:
    """Takes frames of different streams off the front, up to the first that has one already or has ended."""
    frames: list[Frame] = []
    while group:
        item = group[0]
        if isinstance(item, Ended) or any(frame.stamp.stream == item.stamp.stream for frame in frames):
            break
        frames.append(item)
        group.pop(0)
    return frames


def _missing(watch: Watch) -> bool:
    """A face went a moment ago; later the regular scan finds it."""
    return any(watch.now - track.seen < 1 for track in watch.tracker.lost)


def apart_from(boxes: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of the boxes that hold none of the known faces."""
    if not len(boxes) or not len(known):
        return boxes
    alone = np.array([iou(box, known).max() < APART for box in boxes])
    return np.asarray(boxes[alone])


def region(roi: tuple[float, ...], height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels, inside the picture and never empty."""
    if not roi:
        return 0, 0, width, height
    x0, y0, x1, y1 = (v * n for v, n in zip(roi, (width, height) * 2)) if max(roi) <= 1 else roi
    left, top = int(np.clip(x0, 0, width - 1)), int(np.clip(y0, 0, height - 1))
    return left, top, int(np.clip(x1, left + 1, width)), int(np.clip(y1, top + 1, height))
