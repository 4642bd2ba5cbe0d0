"""One person: geometry, skin, eyes, brows, hair, and how strongly and in which variant this person shows a unit.

Drawn once and photographed several times. Light, camera and expression belong to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .assets import BROWS, EYES, HAIR, LASHES, Assets
from .expression import Expression
from .heads import CLOTH, ICT, MAKEHUMAN, PLAIN, SKIN, Floats, Head, Part
from .layers import Glasses, Wrap, draw_glasses, draw_wrap
from .relief import Wrinkles, draw_wrinkles, furrow_bank
from .shading import Mesh
from .skin import Skin, draw_skin
from .units import INDEX, UNITS, with_measured_mouth

# Targets that make a resting face look like an action unit, or a body that never shows: left out or kept small.
LEFT_OUT = ("neck/", "head-back", "mouth-scale-depth", "mouth-trans", "breast", "trunk")
RESTING = ("eyebrows/", "mouth-angles", "eye-height", "lip-volume", "lip-height", "eyefold", "laugh-lines", "eye-bag")

# How far resting faces differ along the movements themselves, and those that can only be more than none at rest.
RESTING_UNITS = {
    "AU01": 0.12, "AU02": 0.14, "AU04": 0.15, "AU07": 0.15, "AU12": 0.08, "AU15": 0.13, "AU23": 0.1, "AU24": 0.13,
    "AU43": 0.06, "AU06": 0.08, "AU10": 0.05,
}  # fmt: skip
CLOSING = ("AU23", "AU24", "AU43")


@dataclass(frozen=True)
class Person:
    head: Head
    neutral: Floats  # (V, 3)
    gain: Floats  # (A,) how far this person's face moves at intensity 1
    mixture: tuple[Floats, ...]  # per unit the weights of its variants
    mesh: Mesh
    hung: tuple[Part, ...]  # parts placed after the head's own vertices, in this order
    skin: Skin
    wrinkles: Wrinkles
    shine: float
    gloss: float
    cloth: Floats
    brow_strength: float
    wrap: Wrap | None
    glasses: Glasses | None
    age: float  # 0 young .. 1 old
    jaw_drop: float  # how far AU26 at intensity 1 brings the chin down, in eye distances
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
        """The intensities (A, 2) with lips and jaw as the geometry shows them, whatever moved them."""
        gap = _lip_gap(self.head, vertices) - self.rest_gap
        jaw = (_chin(self.head, self.neutral) - _chin(self.head, vertices)) / self.jaw_drop
        return with_measured_mouth(expression.intensity, gap, jaw if expression.moves_jaw else 0.0)


def _chin(head: Head, vertices: Floats) -> float:
    """Height of the chin's lowest points, in eye distances."""
    return float(head.points.on(vertices)[7:10, 1].mean())


def _lip_gap(head: Head, vertices: Floats) -> float:
    """How far the upper lip's rim is above the lower lip's, in eye distances; below 0 lips are pressed together."""
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
    neutral = neutral + _resting(rng, head)
    mixture = tuple(_mixture(rng, len(head.units[name])) for name in UNITS)
    gain = np.clip(rng.normal(1.0, 0.13, len(UNITS)), 0.7, 1.35).astype(np.float32)
    hair = _hair_colour(rng, age)
    wrap = _wrap(rng, male, hair)
    mesh, hung = _dress(rng, assets, head, neutral, hair, wrap=wrap)
    eyes = head.points.on(neutral)
    glasses = draw_glasses(rng, np.stack([eyes[36:42].mean(0), eyes[42:48].mean(0)])) if rng.random() < 0.18 else None
    face = assets.face
    source = assets.skins[int(rng.integers(len(assets.skins)))]
    return Person(
        head=head,
        neutral=neutral,
        gain=gain,
        mixture=mixture,
        mesh=mesh,
        hung=hung,
        skin=draw_skin(rng, source, face, male, age, hair),
        wrinkles=draw_wrinkles(rng, furrow_bank(face), age),
        shine=float(rng.uniform(0.02, 0.16)),
        gloss=float(np.exp(rng.uniform(np.log(6), np.log(40)))),
        cloth=(rng.uniform(0.02, 0.8, 3) ** 1.5).astype(np.float32),
        brow_strength=float(rng.uniform(0.8, 2.2)),
        wrap=wrap,
        glasses=glasses,
        age=age,
        jaw_drop=_chin(head, neutral) - _chin(head, neutral + _whole(head, mixture, gain, "AU26")),
        rest_gap=_lip_gap(head, neutral),
    )


def _whole(head: Head, mixture: tuple[Floats, ...], gain: Floats, unit: str) -> Floats:
    """The unit at intensity 1 on both sides, as this person shows it."""
    i = INDEX[unit]
    parts = [weight * variant.sum(0) for weight, variant in zip(mixture[i], head.units[unit])]
    return np.asarray(gain[i] * np.sum(parts, 0), np.float32)


def _mixture(rng: np.random.Generator, count: int) -> Floats:
    return rng.dirichlet([0.5] * count).astype(np.float32)


