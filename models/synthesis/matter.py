"""Input of the shader: triangles and their materials, light, and the surface of the skin.

Named tuples, because compiled functions accept them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]


class Mesh(NamedTuple):
    """All triangles of a picture, opaque ones first, then hair cut-outs, then blended cards (brows, lashes)."""

    faces: Ints  # (F, 3)
    uv: Floats  # (F, 3, 2)
    material: NDArray[np.uint8]  # (F,)
    sprite: Ints  # (F,)
    colour: Floats  # (V, 3)
    openness: Floats  # (V,)
    solid: int  # the first `solid` triangles are opaque
    cutout: int  # up to here they are cut-outs, from here on blended


class Light(NamedTuple):
    harmonics: Floats  # (9, 3) real spherical harmonics of the surrounding light, unnormalised basis
    directions: Floats  # (L, 3) towards the lamps; the first one casts shadows
    colours: Floats  # (L, 3)


class Surface(NamedTuple):
    """Appearance of the skin and cloth."""

    texture: Bytes  # (T, T, 3)
    shine: float
    gloss: float
    relief: Floats  # (B, B, 2) height in eye distances, and a factor on the light that arrives
    window: Floats  # (4,) u, v of the relief's first corner, width and height in texture coordinates
    cloth: Floats  # (3,) linear colour


class Shadow(NamedTuple):
    """Depth as seen from the first lamp."""

    depth: Floats  # (S, S)
    matrix: Floats  # (3, 4) camera space -> its pixels and depth


class Scene(NamedTuple):
    """A head before the camera, and everything that its colours depend on."""

    screen: Floats  # (V, 3) pixels and depth
    space: Floats  # (V, 3) camera space in eye distances
    normals: Floats  # (V, 3)
    mesh: Mesh
    sprites: Bytes  # (N, S, S, 4)
    surface: Surface
    light: Light
    shadow: Shadow
