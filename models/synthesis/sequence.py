"""One person over time: a clean, steady clip whose action units are known in every frame."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .assets import Assets
from .backgrounds import draw_background
from .camera import HeadPose, Lens
from .expression import Expression
from .heads import MAKEHUMAN
from .layers import put_glasses
from .matter import Light
from .person import Person, draw_person
from .picture import take
from .tone import develop

Floats = NDArray[np.float32]

# A window to the left, a room that reflects it, a weak lamp to the right.
LIGHT = Light(
    harmonics=np.array([[0.46, 0.45, 0.44], [0.10] * 3, [0.10] * 3, [-0.06] * 3, *[[0.0] * 3] * 5], np.float32),
    directions=np.array([[-0.5, 0.4, 0.77], [0.7, 0.15, 0.70]], np.float32),
    colours=np.array([[0.72, 0.70, 0.66], [0.16, 0.17, 0.20]], np.float32),
)
CURVE = (np.linspace(0, 1, 4096) ** (1 / 2.2)).astype(np.float32)


def sequence_person(assets: Assets, seed: int, kind: int = MAKEHUMAN) -> Person:
    """The person of a clip, without glasses, so that the whole face is visible."""
    return replace(draw_person(np.random.default_rng([seed, 4]), assets, kind), glasses=None)


def seen_intensities(person: Person, intensities: Floats) -> Floats:
    """Intensities (T, A, 2) as this person shows (T, A) or (T, A, 2): a dropped jaw, for one, parts the lips."""
    expressions = [Expression("clip", sides) for sides in _both(intensities)]
    return np.stack([person.seen_intensity(e, person.vertices(e)) for e in expressions])


def render_sequence(
    assets: Assets,
    seed: int,
    intensities: Floats,
    pose: Floats,
    size: tuple[int, int] = (360, 360),
    *,
    kind: int = MAKEHUMAN,
    supersampling: float = 2.0,
    eye_distance: float = 0.19,
) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) RGB of one person in one light.

    `intensities` (T, A) or (T, A, 2) in the order of `units.UNITS`; `pose` (T, 3) yaw, pitch and clockwise roll;
    `size` is width and height; `eye_distance` is the distance between the eyes as a share of the height.
    """
    width, height = size
    person = sequence_person(assets, seed, kind)
    frame = (round(height * supersampling), round(width * supersampling))
    lens = Lens(fov=24, eye_distance=eye_distance, centre=(0.5, 0.42))
    rng = np.random.default_rng([seed, 5])
    room = draw_background(rng, max(frame))[: frame[0], : frame[1]]
    room = cv2.GaussianBlur(room, (0, 0), frame[0] / 60) * np.float32(0.6) + np.float32(0.2)
    frames = np.empty((len(intensities), height, width, 3), np.uint8)
    gain: Floats | None = None
    for t, sides in enumerate(_both(intensities)):
        expression = Expression("clip", sides)
        vertices = person.vertices(expression)
        turn = HeadPose(*(float(angle) for angle in pose[t]))
        shot = take(person, vertices, person.seen_intensity(expression, vertices), turn, lens, LIGHT, frame, assets)
        if gain is None:  # exposed once, because an adapting camera would flicker with the mouth
            gain = np.full(3, 0.24 / max(float(shot.linear[shot.covered].mean()), 1e-3), np.float32)
        image = room.copy()
        develop(image, shot.linear, shot.covered, gain, CURVE)
        if person.glasses:
            image, _ = put_glasses(person.glasses, image, shot.depth, turn.rotation(), lens, 0.0)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        frames[t] = (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)
    return frames


def _both(intensities: Floats) -> Floats:
    """(T, A) or (T, A, 2) -> (T, A, 2)."""
    return np.asarray(intensities if intensities.ndim == 3 else np.repeat(intensities[..., None], 2, -1), np.float32)