def _ict_shape(rng: np.random.Generator, head: Head) -> Floats:
    modes = rng.standard_normal(len(head.identity)).astype(np.float32) * np.float32(rng.uniform(0.7, 1.3))
    return np.asarray(np.tensordot(modes, head.identity, 1), np.float32)


def _resting(rng: np.random.Generator, head: Head) -> Floats:
    """Heavy brows, narrow eyes, thin lips, mouth corners that point down or up: shapes of the face, not movements."""
    shape = np.zeros_like(head.neutral)
    for name, spread in RESTING_UNITS.items():
        amount = float(np.clip(rng.normal(0, spread), -2.2 * spread, 2.2 * spread))
        if name in CLOSING:
            amount = abs(amount)
        for side in range(2):
            shape += np.float32(amount * (1 + rng.normal(0, 0.15))) * head.units[name][0][side]
    return shape


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


def _hair_colour(rng: np.random.Generator, age: float) -> Floats:
    """(3,) linear: black, brown, blond, red, and grey with age."""
    stops = np.array([(0.012, 0.009, 0.008), (0.05, 0.028, 0.016), (0.30, 0.19, 0.09), (0.16, 0.05, 0.02)])
    colour = stops[rng.choice(4, p=[0.45, 0.3, 0.17, 0.08])] * rng.uniform(0.6, 1.5)
    grey = max(0.0, age - 0.55) / 0.45 * rng.uniform(0, 1.2)
    return np.asarray(colour + min(grey, 1.0) * (np.full(3, 0.35) - colour), np.float32)


def _wrap(rng: np.random.Generator, male: bool, hair: Floats) -> Wrap | None:
    """Long hair for many women and few men; a scarf or hood now and then."""
    if rng.random() < 0.05:
        return draw_wrap(rng, (rng.uniform(0.02, 0.9, 3) ** 2).astype(np.float32), scarf=True)
    return draw_wrap(rng, hair, scarf=False) if rng.random() < (0.06 if male else 0.55) else None


def _dress(
    rng: np.random.Generator, assets: Assets, head: Head, neutral: Floats, hair: Floats, wrap: Wrap | None
) -> tuple[Mesh, tuple[Part, ...]]:
    """Eyes, teeth, brows, lashes and hair on the head, as one mesh."""
    colour, openness = head.colour.copy(), head.openness
    iris = np.array([(0.30, 0.18, 0.10), (0.45, 0.30, 0.18), (0.35, 0.50, 0.65), (0.40, 0.50, 0.35)])
    iris_colour = iris[rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])]
    for ball in head.eyeballs:
        colour[ball] = _painted_eye(head.neutral[ball], iris_colour)

    cloth_line = neutral[:, 1].min() if head.kind == ICT else -rng.uniform(2.1, 2.7)
    skin_height = neutral[head.skin][:, :, 1].mean(1)
    faces, uv = [head.skin], [head.skin_uv]
    material = [np.where(skin_height < cloth_line, CLOTH, SKIN)]
    if wrap:  # what is under long hair or a scarf has its colour
        scalp = _scalp(neutral[head.skin].mean(1))
        material[0][scalp] = PLAIN
        colour[np.unique(head.skin[scalp])] = np.sqrt(wrap.colour) * 0.8  # the shader squares plain colours
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
        add(next(part for part in head.parts if part.name == "eyes"), eye, rng.uniform(0.75, 1.0), 1.0)
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
    """Which places (F, 3) on the head hair grows on, roughly."""
    x, y, z = places.T
    return np.asarray((y > 0.95 - 0.25 * x * x) | ((z < -0.75) & (y > -0.9)))


def _shaped_brow(rng: np.random.Generator, head: Head, card: Part, neutral: Floats) -> Part:
    """Brows of this person: turned, thicker or thinner, higher or lower. As they come they look angry at rest."""
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


def _without_fringe(card: Part, neutral: Floats, line: float) -> Part:
    """The same hair with nothing hanging into the face below `line`, eye distances above the eyes."""
    middle = card.placed(neutral)[card.faces].mean(1)  # (F, 3)
    keep = ~((np.abs(middle[:, 0]) < 0.85) & (middle[:, 1] < line) & (middle[:, 2] > -0.35))
    return replace(card, faces=card.faces[keep], uv=card.uv[keep])


def _painted_eye(ball: Floats, iris: NDArray[np.float64]) -> Floats:
    """Colours (P, 3) of an eyeball without texture: white, iris and pupil by distance from its front pole."""
    centre = (ball.min(0) + ball.max(0)) / 2
    radius = (ball[:, 1].max() - ball[:, 1].min()) / 2
    off_axis = np.hypot(ball[:, 0] - centre[0], ball[:, 1] - centre[1]) / radius
    front = ball[:, 2] > centre[2]
    colour = np.tile(np.array([0.74, 0.70, 0.68], np.float32), (len(ball), 1))  # squared by the shader
    colour[front & (off_axis < 0.48)] = iris
    colour[front & (off_axis < 0.2)] = 0.02
    return colour
