"""A head for the renderer: geometry, identity, action units, distractors, parts, the 68 points.

Model space: x to the right of the picture, y up, z to the camera, the middle between the eyes at the origin. Lengths
are in distances between the eye centres of the neutral head, so that both heads have the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numba as nb
import numpy as np
from numpy.typing import NDArray

from .head_points import Points

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

MAKEHUMAN, ICT = 0, 1

# Materials of triangles; the shader has code for each number.
SKIN, SPRITE, EYE, PLAIN, HAIR, CLOTH = range(6)


@dataclass(frozen=True)
class HeadPart:
    """A mesh other than skin. It is attached to vertices of the head, or consists of them if it has no anchors."""

    name: str
    material: int
    faces: Ints  # (F, 3) into the part's vertices, or into the head's if it has no anchors
    uv: Floats  # (F, 3, 2)
    anchors: Ints | None = None  # (P, 3) vertices of the head
    weights: Floats | None = None  # (P, 3)
    offset: Floats | None = None  # (P, 3) added to the weighted anchors
    spans: tuple[
        tuple[int, int, float], ...
    ] = ()  # per axis two vertices and their original distance: scales the offset

    def placed(self, vertices: Floats) -> Floats:
        """The part's vertices (P, 3) on a head of vertices (V, 3)."""
        assert self.anchors is not None
        assert self.weights is not None
        assert self.offset is not None
        offset = self.offset
        if self.spans:
            scale = [abs(vertices[a, k] - vertices[b, k]) / span for k, (a, b, span) in enumerate(self.spans)]
            offset = offset * np.array(scale, np.float32)
        return np.asarray(_hung(vertices, self.anchors, self.weights, offset), np.float32)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _hung(vertices: Floats, anchors: Ints, weights: Floats, offset: Floats) -> Floats:
    """The weighted means (P, 3) of anchors (P, 3) among vertices (V, 3), shifted by offset (P, 3)."""
    placed = offset.astype(np.float32)
    for i in range(anchors.shape[0]):
        for j in range(3):
            for k in range(3):
                placed[i, k] += weights[i, j] * vertices[anchors[i, j], k]
    return placed


@dataclass(frozen=True)
class Head:
    kind: int  # MAKEHUMAN or ICT
    neutral: Floats  # (V, 3)
    skin: Ints  # (F, 3)
    skin_uv: Floats  # (F, 3, 2) in the skins' texture
    identity: Floats  # (K, V, 3) offsets
    identity_names: tuple[str, ...]
    units: Mapping[str, tuple[Floats, ...]]  # per unit its variants, each (2, V, 3): the two sides
    extras: Mapping[str, Floats]  # movements that belong to none of the units: (V, 3)
    parts: tuple[HeadPart, ...]  # eyes, teeth, tongue; those with several shapes share a name
    cards: Mapping[str, HeadPart]  # brows, lashes, hair
    points: Points
    colour: Floats = field(repr=False)  # (V, 3) of vertices without texture
    openness: Floats = field(repr=False)  # (V,) how much of the surrounding light arrives, 1 = all
    lip_closer: Floats | None = None  # (V, 3) raises the lower lip, for a head whose raised upper lip parts the mouth
    eyeballs: tuple[
        NDArray[np.intp], ...
    ] = ()  # per eye the vertices whose colour is painted (empty where a texture does it)


def split_sides(offsets: Floats, x: Floats, blend: float) -> Floats:
    """(V, 3) -> (2, V, 3): a movement split at the middle of the face, softly over `blend` to either side."""
    right = np.clip(0.5 + 0.5 * x / blend, 0, 1)
    right = right * right * (3 - 2 * right)
    return np.stack([offsets * (1 - right)[:, None], offsets * right[:, None]]).astype(np.float32)


def in_eye_distances(head: Head) -> Head:
    """The head moved and scaled so that the neutral eye centres are 1 apart and their middle is the origin."""
    points = head.points.on(head.neutral)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    middle, scale = (left + right) / 2, np.float32(1 / np.linalg.norm(right - left))

    def scaled(part: HeadPart) -> HeadPart:
        if part.offset is None:
            return part
        spans = tuple((a, b, span * float(scale)) for a, b, span in part.spans)
        return replace(part, offset=part.offset * scale, spans=spans)

    return replace(
        head,
        neutral=(head.neutral - middle) * scale,
        identity=head.identity * scale,
        units={name: tuple(v * scale for v in variants) for name, variants in head.units.items()},
        lip_closer=None if head.lip_closer is None else head.lip_closer * scale,
        extras={name: offsets * scale for name, offsets in head.extras.items()},
        parts=tuple(scaled(part) for part in head.parts),
        cards={name: scaled(part) for name, part in head.cards.items()},
    )
