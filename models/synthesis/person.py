"""One person: geometry, skin, eyes, brows, hair, and how strongly and in which variant this person shows a unit.

A person is drawn once and photographed several times. Light, camera and expression belong to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from ..faces.align import LOWER_LIDS, UPPER_LIDS
from .assets import Assets
from .expression import Expression
from .heads import MAKEHUMAN, Floats, Head, HeadPart
from .layers import Glasses, Wrap, draw_glasses
from .matter import Mesh
from .relief import Wrinkles, draw_wrinkles, furrow_bank
from .skin import Skin, draw_skin
from .units import INDEX, UNITS, with_measured_eyes, with_measured_mouth
from .wardrobe import draw_cover, dress, hair_colour

# Targets that make a resting face look like an action unit, or change the body, which is not visible: omitted or small.
LEFT_OUT = ("neck/", "head-back", "mouth-scale-depth", "mouth-trans", "breast", "trunk")
RESTING = ("eyebrows/", "mouth-angles", "eye-height", "lip-volume", "lip-height", "eyefold", "laugh-lines", "eye-bag")

# How far resting faces differ along the movements of units, and the units that at rest can only be positive.
RESTING_UNITS = {
    "AU01": 0.12, "AU02": 0.14, "AU04": 0.15, "AU07": 0.15, "AU12": 0.08, "AU15": 0.13, "AU23": 0.1, "AU24": 0.13,
    "AU43": 0.06, "AU06": 0.08, "AU10": 0.05,
}  # fmt: skip
CLOSING = ("AU23", "AU24", "AU43")

# Share of this person's eye opening that these close at intensity 1. The movements of the heads fit one opening only:
# wide eyes would keep a gap of white, narrow eyes would be shut by tight lids.
LIDS = {"AU43": (0.98, 1.08), "AU07": (0.35, 0.6), "AU06": (0.2, 0.45)}


@dataclass(frozen=True)
class Person:
    head: Head
    neutral: Floats  # (V, 3)
    gain: Floats  # (A,) how far the face of this person moves at intensity 1
    mixture: tuple[Floats, ...]  # per unit the weights of its variants
    mesh: Mesh
    hung: tuple[HeadPart, ...]  # parts placed after the vertices of the head, in this order
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
        """The vertices (V, 3) of the head, showing the expression."""
        vertices = self.neutral.copy()
        for i, name in enumerate(UNITS):
            for side in range(2):
                amount = expression.intensity[i, side] * self.gain[i]
                if amount > 0.004:
                    for weight, variant in zip(self.mixture[i], self.head.units[name]):
                        if weight > 0.01:
                            _move(vertices, variant[side], amount * weight)
        for name, amount in expression.extras.items():
            if name in self.head.extras:
                _move(vertices, self.head.extras[name], np.float32(amount))
        if expression.sealed and expression.intensity[INDEX["AU25"]].max() < 0.1:
            self._close_lips(vertices)
        return vertices

    def _close_lips(self, vertices: Floats) -> None:
        """Lips stick together: if only a raised upper lip would part them, the lower one follows."""
        gap = _lip_gap(self.head, vertices) - self.rest_gap
        if gap > 0.01 and self.head.lip_closer is not None:
            closed = _lip_gap(self.head, self.neutral + self.head.lip_closer) - self.rest_gap
            vertices += np.float32(min(gap / -closed, 1.2)) * self.head.lip_closer

    def with_parts(self, vertices: Floats) -> Floats:
        """(V, 3) -> (V + parts, 3) in the numbering of the mesh."""
        return np.concatenate([vertices, *(part.placed(vertices) for part in self.hung)])

    def seen_intensity(self, expression: Expression, vertices: Floats) -> Floats:
        """The intensities (A, 2), with lids, lips and jaw as measured on the geometry, whatever moved them."""
        gap = _lip_gap(self.head, vertices) - self.rest_gap
        jaw = (_chin(self.head, self.neutral) - _chin(self.head, vertices)) / self.jaw_drop
        opening = _eye_opening(self.head, vertices) / np.maximum(_eye_opening(self.head, self.neutral), 0.01)
        seen = with_measured_eyes(expression.intensity, opening)
        return with_measured_mouth(seen, gap, jaw if expression.moves_jaw else 0.0)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _move(vertices: Floats, offsets: Floats, amount: np.float32) -> None:
    for i in range(vertices.shape[0]):
        for k in range(3):
            vertices[i, k] += amount * offsets[i, k]


def _chin(head: Head, vertices: Floats) -> float:
    """Height of the chin's lowest points, in eye distances."""
    return float(head.points.on(vertices)[7:10, 1].mean())


def _lip_gap(head: Head, vertices: Floats) -> float:
    """How far the upper lip's rim is above the lower lip's, in eye distances; below 0 for lips pressed together."""
    points = head.points.on(vertices)
    return float((points[61:64, 1] - points[[67, 66, 65], 1]).mean())


def _eye_opening(head: Head, vertices: Floats) -> Floats:
    """(2,) how far the lids are apart, left of the picture first, in eye distances."""
    height = head.points.on(vertices)[:, 1]
    return np.asarray((height[UPPER_LIDS] - height[LOWER_LIDS]).reshape(2, 2).mean(1), np.float32)


def draw_person(rng: np.random.Generator, assets: Assets, kind: int) -> Person:
    head = assets.heads[kind]
    age = float(rng.beta(1.2, 1.6))
    male = bool(rng.random() < 0.5)
    shape = _makehuman_shape(rng, head, age, male) if kind == MAKEHUMAN else _ict_shape(rng, head)
    # A taller body has its head higher: move the eyes back to the origin. Movements keep the scale of the model.
    eyes = head.points.on(head.neutral + shape)[36:48].mean(0)
    neutral = head.neutral + shape - eyes
    neutral = neutral + _resting(rng, head)
    mixture = tuple(_mixture(rng, len(head.units[name])) for name in UNITS)
    gain = np.clip(rng.normal(1.0, 0.13, len(UNITS)), 0.7, 1.35).astype(np.float32)
    rest = _eye_opening(head, neutral).mean()
    for name, shares in LIDS.items():
        drop = rest - _eye_opening(head, neutral + _whole(head, mixture, gain, name)).mean()
        gain[INDEX[name]] *= np.clip(rng.uniform(*shares) * rest / max(drop, 1e-3), 0.5, 2.0)
    hair = hair_colour(rng, age)
    wrap = draw_cover(rng, male, hair)
    mesh, hung = dress(rng, assets, head, neutral, hair, wrap=wrap)
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
