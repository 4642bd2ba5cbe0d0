"""Gives faces stable ids over time, through misses, crossings and short absences.

A track expects its face where its motion so far leads. As long as every face comes from the box of its own track and
nothing overlaps, that is all. Otherwise all known faces, including those lost a moment ago, are paired with all visible
ones by position, size and looks, at the lowest total cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vlfau.models.faces.boxes import iou

from .assignment import assign

LOOKS_SIDE = 12  # pixels; enough for hair, skin, beard and glasses, too few for an expression
CROWDED = 0.05  # overlap at which faces may be mistaken for each other ...
STILL_CROWDED_S = 0.7  # ... and for this long afterwards
SAME = 0.45  # overlap at which two boxes hold the same face
NEW = 0.9  # the cost of calling a face new
COAST_S = 0.6  # a lost face is expected to keep moving for this long
DOUBTED = 3  # frames for which a face that appears in a crowd must be seen before it counts as new
ABSENT_S = 0.15  # a face lost for longer must be recognised by its looks


@dataclass(slots=True, eq=False)
class Track:
    id: int
    box: NDArray[np.float32]  # (4,) last seen
    looks: NDArray[np.float32]  # running mean of its descriptors
    seen: float  # seconds
    velocity: NDArray[np.float32]  # (2,) pixels a second
    crowded: float = float("-inf")  # when it was last close to another
    frames: int = 1

    def expected(self, now: float) -> NDArray[np.float32]:
        shift = self.velocity * np.float32(min(max(now - self.seen, 0.0), COAST_S))
        return np.asarray(self.box + np.concatenate([shift, shift]))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The N faces of one frame, each from the box of a track or from the detector."""

    boxes: NDArray[np.float32]  # (N, 4)
    looks: NDArray[np.float32]  # (N, D)
    origin: NDArray[np.int64]  # (N,) id of the track whose box it came from, -1 for the detector

    def touched(self) -> NDArray[np.bool_]:
        """(N,) whether the box of another face overlaps it."""
        overlaps = [np.delete(iou(box, self.boxes), i) for i, box in enumerate(self.boxes)]
        return np.array([others.size > 0 and others.max() > CROWDED for others in overlaps], bool)

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(slots=True, eq=False)
class Doubt:
    """An unconfirmed face that appeared close to others: a new one, or parts of two."""

    box: NDArray[np.float32]
    frames: int = 1


