"""A labelled contact sheet for judging renders by eye: each unit at rising intensity on several people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .assets import Assets
from .camera import HeadPose, Lens
from .expression import Expression
from .matter import Light
from .person import draw_person
from .picture import take
from .tone import develop
from .units import UNITS

Bytes = NDArray[np.uint8]

LEVELS = (0.0, 0.35, 0.7, 1.0)
STUDIO = Light(
    harmonics=np.array([[0.5] * 3, [0.12] * 3, [0.12] * 3, *[[0.0] * 3] * 6], np.float32),
    directions=np.array([[-0.45, 0.45, 0.77], [0.6, 0.2, 0.77]], np.float32),
    colours=np.array([[0.75, 0.73, 0.7], [0.2, 0.2, 0.22]], np.float32),
)


def write_sheet(path: Path, assets: Assets, seed: int) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--sheet {path} must be an image file, such as sheet.png.")
    picture = contact_sheet(assets, seed)
    if not cv2.imwrite(str(path), picture[:, :, ::-1]):
        raise UserError(f"--sheet {path} cannot be written. Give a file in an existing folder.")


def contact_sheet(
    assets: Assets, seed: int = 0, side: int = 160, units: Sequence[str] = UNITS, yaw: float = 12.0, people: int = 3
) -> Bytes:
    """One row per unit: for each person a neutral face and rising intensities, (H, W, 3) RGB."""
    rows = []
    persons = [draw_person(np.random.default_rng([seed, 9, i]), assets, i % 2) for i in range(people)]
    for unit in units:
        cells = []
        for person in persons:
            for level in LEVELS:
                intensity = np.zeros((len(UNITS), 2), np.float32)
                intensity[UNITS.index(unit)] = level
                vertices = person.vertices(Expression("sheet", intensity, sealed=True))
                lens = Lens(fov=18, eye_distance=0.30, centre=(0.5, 0.40))
                shot = take(
                    person, vertices, intensity, HeadPose(yaw, 0, 0), lens, STUDIO, (side * 2, side * 2), assets
                )
                gain = np.full(3, 0.22 / max(float(shot.linear[shot.covered].mean()), 1e-3), np.float32)
                curve = (np.linspace(0, 1, 4096) ** (1 / 2.2)).astype(np.float32)
                image = np.full_like(shot.linear, 0.55)
                develop(image, shot.linear, shot.covered, gain, curve)
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                cell = (np.clip(image, 0, 1) * 255).astype(np.uint8)
                cv2.putText(
                    cell, f"{unit} {level:.2f}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 0), 1, cv2.LINE_AA
                )
                cells.append(cell)
        rows.append(cells)
    width = max(map(len, rows))
    blank = np.zeros((side, side, 3), np.uint8)
    return np.vstack([np.hstack([*cells, *[blank] * (width - len(cells))]) for cells in rows])
