"""Which vertices of both heads carry the 68 points (iBUG order), at the same anatomical positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..faces.align import MIRROR

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# Seen from the camera: 0-16 jaw from the left of the picture to the right, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67
# lips.
ICT_VERTICES = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443,
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509,
    978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841,
    5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip

# MakeHuman's lids and lips are coarser than the ICT head's: these points are means of one or two rim vertices. Only the
# left of the picture and the middle line are listed; the other half is the mirror image. All other points are found by
# the texture coordinates that both heads share.
MAKEHUMAN_RIM = {
    36: (4854,), 37: (4848,), 38: (4865, 4866), 39: (68,), 40: (4862, 4863), 41: (4860,),
    48: (3736,), 49: (447, 5351), 50: (458,), 51: (466,), 57: (492,), 58: (5335, 486), 59: (370, 5335),
    60: (446,), 61: (453, 470), 62: (468, 474), 66: (493,), 67: (481,),
}  # fmt: skip


@dataclass(frozen=True)
class Points:
    vertices: Ints  # (68, 3)
    weights: Floats  # (68, 3)

    def on(self, vertices: Floats) -> Floats:
        """(V, D) -> (68, D)."""
        return np.asarray((vertices[self.vertices] * self.weights[:, :, None]).sum(1), np.float32)


def ict_points() -> Points:
    vertices = np.repeat(np.array(ICT_VERTICES, np.int32)[:, None], 3, 1)
    return Points(vertices, np.tile(np.array([1, 0, 0], np.float32), (68, 1)))


def makehuman_points(neutral: Floats, faces: Ints, faces_uv: Floats, ict_uv: Floats) -> Points:
    """The 68 points on MakeHuman's vertices `neutral` (V, 3): rims as listed, the rest by texture coordinates."""
    vertices, weights = np.zeros((68, 3), np.int32), np.zeros((68, 3), np.float32)
    for i in range(68):
        if i in MAKEHUMAN_RIM:
            named = MAKEHUMAN_RIM[i]
            vertices[i, : len(named)] = named
            weights[i, : len(named)] = 1 / len(named)
        elif MIRROR[i] in MAKEHUMAN_RIM or i > MIRROR[i]:
            continue
        else:
            face, weights[i] = _containing(faces_uv, ict_uv[ICT_VERTICES[i]])
            vertices[i] = faces[face]
    for i in range(68):
        if weights[i].any():
            continue
        source = MIRROR[i]
        weights[i] = weights[source]
        flipped = neutral[vertices[source]] * np.array([-1, 1, 1], np.float32)
        vertices[i] = [int(np.square(neutral - corner).sum(1).argmin()) for corner in flipped]
    return Points(vertices, weights)


def _containing(faces_uv: Floats, place: Floats) -> tuple[int, Floats]:
    """The triangle (F, 3, 2) that contains a position in the texture, and its barycentric weights."""
    origin, u, v = faces_uv[:, 0], faces_uv[:, 1] - faces_uv[:, 0], faces_uv[:, 2] - faces_uv[:, 0]
    area = u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1]
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    d = place - origin
    w1 = (d[:, 0] * v[:, 1] - v[:, 0] * d[:, 1]) / area
    w2 = (u[:, 0] * d[:, 1] - d[:, 0] * u[:, 1]) / area
    all_weights = np.stack([1 - w1 - w2, w1, w2], 1)
    best = int(all_weights.min(1).argmax())
    weights = np.clip(all_weights[best], 0, 1)
    return best, np.asarray(weights / weights.sum(), np.float32)
