"""Eyes, teeth, brows, lashes, hair and clothes of a head, as one mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .assets import BROWS, EYES, HAIR, LASHES, Assets
from .heads import CLOTH, ICT, MAKEHUMAN, PLAIN, SKIN, Floats, Head, HeadPart
from .layers import Wrap, draw_wrap
from .matter import Mesh


def hair_colour(rng: np.random.Generator, age: float) -> Floats:
    """(3,) linear: black, brown, blond, red, and grey with age."""
    stops = np.array([(0.012, 0.009, 0.008), (0.05, 0.028, 0.016), (0.30, 0.19, 0.09), (0.16, 0.05, 0.02)])
    colour = stops[rng.choice(4, p=[0.45, 0.3, 0.17, 0.08])] * rng.uniform(0.6, 1.5)
    grey = max(0.0, age - 0.55) / 0.45 * rng.uniform(0, 1.2)
    return np.asarray(colour + min(grey, 1.0) * (np.full(3, 0.35) - colour), np.float32)


def draw_cover(rng: np.random.Generator, male: bool, hair: Floats) -> Wrap | None:
    """Long hair for many women and few men; occasionally a scarf or hood."""
    if rng.random() < 0.05:
        return draw_wrap(rng, (rng.uniform(0.02, 0.9, 3) ** 2).astype(np.float32), scarf=True)
    return draw_wrap(rng, hair, scarf=False) if rng.random() < (0.06 if male else 0.55) else None


def dress(
    rng: np.random.Generator, assets: Assets, head: Head, neutral: Floats, hair: Floats, wrap: Wrap | None
) -> tuple[Mesh, tuple[HeadPart, ...]]:
    """Eyes, teeth, brows, lashes and hair on the head, as one mesh."""
    colour, openness = head.colour.copy(), head.openness
    iris = np.array([(0.30, 0.18, 0.10), (0.45, 0.30, 0.18), (0.35, 0.50, 0.65), (0.40, 0.50, 0.35)])
    iris_colour = iris[rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])]
    white = rng.uniform(0.55, 1.0)  # in most photographs the white of an eye is grey
    for ball in head.eyeballs:
        colour[ball] = _painted_eye(head.neutral[ball], iris_colour) * np.sqrt(white)  # the shader squares it

    cloth_line = neutral[:, 1].min() if head.kind == ICT else -rng.uniform(2.1, 2.7)
    middle = sum(neutral[corner] for corner in head.skin.T) / np.float32(3)  # (F, 3)
    faces, uv = [head.skin], [head.skin_uv]
    material = [np.where(middle[:, 1] < cloth_line, CLOTH, SKIN)]
    if wrap:  # under long hair or a scarf, the scalp has its colour
        scalp = _scalp(middle)
        material[0][scalp] = PLAIN
        colour[head.skin[scalp]] = np.sqrt(wrap.colour) * 0.8  # the shader squares plain colours
    sprite = [np.zeros(len(head.skin), np.int32)]
    colours, opens, hung, count = [colour], [openness], [], len(neutral)

    def add(part: HeadPart, sprite_name: str | None, tinted: NDArray[np.float64] | float, openness_of: float) -> None:
        nonlocal count
        if part.anchors is None:
            faces.append(part.faces)
        else:
            faces.append(part.faces + count)
            size = len(part.anchors)
            colours.append(np.full((size, 3), tinted, np.float32))
            opens.append(np.full(size, openness_of, np.float32))
            hung.append(part)
            count += size
        uv.append(part.uv)
        material.append(np.full(len(part.faces), part.material))
        sprite.append(np.full(len(part.faces), assets.sprite_index[sprite_name] if sprite_name else 0, np.int32))

    if head.kind == MAKEHUMAN:
        eye = str(rng.choice(EYES, p=[0.5, 0.15, *[0.35 / 6] * 6]))
        teeth = [part for part in head.parts if part.name == "teeth"]
        add(next(part for part in head.parts if part.name == "eyes"), eye, white, 1.0)
        add(teeth[int(rng.integers(len(teeth)))], "teeth", rng.uniform(0.5, 0.85), 0.85)
        add(next(part for part in head.parts if part.name == "tongue"), "tongue", 0.9, 0.4)
    else:
        add(head.parts[0], None, 1.0, 1.0)
    solid = sum(map(len, faces))
    if wrap is None and rng.random() < 0.93:
        style = str(rng.choice(HAIR, p=[0.34, 0.3, 0.14, 0.22]))
        card = head.cards[style]
        if rng.random() < 0.8:  # a fringe would hide an eye
            card = _without_fringe(card, neutral, float(rng.uniform(0.35, 0.6)))
        add(card, style, _tinted(assets, style, hair), 1.0)
    cutout = sum(map(len, faces))
    brow = str(rng.choice(BROWS))
    add(
        _shaped_brow(rng, head, head.cards[brow], neutral),
        brow,
        _tinted(assets, brow, hair * rng.uniform(0.5, 1.3)),
        1.0,
    )
    if head.kind == MAKEHUMAN:
        lash = str(rng.choice(LASHES))
        add(head.cards[lash], lash, 0.4, 1.0)
    mesh = Mesh(
        faces=np.concatenate(faces).astype(np.int32),
        uv=np.ascontiguousarray(np.concatenate(uv), np.float32),
        material=np.concatenate(material).astype(np.uint8),
        sprite=np.concatenate(sprite).astype(np.int32),
        colour=np.concatenate(colours).astype(np.float32),
        openness=np.concatenate(opens).astype(np.float32),
        solid=solid,
        cutout=cutout,
    )
    return mesh, tuple(hung)


def _tinted(assets: Assets, sprite: str, colour: Floats) -> NDArray[np.float64]:
    """The factor that gives a sprite this mean linear colour."""
    seen = assets.sprite_mean[assets.sprite_index[sprite]]
    return np.asarray(np.clip(colour / np.maximum(seen, 1e-3), 0, 12), np.float64)


def _scalp(places: Floats) -> NDArray[np.bool_]:
    """Which positions (F, 3) on the head have hair, roughly."""
    x, y, z = places.T
    return np.asarray((y > 0.95 - 0.25 * x * x) | ((z < -0.75) & (y > -0.9)))


def _shaped_brow(rng: np.random.Generator, head: Head, card: HeadPart, neutral: Floats) -> HeadPart:
    """Brows of this person: turned, thicker or thinner, higher or lower. Unchanged they look angry at rest."""
    assert card.anchors is not None
    assert card.weights is not None
    placed = card.placed(neutral)
    moved = placed.copy()
    tilt = rng.normal(8.0 if head.kind == ICT else 3.0, 4.0)  # degrees, positive: inner ends up
    size = rng.uniform([0.92, 0.75], [1.06, 1.35])
    shift = rng.normal(0, 0.02)
    for side in (-1, 1):
        mine = np.sign(placed[:, 0]) == side
        middle = placed[mine].mean(0)
        d = (placed[mine] - middle)[:, :2] * size
        angle = np.radians(tilt + rng.normal(0, 1.2)) * -side
        turned = d @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        moved[mine, :2] = middle[:2] + turned + (0, shift)
    offset = moved - (neutral[card.anchors] * card.weights[:, :, None]).sum(1)
    return replace(card, offset=offset.astype(np.float32), spans=())


def _without_fringe(card: HeadPart, neutral: Floats, line: float) -> HeadPart:
    """The same hair, without what hangs into the face below `line`, eye distances above the eyes."""
    middle = card.placed(neutral)[card.faces].mean(1)  # (F, 3)
    keep = ~((np.abs(middle[:, 0]) < 0.85) & (middle[:, 1] < line) & (middle[:, 2] > -0.35))
    return replace(card, faces=card.faces[keep], uv=card.uv[keep])


def _painted_eye(ball: Floats, iris: NDArray[np.float64]) -> Floats:
    """Colours (P, 3) of an eyeball without texture: white, iris and pupil by distance from its front pole."""
    centre = (ball.min(0) + ball.max(0)) / 2
    radius = (ball[:, 1].max() - ball[:, 1].min()) / 2
    off_axis = np.hypot(ball[:, 0] - centre[0], ball[:, 1] - centre[1]) / radius
    front = ball[:, 2] > centre[2]
    colour = np.tile(np.array([0.86, 0.82, 0.80], np.float32), (len(ball), 1))
    colour[front & (off_axis < 0.48)] = iris
    colour[front & (off_axis < 0.2)] = 0.02
    return colour
