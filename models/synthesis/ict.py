"""The ICT-FaceKit light head (MIT, (c) 2020 USC Institute for Creative Technologies), read from ict*.npz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .head_points import ict_points
from .heads import HAIR, ICT, PLAIN, Floats, Head, HeadPart, in_eye_distances, split_sides

BLEND = 0.8  # centimetres over which a movement fades from one half of the face to the other

# Per unit a weighted sum of the head's ARKit-like shapes; "*" stands for both sides. Several recipes are variants.
RECIPES: dict[str, tuple[dict[str, float], ...]] = {
    "AU01": ({"browInnerUp_*": 1.35}, {"browInnerUp_*": 1.15}),
    "AU02": ({"browOuterUp_*": 1.15}, {"browOuterUp_*": 1.3}),
    "AU04": (
        {"browDown_*": 1.2, "browInnerUp_*": -0.45},
        {"browDown_*": 1.3},
        {"browDown_*": 0.8, "browInnerUp_*": -0.7},
    ),
    "AU05": ({"eyeWide_*": 1.2},),
    "AU06": (
        {"cheekSquint_*": 1.0, "cheekRaiser_*": 1.0},
        {"cheekSquint_*": 1.3, "cheekRaiser_*": 0.6, "eyeSquint_*": 0.25},
    ),
    "AU07": ({"eyeSquint_*": 1.3, "eyeBlink_*": 0.25}, {"eyeSquint_*": 1.5, "eyeBlink_*": 0.15}),
    "AU09": (
        {"noseSneer_*": 1.3, "mouthUpperUp_*": -0.55},
        {"noseSneer_*": 1.3, "mouthUpperUp_*": -0.8, "browDown_*": 0.25},
    ),
    "AU10": ({"mouthUpperUp_*": 1.0, "noseSneer_*": 0.2}, {"mouthUpperUp_*": 1.15, "noseSneer_*": 0.08}),
    "AU12": ({"mouthSmile_*": 1.05}, {"mouthSmile_*": 0.95, "mouthDimple_*": 0.15}),
    "AU14": ({"mouthDimple_*": 1.4}, {"mouthDimple_*": 1.25, "mouthPress_*": 0.25}),
    "AU15": ({"mouthFrown_*": 1.4}, {"mouthFrown_*": 1.55}),
    "AU17": ({"mouthShrugLower": 0.9, "mouthShrugUpper": 0.35}, {"mouthShrugLower": 1.05, "mouthShrugUpper": 0.55}),
    "AU20": ({"mouthStretch_*": 1.15},),
    "AU23": (
        {"mouthPress_*": 0.7, "mouthRollLower": 0.5, "mouthRollUpper": 0.5, "mouthPucker": 0.25},
        {"mouthPress_*": 0.5, "mouthRollLower": 0.6, "mouthRollUpper": 0.6, "mouthPucker": 0.15},
    ),
    "AU24": ({"mouthPress_*": 1.6, "mouthShrugLower": 0.3}, {"mouthPress_*": 1.8, "mouthRollLower": 0.2}),
    "AU25": (
        {"mouthLowerDown_*": 0.5, "mouthUpperUp_*": 0.35, "jawOpen": 0.08},
        {"mouthLowerDown_*": 0.6, "mouthUpperUp_*": 0.12, "jawOpen": 0.12},
    ),
    "AU26": ({"jawOpen": 0.55}, {"jawOpen": 0.6, "mouthLowerDown_*": 0.1}),
    "AU43": ({"eyeBlink_*": 1.0},),
}

EXTRAS: dict[str, dict[str, float]] = {
    "pucker": {"mouthPucker": 1.0},
    "funnel": {"mouthFunnel": 1.0},
    "suck": {"mouthRollLower": 0.8, "mouthRollUpper": 0.8},
    "bite": {"mouthRollLower": 1.0, "mouthUpperUp_*": 0.15},
    "puff": {"cheekPuff_*": 1.0},
    "jaw_forward": {"jawForward": 1.0},
    "jaw_left": {"jawRight": 1.0},
    "jaw_right": {"jawLeft": 1.0},
    "mouth_left": {"mouthRight": 1.0},
    "mouth_right": {"mouthLeft": 1.0},
    "look_right": {"eyeLookOut_L": 1.0, "eyeLookIn_R": 1.0},
    "look_left": {"eyeLookIn_L": 1.0, "eyeLookOut_R": 1.0},
    "look_up": {"eyeLookUp_*": 1.0},
    "look_down": {"eyeLookDown_*": 1.0},
    "shrug_upper": {"mouthShrugUpper": 0.8},
    "say_PP": {"mouthPress_*": 0.25, "mouthRollLower": 0.2, "mouthRollUpper": 0.2},
    "say_FF": {"mouthRollLower": 0.6, "mouthUpperUp_*": 0.25, "jawOpen": 0.05},
    "say_TH": {"jawOpen": 0.16, "mouthLowerDown_*": 0.25},
    "say_kk": {"jawOpen": 0.14, "mouthLowerDown_*": 0.3, "mouthUpperUp_*": 0.15},
    "say_CH": {"mouthFunnel": 0.6, "jawOpen": 0.08},
    "say_aa": {"jawOpen": 0.38, "mouthLowerDown_*": 0.15},
    "say_O": {"mouthFunnel": 0.6, "jawOpen": 0.28},
    "say_U": {"mouthPucker": 0.7, "mouthFunnel": 0.25, "jawOpen": 0.06},
}

SKIN_MESHES = ("M_Face", "M_BackHead")
SKIN_VERTICES = 14062  # face and back of the head come first
GUMS, TEETH = slice(14062, 17039), slice(17039, 21451)
EYES = (slice(23021, 24591), slice(21451, 23021))  # left of the picture, right of the picture
SOCKET = slice(11248, 13294)  # the inside of the mouth, drawn as skin


def read_head(
    main: Mapping[str, NDArray[Any]], fit: Mapping[str, NDArray[Any]], sprites: Mapping[str, HeadPart]
) -> Head:
    """`sprites` are MakeHuman's cards: the ICT head has the same brows and hair, fitted to it (ict_fit.npz)."""
    neutral = main["V"].astype(np.float32)
    faces = main["F"].astype(np.int32)
    materials = [str(name) for name in main["mats"]]
    mesh_of = {name: main["M"] == i for i, name in enumerate(materials)}
    shapes = {str(n): row for n, row in zip(main["exnames"], main["E"].astype(np.float32))}

    def total(recipe: Mapping[str, float]) -> Floats:
        result = np.zeros_like(neutral)
        for name, weight in recipe.items():
            for full in (name.replace("*", "L"), name.replace("*", "R")) if "*" in name else (name,):
                result += np.float32(weight) * shapes[full]
        return result

    skin = faces[np.logical_or.reduce([mesh_of[name] for name in SKIN_MESHES])]
    uv = np.zeros((len(neutral), 2), np.float32)
    uv[:SKIN_VERTICES] = fit["uv"]
    _mirror_mouth(uv, neutral[:SKIN_VERTICES])
    solid = ("M_GumsTongue", "M_Teeth", "M_ScleraLeft", "M_IrisLeft", "M_ScleraRight", "M_IrisRight")
    colour, openness = np.ones_like(neutral), np.ones(len(neutral), np.float32)
    colour[GUMS], openness[GUMS] = (0.62, 0.28, 0.28), 0.45 * _frontness(neutral[GUMS])
    colour[TEETH], openness[TEETH] = (0.88, 0.84, 0.77), 0.7 * _frontness(neutral[TEETH])
    openness[SOCKET] = 0.2
    head = Head(
        kind=ICT,
        neutral=neutral,
        skin=skin,
        skin_uv=uv[skin],
        identity=main["I"].astype(np.float32),
        identity_names=tuple(f"mode{i:03d}" for i in range(len(main["I"]))),
        units={
            u: tuple(split_sides(total(r), neutral[:, 0], BLEND) for r in recipes) for u, recipes in RECIPES.items()
        },
        extras={name: total(recipe) for name, recipe in EXTRAS.items()},
        parts=(_own_part("inside", faces[np.logical_or.reduce([mesh_of[name] for name in solid])]),),
        cards={name: _fitted(fit, name, part) for name, part in sprites.items() if _key(part.name) + ".tri" in fit},
        points=ict_points(),
        colour=colour,
        openness=openness,
        lip_closer=total({"mouthLowerDown_*": -1.0}),
        eyeballs=tuple(np.arange(span.start, span.stop) for span in EYES),
    )
    return in_eye_distances(head)


