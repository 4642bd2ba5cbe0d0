"""Things that cross a face: hands, cups, phones, microphones, bars, blots; and which labels they make unknown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .backgrounds import clouds
from .units import UNITS, UNKNOWN

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# A unit becomes unknown if this share of the points that show it is hidden.
HIDDEN = 0.6
SHOWN_BY = {
    "AU01": range(17, 27), "AU02": range(17, 27), "AU04": range(17, 27), "AU05": range(36, 48), "AU06": range(36, 48),
    "AU07": range(36, 48), "AU43": range(36, 48), "AU09": range(27, 36),
}  # fmt: skip
MOUTH = range(48, 68)
SHOWN = np.array([[point in SHOWN_BY.get(unit, MOUTH) for point in range(68)] for unit in UNITS], np.float32)


def put_occluder(rng: np.random.Generator, image: Floats, points: Floats, skin: Floats) -> tuple[Floats, Mask]:
    """Draws one thing over the picture (R, R, 3); `points` (68, 2) are those of the face, `skin` (3,) its colour."""
    side = image.shape[0]
    size = float(np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)))
    kind = rng.choice(["hand", "thing", "bar", "blot"], p=[0.5, 0.25, 0.1, 0.15])
    around = points[int(rng.choice([8, 3, 13, 57, 48, 54, 33, 19, 24, 0, 16, 36, 45]))]
    place = around + rng.normal(0, 0.3, 2) * size
    mask = np.zeros((side, side), np.uint8)
    if kind == "hand":
        colour = np.clip(skin * rng.uniform(0.8, 1.15), 0, 1)
        _hand(rng, mask, place, size)
    elif kind == "thing":
        colour = rng.uniform(0, 0.9, 3) * rng.uniform(0.1, 1)
        half = rng.uniform(0.25, 0.7, 2) * size
        box = cv2.boxPoints((tuple(map(float, place)), tuple(map(float, half * 2)), float(rng.uniform(-40, 40))))
        cv2.fillPoly(mask, [np.round(box * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        if rng.random() < 0.4:
            cv2.circle(mask, tuple(int(v) for v in place), int(half[0]), 255, -1, cv2.LINE_AA)
    elif kind == "bar":
        colour = rng.uniform(0, 1, 3)
        end = place + rng.normal(0, 4, 2) * size
        start = place - (end - place)
        a, b = (tuple(int(v) for v in p) for p in (start, end))
        cv2.line(mask, a, b, 255, max(1, int(rng.uniform(0.05, 0.4) * size)), cv2.LINE_AA)
    else:
        colour = rng.uniform(0, 1, 3)
        turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        radius = size * rng.uniform(0.3, 0.7) * rng.uniform(0.6, 1.3, 10)
        outline = place + np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) / 255
    # Rounded: darker towards the edge, and a little textured.
    inner = cv2.GaussianBlur(alpha, (0, 0), max(size * 0.09, 0.8))
    look = (0.55 + 0.45 * inner)[..., None] * colour.astype(np.float32)
    if rng.random() < 0.6:
        look = look * (0.8 + 0.4 * clouds(rng, side)[..., :1])
    if rng.random() < 0.3:
        alpha = cv2.GaussianBlur(alpha, (0, 0), float(rng.uniform(0.5, 2.5)))
    return np.asarray(image + alpha[..., None] * (look - image), np.float32), alpha > 0.5


def _hand(rng: np.random.Generator, mask: NDArray[np.uint8], place: NDArray[np.floating], size: float) -> None:
    """Fingers as rounded bars from a palm that comes from below or from the side."""
    towards = rng.uniform(-0.9, 0.9) - np.pi / 2  # where the fingers point
    if rng.random() < 0.3:
        towards += rng.choice([-1.2, 1.2])
    along = np.array([np.cos(towards), np.sin(towards)])
    across = np.array([-along[1], along[0]])
    palm = place - along * size * 0.9
    cv2.ellipse(
        mask,
        tuple(int(v) for v in palm),
        (int(size * 0.55), int(size * 0.5)),
        np.degrees(towards),
        0,
        360,
        255,
        -1,
        cv2.LINE_AA,
    )
    for k in range(int(rng.integers(1, 5))):
        root = palm + across * (k - 1.5) * size * 0.26 + along * size * 0.3
        bend = along + across * rng.normal((k - 1.5) * 0.08, 0.06)
        tip = root + bend * size * rng.uniform(0.5, 1.0)
        a, b = (tuple(int(v) for v in p) for p in (root, tip))
        cv2.line(mask, a, b, 255, max(2, int(size * rng.uniform(0.19, 0.25))), cv2.LINE_AA)


def unseen(presence: NDArray[np.int8], points: Floats, hidden: Mask) -> NDArray[np.int8]:
    """Labels (A,), unknown for units whose part of the face is hidden; points (68, 2) in pixels of `hidden` (R, R)."""
    side = hidden.shape[0]
    columns, rows = np.clip(points.astype(np.int64), 0, side - 1).T
    covered = SHOWN @ hidden[rows, columns].astype(np.float32) / SHOWN.sum(1)
    return np.where(covered > HIDDEN, np.int8(UNKNOWN), presence)
