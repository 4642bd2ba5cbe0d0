"""People who walk through a synthetic picture, and a landmark network and a detector that know where they are.

Errors of real networks are added on purpose: the detector occasionally misses a face, hidden faces are not seen, and
the landmark network locates the visible face nearest to the centre of its box.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlfau.engine.packets import Frame, Stamp
from vlfau.engine.settings import FaceSettings
from vlfau.engine.tracking.find import FaceFinder
from vlfau.engine.tracking.pose import MEAN_FACE
from vlfau.models.faces.align import five_points
from vlfau.models.faces.base import Detections
from vlfau.models.faces.boxes import iou
from vlfau.models.faces.landmarks import Located, box_of

FACE = 80.0  # pixels, the larger extent of the points
HIDDEN = 0.35  # overlap with a nearer person above which a face is hidden


def mean_points() -> NDArray[np.float32]:
    """(68, 2) around zero, larger extent 1: the points that pose needs where the mean face has them, others around."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * 0.45
    points[0], points[16], points[8], points[24] = (-0.5, 0), (0.5, 0), (0, 0.5), (0, -0.5)
    rigid = MEAN_FACE[:, 0].astype(int)
    points[rigid] = (MEAN_FACE[:, 1:3] - (0, 30)) / 150
    for eye, corner, other in ((slice(36, 42), 36, 39), (slice(42, 48), 42, 45)):
        ends = points[corner].copy(), points[other].copy()
        points[eye] = (ends[0] + ends[1]) / 2
        points[corner], points[other] = ends
    return points.astype(np.float32)


POINTS = mean_points()


@dataclass
class Walk:
    start: tuple[float, float]  # centre at time 0
    velocity: tuple[float, float]  # pixels per second
    identity: int
    nearness: float = 0.0  # the nearer person hides others
    absent: tuple[float, float] = (9e9, 9e9)  # from and until when, in seconds, this person is absent

    def centre(self, t: float) -> NDArray[np.float64]:
        return np.array(self.start) + np.array(self.velocity) * t

    def points(self, t: float) -> NDArray[np.float32]:
        return (self.centre(t) + POINTS * FACE).astype(np.float32)


def texture(identity: int) -> NDArray[np.uint8]:
    """(112, 112, 3): the appearance of this person."""
    coarse = np.random.default_rng(identity).integers(30, 225, (7, 7, 3)).astype(np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)


@dataclass
class World:
    """The truth, the picture, and both networks."""

    people: Sequence[Walk]
    width: int = 640
    height: int = 480
    miss_rate: float = 0.1
    threshold: float = 0.5
    name: str = "synthetic"
    reason: str = "synthetic"
    landmarks: None = None
    t: float = 0.0
    detections: int = 0
    located: int = 0
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    _seen: tuple[float, list[Walk]] | None = None

    def visible(self) -> list[Walk]:
        if self._seen is None or self._seen[0] != self.t:
            self._seen = self.t, self._visible()
        return self._seen[1]

    def _visible(self) -> list[Walk]:
        here = [p for p in self.people if not p.absent[0] <= self.t < p.absent[1]]
        visible = []
        for person in here:
            box = box_of(person.points(self.t))
            before = [p for p in here if p.nearness > person.nearness]
            inside = 0 <= person.centre(self.t)[0] <= self.width and 0 <= person.centre(self.t)[1] <= self.height
            if inside and all(iou(box, box_of(p.points(self.t))[None])[0] < HIDDEN for p in before):
                visible.append(person)
        return visible

    def frame(self, t: float, index: int) -> Frame:
        self.t = t
        pixels = np.full((self.height, self.width, 3), 60, np.uint8)
        for person in sorted(self.people, key=lambda p: p.nearness):
            if person in self.visible():
                x, y = (person.centre(t) - 56).round().astype(int)
                x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + 112, self.width), min(y + 112, self.height)
                if x0 < x1 and y0 < y1:
                    pixels[y0:y1, x0:x1] = texture(person.identity)[y0 - y : y1 - y, x0 - x : x1 - x]
        return Frame(Stamp("walk", index, t, time.time_ns(), time.monotonic_ns()), pixels)

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        self.detections += 1
        people = [p for p in self.visible() if self.random.random() >= self.miss_rate]
        points = np.array([p.points(self.t) for p in people], np.float32).reshape(-1, 68, 2)
        return [Detections(box_of(points), np.full(len(points), 0.9, np.float32), five_points(points))]

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
        self.located += len(boxes)
        points, presence = [], []
        visible = self.visible()
        for box in boxes:
            centre, side = (box[:2] + box[2:]) / 2, float(box[2] - box[0])
            near = sorted(visible, key=lambda p: float(np.linalg.norm(p.centre(self.t) - centre)))
            hit = bool(near) and np.linalg.norm(near[0].centre(self.t) - centre) < 0.45 * side
            noise = self.random.normal(scale=0.4, size=(68, 2))
            points.append((near[0].points(self.t) if hit else POINTS * FACE + centre) + noise)
            presence.append(0.95 if hit else 0.05)
        return Located(np.array(points, np.float32).reshape(-1, 68, 2), np.array(presence, np.float32))


def crossing(speed: float, gap: float) -> list[Walk]:
    """Towards each other at this many pixels per second each, meeting in the middle of 640 pixels."""
    return [
        Walk((120, 240), (speed, 0), 0, nearness=1),
        Walk((520, 240 + gap), (-speed, 0), 1),
    ]


Result = list[list[tuple[int, int]]]  # per frame, (identity, track) of every face


def follow_walk(
    people: Sequence[Walk],
    *,
    frames: int | None = None,
    fps: float = 25.0,
    width: int = 640,
    detect_every: int = 0,
    naive: bool = False,
    world: World | None = None,
) -> Result:
    world = world or World(people, width=width, height=600)
    frames = frames or int(min(400 / max(abs(people[0].velocity[0]), 1), 6) * fps)
    finder = FaceFinder(FaceSettings(detect_every=detect_every), world, world, 112)
    result: Result = []
    nearest: dict[int, NDArray[np.float64]] = {}  # of the naive control: track -> last centre
    for i in range(frames):
        faces = next(finder.find([world.frame(i / fps, i)]))
        centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        tracks = faces.tracks.tolist()
        if naive:
            tracks, free = [], dict(nearest)
            for centre in centres.astype(np.float64):
                best = min(free, key=lambda k: float(np.linalg.norm(free[k] - centre)), default=None)
                if best is None or np.linalg.norm(free[best] - centre) > 2 * FACE:
                    best = len(nearest)
                free.pop(best, None)
                nearest[best] = centre
                tracks.append(best)
        frame = []
        for centre, track in zip(centres, tracks):
            person = min(world.visible(), key=lambda p: float(np.linalg.norm(p.centre(world.t) - centre)))
            frame.append((person.identity, int(track)))
        result.append(frame)
    return result


def switches(result: Result) -> int:
    """How often the track of a person changes."""
    last: dict[int, int] = {}
    count = 0
    for frame in result:
        for identity, track in frame:
            count += last.get(identity, track) != track
            last[identity] = track
    return count
