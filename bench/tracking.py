"""The cost and mistakes of following faces, compared with a detector in every frame, on scenes with known truth.

    vlfau-synthesize --help                       (one shard is enough)
    python bench/tracking.py --shards FOLDER [--scenes 6]

People are cut out of renders and walk through a room, nearer ones in front of others. The networks are the embedded
ones. `switches` counts how often a person's id changes, `found` is the share of faces, at most a third hidden, that
have a box, `false` the boxes that are on no face. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from measuring.facts import about, heading, table
from measuring.people import Person, Pixels, cut, draw, people
from numpy.typing import NDArray

from vlfau.engine.packets import Frame, Stamp
from vlfau.engine.settings import FaceSettings
from vlfau.engine.tracking.find import FaceFinder
from vlfau.models.faces import open_detector
from vlfau.models.faces.base import Detections, Detector
from vlfau.models.faces.boxes import iou
from vlfau.models.faces.landmarks import open_landmarks

WIDTH, HEIGHT, FPS = 960, 540, 25.0
HIDDEN = 1 / 3  # of a face that must still be found, at most
SAME = 0.4  # least overlap of a box with the person that it is on


def crossing(faces: Sequence[tuple[Pixels, NDArray[np.float32]]], seed: int) -> list[Person]:
    """Two or three people from both sides, at a height at which they meet; the last one is nearest."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 4))
    chosen = random.choice(len(faces), count, replace=False)
    persons = []
    for k, which in enumerate(chosen):
        scale = random.uniform(0.9, 1.4)
        picture, where = faces[which]
        image, mask, points = cut(picture, where, scale)
        speed = random.uniform(70, 260) * (1 if k % 2 == 0 else -1)
        x = random.uniform(0, 120) if speed > 0 else WIDTH - 160 * scale - random.uniform(0, 120)
        y = HEIGHT / 2 - 80 * scale + random.uniform(-40, 40)
        persons.append(Person(image, mask, points, (x, y), (speed, random.uniform(-12, 12)), random.uniform(0, 6)))
    return persons


def room(seed: int) -> Pixels:
    coarse = np.random.default_rng(seed).integers(60, 200, (9, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(cv2.resize(coarse, (WIDTH, HEIGHT)), (0, 0), 15), np.uint8)


def visible(persons: Sequence[Person], t: float) -> list[int]:
    """Who is inside the frame and at most a third hidden."""
    seen = []
    for k, person in enumerate(persons):
        box = person.box(t)
        inside = box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= HEIGHT
        area = max(float((box[2:] - box[:2]).prod()), 1.0)
        covers = [np.clip(np.minimum(box[2:], o[2:]) - np.maximum(box[:2], o[:2]), 0, None).prod() / area
                  for o in (other.box(t) for other in persons[k + 1 :])]  # fmt: skip
        if inside and max(covers, default=0.0) <= HIDDEN:
            seen.append(k)
    return seen


class Counted:
    """A detector that counts its calls."""

    landmarks = None

    def __init__(self, detector: Detector) -> None:
        self.detector, self.name, self.reason, self.calls = detector, detector.name, detector.reason, 0

    def find(self, pictures: Sequence[Pixels]) -> list[Detections]:
        self.calls += 1
        return self.detector.find(pictures)


@dataclass
class Score:
    frames: int = 0
    faces: int = 0  # that must be found
    found: int = 0
    false: int = 0
    switches: int = 0
    ids: int = 0
    persons: int = 0
    calls: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        return {
            "detector_runs_per_frame": round(self.calls / self.frames, 3),
            "ms_per_frame": round(self.seconds / self.frames * 1e3, 2),
            "found": round(self.found / self.faces, 4),
            "false_per_1000_frames": round(self.false / self.frames * 1e3, 2),
            "switches": self.switches,
            "ids_per_person": round(self.ids / self.persons, 2),
        }


def play(score: Score, persons: Sequence[Person], background: Pixels, detector: Counted, every: int) -> None:
    finder = FaceFinder(FaceSettings(detect_every=every), detector, open_landmarks(), 112)
    seconds = min((WIDTH - 100) / abs(person.velocity[0]) for person in persons)
    before = detector.calls
    last: dict[int, int] = {}
    ids: set[int] = set()
    for i in range(int(min(seconds, 8) * FPS)):
        t = i / FPS
        frame = Frame(Stamp("walk", i, t, 0, 0), draw(background, persons, t))
        began = time.perf_counter()
        faces = next(finder.find([frame]))
        score.seconds += time.perf_counter() - began
        score.frames += 1
        expected = visible(persons, t)
        truth = np.stack([person.box(t) for person in persons])
        hit: set[int] = set()
        for box, track in zip(faces.boxes, faces.tracks.tolist()):
            overlaps = iou(box, truth)
            overlaps[[k for k in range(len(persons)) if k not in expected]] *= 0.999  # on a tie, the person in front
            who = int(overlaps.argmax())
            if overlaps[who] < SAME:
                score.false += 1
                continue
            ids.add(track)
            if who in expected:
                hit.add(who)
                score.switches += last.get(who, track) != track
                last[who] = track
        score.faces += len(expected)
        score.found += len(hit)
    score.ids += len(ids)
    score.persons += len(persons)
    score.calls += detector.calls - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="shards of vlfau-synthesize")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--detector", default="embedded")
    parser.add_argument("--detector-model", type=Path)
    options = parser.parse_args()
    faces = people(options.shards)
    if len(faces) < 4:
        sys.exit(f"{options.shards} holds {len(faces)} usable people. Render at least one shard with vlfau-synthesize.")
    detector = Counted(open_detector(options.detector, options.detector_model))
    policies = {"every frame": 1, "every 5 frames": 5, "as needed (default)": 0}
    rows = {}
    for name, every in policies.items():
        score = Score()
        for scene in range(options.scenes):
            play(score, crossing(faces, scene), room(scene), detector, every)
        rows[name] = score.row()
    facts = about()
    print(f"{heading(facts)}\n{options.scenes} scenes, {detector.reason}\n")
    keys = list(next(iter(rows.values())))
    head = ["detector runs", *(key.replace("_", " ") for key in keys)]
    print(table([head, *([name, *(str(row[key]) for key in keys)] for name, row in rows.items())]))
    print(json.dumps({"bench": "tracking", **facts, "detector": detector.name, "rows": rows}))


if __name__ == "__main__":
    main()
