"""One person: geometry, skin, eyes, brows, hair, and how strongly and in which variant this person shows a unit.

Drawn once and photographed several times. Light, camera and expression belong to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .assets import BROWS, EYES, HAIR, LASHES, Assets
from .expression import Expression
from .heads import CLOTH, ICT, MAKEHUMAN, SKIN, Floats, Head, Part
from .shading import Mesh
from .units import INDEX, UNITS, with_measured_opening

# Targets that make a resting face look like an action unit, or a body that never shows: left out or kept small.
LEFT_OUT = ("neck/", "head-back", "mouth-scale-depth", "mouth-trans", "breast", "trunk")
RESTING = ("eyebrows/", "mouth-angles", "eye-height", "lip-volume", "lip-height", "eyefold", "laugh-lines", "eye-bag")


@dataclass(frozen=True)
class Person:
    head: Head
    neutral: Floats  # (V, 3)
    gain: Floats  # (A,) how far this person's face moves at intensity 1
    mixture: tuple[Floats, ...]  # per unit the weights of its variants
    mesh: Mesh
    hung: tuple[Part, ...]  # parts placed after the head's own vertices, in this order
    texture: NDArray[np.uint8]
    tint: Floats
    shine: float
    gloss: float
    cloth: Floats
    brow_strength: float
    age: float  # 0 young .. 1 old
    rest_gap: float  # how far the lips' rims are apart at rest, in eye distances

    def vertices(self, expression: Expression) -> Floats:
        """The head's own vertices (V, 3) showing the expression."""
        vertices = self.neutral.copy()
        for i, name in enumerate(UNITS):
            for side in range(2):
                amount = expression.intensity[i, side] * self.gain[i]
                if amount > 0.004:
                    for weight, variant in zip(self.mixture[i], self.head.units[name]):
                        if weight > 0.01:
                            vertices += (amount * weight) * variant[side]
        for name, amount in expression.extras.items():
            if name in self.head.extras:
                vertices += np.float32(amount) * self.head.extras[name]
        if expression.sealed and expression.intensity[INDEX["AU25"]].max() < 0.1:
            self._close_lips(vertices)
        return vertices

    def _close_lips(self, vertices: Floats) -> None:
        """Lips stick together: where only a raised upper lip parts them, the lower one follows."""
        gap = _lip_gap(self.head, vertices) - self.rest_gap
        if gap > 0.01 and self.head.lip_closer is not None:
            closed = _lip_gap(self.head, self.neutral + self.head.lip_closer) - self.rest_gap
            vertices += np.float32(min(gap / -closed, 1.2)) * self.head.lip_closer

    def with_parts(self, vertices: Floats) -> Floats:
        """(V, 3) -> (V + parts, 3) in the numbering of the mesh."""
        return np.concatenate([vertices, *(part.placed(vertices) for part in self.hung)])

    def seen_intensity(self, expression: Expression, vertices: Floats) -> Floats:
        """The intensities (A, 2) with AU25 as the geometry shows it, whatever parted the lips."""
        return with_measured_opening(expression.intensity, _lip_gap(self.head, vertices) - self.rest_gap)


def _lip_gap(head: Head, vertices: Floats) -> float:
    """How far the upper lip's rim is above the lower lip's, in eye distances; lips pressed into each other are below 0."""
    points = head.points.on(vertices)
    return float((points[61:64, 1] - points[[67, 66, 65], 1]).mean())


def draw_person(rng: np.random.Generator, assets: Assets, kind: int) -> Person:
    head = assets.heads[kind]
    age = float(rng.beta(1.2, 1.6))
    male = bool(rng.random() < 0.5)
    shape = _makehuman_shape(rng, head, age, male) if kind == MAKEHUMAN else _ict_shape(rng, head)
    # A taller body carries its head higher: put the eyes back to the origin. Movements keep the model's scale.
    eyes = head.points.on(head.neutral + shape)[36:48].mean(0)
    neutral = head.neutral + shape - eyes
    mixture = tuple(_mixture(rng, len(head.units[name])) for name in UNITS)
    gain = np.clip(rng.normal(1.0, 0.13, len(UNITS)), 0.7, 1.35).astype(np.float32)
    mesh, hung = _dress(rng, assets, head, neutral)
    return Person(
        head=head,
        neutral=neutral,
        gain=gain,
        mixture=mixture,
        mesh=mesh,
        hung=hung,
        texture=assets.skins[int(rng.integers(len(assets.skins)))],
        tint=(np.clip(1 + rng.normal(0, 0.05, 3), 0.8, 1.2) * rng.uniform(0.7, 1.15)).astype(np.float32),
        shine=float(rng.uniform(0.03, 0.22)),
        gloss=float(rng.uniform(8, 40)),
        cloth=(rng.uniform(0.02, 0.8, 3) ** 1.5).astype(np.float32),
        brow_strength=float(rng.uniform(0.7, 1.6)),
        age=age,
        rest_gap=_lip_gap(head, neutral),
    )