class Tracker:
    """The tracks of one stream. Times are seconds of the video."""

    def __init__(self, memory_s: float = 5.0) -> None:
        self.memory_s = memory_s
        self.tracks: list[Track] = []  # seen in the last frame
        self.lost: list[Track] = []
        self.next_id = 0
        self._doubts: list[Doubt] = []

    def reset(self) -> None:
        """Ends all tracks; their ids are not used again."""
        self.tracks, self.lost, self._doubts = [], [], []

    def rescale(self, factors: NDArray[np.float32]) -> None:
        """The frame size has changed by these factors in (x, y)."""
        for track in (*self.tracks, *self.lost):
            track.box = (track.box.reshape(2, 2) * factors).reshape(4).astype(np.float32)
            track.velocity = np.asarray(track.velocity * factors, np.float32)

    def expected(self, now: float) -> NDArray[np.float32]:
        """(T, 4) boxes of the tracks that were seen in the last frame."""
        boxes = [track.expected(now) for track in self.tracks]
        return np.stack(boxes) if boxes else np.empty((0, 4), np.float32)

    def reappearing(self, now: float) -> NDArray[np.float32]:
        """(L, 4) where recently lost faces may reappear, and unconfirmed ones."""
        boxes = [track.expected(now) for track in self.lost if 0 <= now - track.seen <= COAST_S]
        boxes += [doubt.box for doubt in self._doubts]
        return np.stack(boxes) if boxes else np.empty((0, 4), np.float32)

    def update(self, seen: Seen, now: float) -> NDArray[np.int64]:
        """The ids of the faces seen now, -1 for unconfirmed ones. A face not seen for `memory_s` is forgotten."""
        crowded = self._mark_crowds(seen, now)
        own = {track.id: track for track in self.tracks}
        if not crowded and len(seen) == len(own) and set(seen.origin.tolist()) == set(own):
            matches: list[Track | None] = [own[int(origin)] for origin in seen.origin]
        else:
            matches = self._pair(seen, now)
        ids = np.full(len(seen), -1, np.int64)
        here: list[Track] = []
        before, self._doubts = self._doubts, []
        for i, track in enumerate(matches):
            if track is None and crowded and not self._confirmed(seen.boxes[i], before):
                continue
            if track is None:
                track = Track(self.next_id, seen.boxes[i], seen.looks[i], now, np.zeros(2, np.float32))
                self.next_id += 1
            else:
                _move(track, seen.boxes[i], now)
                _learn(track, seen.looks[i], now)
            here.append(track)
            ids[i] = track.id
        visible = {track.id for track in here}
        missing = [track for track in (*self.tracks, *self.lost) if track.id not in visible]
        self.lost = [track for track in missing if 0 <= now - track.seen <= self.memory_s]
        self.tracks = here
        return ids

    def _confirmed(self, box: NDArray[np.float32], before: list[Doubt]) -> bool:
        """Whether a new face in a crowd has been seen for long enough."""
        frames = 1 + max((d.frames for d in before if iou(box, d.box[None])[0] > SAME), default=0)
        if frames < DOUBTED:
            self._doubts.append(Doubt(box, frames))
        return frames >= DOUBTED

    def _mark_crowds(self, seen: Seen, now: float) -> bool:
        """Whether any face is close to another, or was a moment ago."""
        if len(self.tracks) + len(self.lost) < 2:
            return False
        nearby = [track for track in (*self.tracks, *self.lost) if now - track.seen < STILL_CROWDED_S]
        boxes = np.stack([track.expected(now) for track in nearby]) if nearby else np.empty((0, 4), np.float32)
        for i, track in enumerate(nearby):
            others = np.delete(boxes, i, 0)
            if len(others) and iou(boxes[i], others).max() > CROWDED:
                track.crowded = now
        return any(0 <= now - track.crowded < STILL_CROWDED_S for track in nearby)

    def _pair(self, seen: Seen, now: float) -> list[Track | None]:
        candidates = [*self.tracks, *self.lost]
        if not candidates or not len(seen):
            return [None] * len(seen)
        # a face that overlaps another may be half covered, so its looks count less
        weights = np.where(seen.touched(), 0.6, 1.5)
        costs: NDArray[np.float64] = np.stack([self._costs(t, seen, weights, now) for t in candidates])  # (T, N)
        columns = assign(costs, NEW)
        matches: list[Track | None] = [None] * len(seen)
        for track, column in zip(candidates, columns):
            if column >= 0:
                matches[column] = track
        return matches

    def _costs(self, track: Track, seen: Seen, weights: NDArray[np.floating], now: float) -> NDArray[np.float64]:
        """(N,) how badly each face fits the track; inf where it cannot be the same."""
        absent = max(now - track.seen, 0.0)
        expected = track.expected(now)
        side = float(expected[2] - expected[0])
        sides = np.maximum(seen.boxes[:, 2] - seen.boxes[:, 0], 1e-3)
        offset = (seen.boxes[:, :2] + seen.boxes[:, 2:] - expected[:2] - expected[2:]) / 2
        distance = np.hypot(offset[:, 0], offset[:, 1]) / np.maximum((sides + side) / 2, 1e-3)  # in face widths
        growth = np.abs(np.log(sides / max(side, 1e-3)))
        strange = unlike(track.looks, seen.looks)
        costs = 0.35 * np.minimum(distance, 2) + 0.3 * growth + weights * strange - 0.1 * (seen.origin == track.id)
        near = distance < 1 + 2 * absent
        if absent > ABSENT_S:
            near |= strange < 0.12  # reappeared elsewhere
        return np.where(near & (growth < 0.8 + absent), costs, np.inf)


def looks(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(F, S, S, 3) aligned crops -> (F, D) descriptors of unit length that ignore brightness and contrast."""
    small = [cv2.resize(crop, (LOOKS_SIDE, LOOKS_SIDE), interpolation=cv2.INTER_AREA) for crop in crops]
    flat = np.array(small, np.float32).reshape(len(crops), LOOKS_SIDE * LOOKS_SIDE * 3)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def unlike(one: NDArray[np.float32], many: NDArray[np.float32]) -> NDArray[np.float32]:
    """0 for identical looks, 1 for nothing in common."""
    return np.asarray(1 - many @ one / max(float(np.linalg.norm(one)), 1e-6), np.float32)


def distinct(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> list[int]:
    """Rows that hold different faces, best first."""
    rows: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if not rows or iou(boxes[row], boxes[rows]).max() <= SAME:
            rows.append(row)
    return rows


def _move(track: Track, box: NDArray[np.float32], now: float) -> None:
    passed = now - track.seen
    if 0 < passed < 1:
        step = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2 / np.float32(passed)
        share = np.float32(0.35 if track.frames > 1 else 1.0)
        track.velocity = np.asarray(track.velocity + share * (step - track.velocity), np.float32)
    else:
        track.velocity = np.zeros(2, np.float32)
    track.box, track.seen, track.frames = box, now, track.frames + 1


def _learn(track: Track, seen: NDArray[np.float32], now: float) -> None:
    """Learns the looks slowly, and not in a crowd, where half of a face may belong to another."""
    if 0 <= now - track.crowded < STILL_CROWDED_S:
        return
    share = np.float32(max(1 / track.frames, 0.02))
    track.looks = track.looks + share * (seen - track.looks)