def _frontness(inside: Floats) -> Floats:
    """Light that reaches the inside of the mouth: all of it at the front teeth, little at the molars."""
    depth = (inside[:, 2].max() - inside[:, 2]) / 5.0  # centimetres, over the depth of the row of teeth
    return np.asarray(np.clip(1 - depth, 0.12, 1) ** 2, np.float32)


def _mirror_mouth(uv: Floats, skin: Floats) -> None:
    """The fitted coordinates are broken at one corner of the mouth, so that half mirrors the other."""
    left, middle = skin[5708], skin[5533]  # the intact corner and the middle of the upper lip
    reach = 1.25 * float(np.linalg.norm(left - middle))
    damaged = np.flatnonzero((skin[:, 0] > 0.02) & (np.abs(skin[:, 1] - left[1]) < 0.8 * reach))
    damaged = damaged[np.linalg.norm(skin[damaged] - middle, axis=1) < 2.2 * reach]
    sound = np.flatnonzero((skin[:, 0] < 0.02) & (np.linalg.norm(skin - middle, axis=1) < 2.6 * reach))
    flipped = skin[damaged] * np.array([-1, 1, 1], np.float32)
    axis = float(np.median(uv[: len(skin)][np.abs(skin[:, 0]) < 0.02, 1]))
    for start in range(0, len(damaged), 256):
        rows = slice(start, start + 256)
        nearest = sound[np.square(flipped[rows, None] - skin[None, sound]).sum(2).argmin(1)]
        uv[damaged[rows], 0] = uv[nearest, 0]
        uv[damaged[rows], 1] = 2 * axis - uv[nearest, 1]


def _own_part(name: str, faces: NDArray[np.int32]) -> HeadPart:
    return HeadPart(name, PLAIN, faces, np.zeros((len(faces), 3, 2), np.float32))


def _key(name: str) -> str:
    return name.replace("/", "__")


def _fitted(fit: Mapping[str, NDArray[Any]], name: str, part: HeadPart) -> HeadPart:
    anchors = fit[_key(part.name) + ".tri"].astype(np.int32)
    weights = np.full(anchors.shape, 1 / 3, np.float32)
    return HeadPart(
        part.name, HAIR, part.faces, part.uv, anchors, weights, fit[_key(part.name) + ".offset"].astype(np.float32)
    )