def _mixture(rng: np.random.Generator, count: int) -> Floats:
    return rng.dirichlet([0.5] * count).astype(np.float32)


def _ict_shape(rng: np.random.Generator, head: Head) -> Floats:
    modes = rng.standard_normal(len(head.identity)).astype(np.float32) * np.float32(rng.uniform(0.7, 1.3))
    return np.asarray(np.tensordot(modes, head.identity, 1), np.float32)


def _makehuman_shape(rng: np.random.Generator, head: Head, age: float, male: bool) -> Floats:
    row = {name: i for i, name in enumerate(head.identity_names)}
    weights = np.zeros(len(row), np.float32)
    sex = "male" if male else "female"
    for name, share in (("young", 1 - age), ("old", age)):
        for origin, part in zip(("african", "asian", "caucasian"), rng.dirichlet([0.6] * 3)):
            weights[row[f"macro/{origin}-{sex}-{name}"]] += share * part
        build = rng.choice(["minweight", "averageweight", "maxweight"], p=[0.25, 0.5, 0.25])
        key = f"macro/universal-{sex}-{name}-averagemuscle-{build}"
        if key in row:
            weights[row[key]] += share
    detail = [n for n in row if n.startswith("det/") and not any(part in n for part in LEFT_OUT)]
    for name in rng.choice([n for n in detail if not any(part in n for part in RESTING)], 30, replace=False):
        weights[row[name]] += rng.uniform(0, 0.3)
    for name in rng.choice([n for n in detail if any(part in n for part in RESTING)], 4, replace=False):
        weights[row[name]] += rng.uniform(0, 0.3)
    for name in rng.choice([n for n in row if n.startswith("asym/") and "asymm" not in n], 6, replace=False):
        weights[row[name]] += rng.uniform(0, 0.35)
    used = np.flatnonzero(weights)
    return np.asarray(np.tensordot(weights[used], head.identity[used], 1), np.float32)


def _dress(rng: np.random.Generator, assets: Assets, head: Head, neutral: Floats) -> tuple[Mesh, tuple[Part, ...]]:
    """Eyes, teeth, brows, lashes and hair on the head, as one mesh."""
    hair_colour = np.array([(0.25, 0.2, 0.18), (0.5, 0.38, 0.28), (1.0, 0.85, 0.6), (0.8, 0.8, 0.8), (0.9, 0.5, 0.3)])
    tone = hair_colour[rng.choice(5, p=[0.45, 0.27, 0.12, 0.1, 0.06])] * rng.uniform(0.7, 1.2)
    colour, openness = head.colour.copy(), head.openness
    iris = np.array([(0.30, 0.18, 0.10), (0.45, 0.30, 0.18), (0.35, 0.50, 0.65), (0.40, 0.50, 0.35)])
    iris_colour = iris[rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])]
    for ball in head.eyeballs:
        colour[ball] = _painted_eye(head.neutral[ball], iris_colour)

    cloth_line = neutral[:, 1].min() if head.kind == ICT else -rng.uniform(2.1, 2.7)
    skin_height = neutral[head.skin][:, :, 1].mean(1)
    faces, uv = [head.skin], [head.skin_uv]
    material = [np.where(skin_height < cloth_line, CLOTH, SKIN)]
    sprite = [np.zeros(len(head.skin), np.int32)]
    colours, opens, hung, count = [colour], [openness], [], len(neutral)

    def add(part: Part, sprite_name: str | None, tinted: NDArray[np.float64] | float, openness_of: float) -> None:
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
        add(next(part for part in head.parts if part.name == "eyes"), eye, 1.0, 0.9)
        add(teeth[int(rng.integers(len(teeth)))], "teeth", rng.uniform(0.8, 1), 0.55)
        add(next(part for part in head.parts if part.name == "tongue"), "tongue", 0.9, 0.4)
    else:
        add(head.parts[0], None, 1.0, 1.0)
        if rng.random() < 0.2:
            add(head.parts[1], None, 1.0, 1.0)
    solid = sum(map(len, faces))
    if rng.random() < 0.8:
        style = str(rng.choice(HAIR, p=[0.4, 0.36, 0.08, 0.16]))
        add(head.cards[style], style, tone * 1.3, 1.0)
    cutout = sum(map(len, faces))
    brow = str(rng.choice(BROWS))
    add(head.cards[brow], brow, tone, 1.0)
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


def _painted_eye(ball: Floats, iris: NDArray[np.float64]) -> Floats:
    """Colours (P, 3) of an eyeball without texture: white, iris and pupil by distance from its front pole."""
    centre = (ball.min(0) + ball.max(0)) / 2
    radius = (ball[:, 1].max() - ball[:, 1].min()) / 2
    off_axis = np.hypot(ball[:, 0] - centre[0], ball[:, 1] - centre[1]) / radius
    front = ball[:, 2] > centre[2]
    colour = np.tile(np.array([0.9, 0.88, 0.86], np.float32), (len(ball), 1))
    colour[front & (off_axis < 0.48)] = iris
    colour[front & (off_axis < 0.2)] = 0.02
    return colour
