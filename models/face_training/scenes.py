"""Batches for the finder: heads of many sizes pasted into clutter, and decoys that are not faces."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..faces.embedded import STRIDE, UNIT
from ..faces.landmarks import box_of
from .crops import RenderedCrops, shuffled, without_face
from .photographs import Backgrounds, Bytes, Floats, clutter, occlude, photograph

SCENE = 256  # pixels
SMALLEST, LARGEST = 20, 235  # side of a face's box in scene pixels


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """C = SCENE / STRIDE cells per side."""

    pictures: Bytes  # (N, SCENE, SCENE, 3) RGB
    heat: Floats  # (N, C, C) 1 at the centre of a face, falling off around it
    size: Floats  # (N, C, C) log2 of the box's side over UNIT, where near > 0
    offset: Floats  # (N, 2, C, C) from the centre of the cell to that of the face, in cells
    near: Floats  # (N, C, C) weight of size and offset


def draw_scenes(renders: RenderedCrops, backgrounds: Backgrounds, random: np.random.Generator, count: int) -> Scenes:
    cells = SCENE // STRIDE
    pictures = np.empty((count, SCENE, SCENE, 3), np.uint8)
    heat, size, near = (np.zeros((count, cells, cells), np.float32) for _ in range(3))
    offset = np.zeros((count, 2, cells, cells), np.float32)
    y, x = (np.mgrid[:cells, :cells] + 0.5).astype(np.float32)
    for i in range(count):
        pictures[i], boxes = scene_boxes(renders, backgrounds, random)
        for x0, y0, x1, y1 in boxes:
            side = x1 - x0
            dx, dy = (x0 + x1) / 2 / STRIDE - x, (y0 + y1) / 2 / STRIDE - y
            spread = max(0.75, 0.085 * side / STRIDE)
            bump = np.exp(-(dx**2 + dy**2) / (2 * spread**2)).astype(np.float32)
            row, column = (int(np.clip(v // STRIDE, 0, cells - 1)) for v in ((y0 + y1) / 2, (x0 + x1) / 2))
            bump[row, column] = 1.0
            mine = bump > np.maximum(heat[i], 0.3)
            heat[i] = np.maximum(heat[i], bump)
            size[i][mine] = np.log2(side / UNIT)
            offset[i, :, mine] = np.stack([dx, dy])[:, mine].T
            near[i][mine] = bump[mine]
    return Scenes(pictures, heat, size, offset, near)


def scene_boxes(renders: RenderedCrops, backgrounds: Backgrounds, random: np.random.Generator) -> tuple[Bytes, Floats]:
    """One scene and the boxes (F, 4) of its faces."""
    canvas = backgrounds.take(random)
    boxes: list[Floats] = []
    taken: list[tuple[NDArray[np.floating], float]] = []  # centres and sides of everything pasted so far
    count = int(random.choice([0, 1, 2, 3, 5], p=[0.1, 0.5, 0.2, 0.12, 0.08]))
    for k in range(count):
        largest = LARGEST if count == 1 else LARGEST / count**0.5
        side = float(np.exp(random.uniform(np.log(SMALLEST), np.log(largest))))
        centre = random.uniform(0.42 * side, SCENE - 0.42 * side, 2) if side < 0.85 * SCENE else np.full(2, SCENE / 2)
        if any(np.abs(centre - there).max() < 0.6 * (side + its) for there, its in taken):
            continue
        taken.append((centre, side))
        whole = k == 0 and random.random() < 0.4
        canvas, box = _paste(canvas, renders, random, centre, side, whole)
        if box is not None:
            boxes.append(box)
    if random.random() < 0.15:
        canvas = occlude(canvas, random, 0.05)
    if random.random() < 0.5:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
        boxes = [np.array([SCENE - b[2], b[1], SCENE - b[0], b[3]], np.float32) for b in boxes]
    return photograph(canvas, random), np.array(boxes, np.float32).reshape(-1, 4)


def faceless_scene(renders: RenderedCrops, backgrounds: Backgrounds, random: np.random.Generator) -> Bytes:
    """Clutter, heads without faces, and close views of necks, shoulders and clothes."""
    canvas = backgrounds.take(random)
    if random.random() < 0.5:
        centre = np.array([random.uniform(-0.2, 1.2), random.uniform(-0.6, 0.2)]) * SCENE
        canvas, _ = _paste(canvas, renders, random, centre, random.uniform(0.5, 1.6) * SCENE, True, 1.0)
    for _ in range(int(random.integers(0, 4))):
        side = float(np.exp(random.uniform(np.log(SMALLEST), np.log(0.8 * SCENE))))
        canvas, _ = _paste(canvas, renders, random, random.uniform(0, SCENE, 2), side, False, 1.0)
    if random.random() < 0.5:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
    return photograph(canvas, random)


def _paste(
    canvas: Bytes,
    renders: RenderedCrops,
    random: np.random.Generator,
    centre: NDArray[np.floating],
    side: float,
    whole: bool,
    decoys: float = 0.25,
) -> tuple[Bytes, Floats | None]:
    """Pastes one head, or with probability `decoys` something else; returns the box of the face, if it is one."""
    i = renders.faces[random.integers(len(renders.faces))]
    picture, points = renders.images[i], renders.points[i]
    face = True
    if random.random() < decoys:
        face, kind = False, random.random()
        if kind < 0.45:
            picture = without_face(picture, points, random)
        elif kind < 0.6:
            picture = shuffled(picture, random)
        elif kind < 0.8:
            picture = clutter(picture.shape[0], random)
        else:
            picture, points = np.ascontiguousarray(picture[::-1]), points * [1, -1] + [0, picture.shape[0] - 1]
    elif random.random() < 0.15:
        picture = occlude(picture, random, 0.08)
    roll = np.deg2rad(random.normal(0, 22) if random.random() < 0.4 else random.normal(0, 6))
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    turned = points @ turn.T
    here = box_of(turned)
    scale = side / (here[2] - here[0])
    matrix = np.concatenate([turn * scale, (centre - scale * (here[:2] + here[2:]) / 2)[:, None]], 1)
    if scale < 0.5:  # a bilinear warp would skip pixels
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)  # type: ignore[assignment]
    border = cv2.BORDER_REPLICATE if whole and random.random() < 0.5 else cv2.BORDER_CONSTANT
    head = cv2.warpAffine(picture, matrix, (SCENE, SCENE), flags=cv2.INTER_LINEAR, borderMode=border)
    mask = np.ones(picture.shape[:2], np.float32)
    if not whole and random.random() < 0.8:  # without the render's background, with a soft seam
        mask[:] = 0
        low, high = points.min(0), points.max(0)
        middle, reach = (low + high) / 2, float((high - low).max())
        middle[1] -= 0.12 * reach
        axes = reach * random.uniform(0.55, 0.8), reach * random.uniform(0.72, 1.0)
        cv2.ellipse(mask, (int(middle[0]), int(middle[1])), (int(axes[0]), int(axes[1])), 0, 0, 360, 1.0, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), float(random.uniform(1, 8)))
    mask = cv2.warpAffine(mask, matrix, (SCENE, SCENE), flags=cv2.INTER_LINEAR, borderMode=border)[:, :, None]
    blended = np.asarray(canvas * (1 - mask) + head * mask, np.uint8)
    if not face:
        return blended, None
    return blended, box_of(turned * scale + matrix[:, 2]).astype(np.float32)
