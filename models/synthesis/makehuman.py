"""The MakeHuman head (CC0) with FACSHuman's action units (LGPL-3.0), read from makehuman*.npz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .head_points import Points, makehuman_points
from .heads import EYE, HAIR, MAKEHUMAN, SPRITE, Floats, Head, HeadPart, Ints, in_eye_distances, split_sides

BUST = 5.0  # decimetres above the model's origin: collar bones; nothing below them is ever visible
BLEND = 0.12  # decimetres over which a movement fades from one half of the face to the other

_UPPER, _LOWER, _JAW = "01 Upper Face AUs/", "02 Lower Face AUs/", "03 Lip Parting and Jaw Opening/"
_EYES, _MORE = "04 Eye Positions/", "06 Miscellaneous AUs/"

# Per unit weighted sums of shapes, several of them as variants: FACSHuman's units, corrected where they move unlike the
# definition of the unit (its AU25 only lifts the upper lip, its AU10 barely does), and the head's
# ARKit-like shapes ("th/", "*" for both sides).
RECIPES: dict[str, tuple[dict[str, float], ...]] = {
    "AU01": ({_UPPER + "1": 0.7}, {_UPPER + "1_a": 1.1}, {"th/browInnerUp": 1.5}),
    "AU02": ({_UPPER + "2": 1.0}, {_UPPER + "2_a": 1.3}, {"th/browOuterUp*": 1.5}),
    "AU04": (
        {_UPPER + "4": 0.9}, {_UPPER + "4_a": 1.0}, {_UPPER + "4_b": 1.0}, {"th/browDown*": 1.1, _UPPER + "4_a": 0.3},
    ),
    "AU05": ({_UPPER + "5": 1.0}, {"th/eyeWide*": 1.15}),
    "AU06": (
        {_UPPER + "6": 0.9, "th/eyeSquint*": 0.8}, {_UPPER + "6_a": 0.9, "th/eyeSquint*": 0.7},
        {_UPPER + "6_b": 0.9, "th/eyeSquint*": 0.8}, {"th/cheekSquint*": 1.2, _UPPER + "6": 0.4, "th/eyeSquint*": 1.0},
    ),
    "AU07": ({_UPPER + "7": 1.0}, {"th/eyeSquint*": 1.3, _UPPER + "43": 0.12}),
    "AU09": (
        {_LOWER + "9": 1.3, "th/noseSneer*": 1.2}, {_LOWER + "9_a": 1.3, "th/noseSneer*": 1.2}, {"th/noseSneer*": 2.2},
    ),
    "AU10": (
        {_LOWER + "10": 1.0, "th/mouthUpperUp*": 1.2}, {"th/mouthUpperUp*": 1.6},
        {_LOWER + "10": 1.5, _JAW + "25": 0.5},
    ),
    "AU12": ({_LOWER + "12": 1.0}, {_LOWER + "12_a": 1.0}, {_LOWER + "12_b": 1.0}, {"th/mouthSmile*": 0.8}),
    "AU14": ({_LOWER + "14": 1.0}, {"th/mouthDimple*": 0.7, _LOWER + "14": 0.5}),
    "AU15": ({_LOWER + "15": 1.35}, {"th/mouthFrown*": 1.1}),
    "AU17": ({_LOWER + "17": 1.0}, {_LOWER + "17_a": 1.0}, {"th/mouthShrugLower": 1.2, _LOWER + "17": 0.3}),
    "AU20": ({_LOWER + "20": 0.8}, {"th/mouthStretch*": 1.5}),
    "AU23": ({_LOWER + "23": 1.0}, {"th/mouthRollUpper": 0.5, "th/mouthRollLower": 0.7, _LOWER + "23": 0.3}),
    "AU24": ({_LOWER + "24": 1.4}, {_LOWER + "24": 1.2, "th/mouthShrugLower": 0.2}),
    "AU25": (
        {_LOWER + "16": 0.8, _JAW + "25": 0.25}, {_LOWER + "16": 0.5, _JAW + "25_a": 0.35},
        {"th/mouthLowerDown*": 1.2, _LOWER + "16": 0.3},
    ),
    # FACSHuman's jaw drop at 1 is a wide open mouth (AU27); coders call half of it AU26.
    "AU26": ({_JAW + "26": 0.5}, {_JAW + "26_a": 0.5}, {"th/jawOpen": 0.5}),
    "AU43": ({_UPPER + "43": 1.0},),
}  # fmt: skip

# Movements of a face that belong to none of the units. "th/" names the ARKit-like shapes.
# FACSHuman turns the eyes alone; upper lids follow a gaze.
EXTRAS: dict[str, dict[str, float]] = {
    "pucker": {_LOWER + "18": 1.0},
    "funnel": {"th/mouthFunnel": 1.0},
    "suck": {_LOWER + "28": 1.0},
    "bite": {_LOWER + "28_bottom": 1.0},
    "puff": {_MORE + "34": 1.0},
    "jaw_forward": {_MORE + "29": 1.0},
    "jaw_left": {_MORE + "R30": 1.0},
    "jaw_right": {_MORE + "L30": 1.0},
    "mouth_left": {"th/mouthRight": 1.0},
    "mouth_right": {"th/mouthLeft": 1.0},
    "nostrils": {_MORE + "38": 1.0},
    "look_right": {_EYES + "61": 1.0},
    "look_left": {_EYES + "62": 1.0},
    "look_up": {_EYES + "63": 1.0, _UPPER + "5": 0.7},
    "look_down": {_EYES + "64": 1.0, _UPPER + "43": 0.75},
    "tongue": {_JAW + "26_tongue_out": 1.0},
} | {
    f"say_{sound}": {f"th/viseme_{sound}": 1.0}
    for sound in ("PP", "FF", "TH", "DD", "kk", "CH", "nn", "RR", "aa", "O", "U")
}

PARTS = {
    "eyes/low-poly": ("eyes", EYE),
    "teeth/teeth_base": ("teeth", SPRITE),
    "teeth/teeth_shape01": ("teeth", SPRITE),
    "teeth/teeth_shape02": ("teeth", SPRITE),
    "teeth/teeth_shape03": ("teeth", SPRITE),
    "tongue/tongue01": ("tongue", SPRITE),
}


CARDS = ("eyebrows/", "eyelashes/", "hair/")


def read_head(main: Mapping[str, NDArray[Any]], parts: Mapping[str, NDArray[Any]], ict_uv: Floats) -> Head:
    everything = main["V"].astype(np.float32)
    used = (main["G"] == "body") & (everything[:, 1][main["F"]].min(1) > BUST)
    faces, uv = main["F"][used].astype(np.int32), main["VT"][main["FT"][used]].astype(np.float32)
    meshes = _meshes(parts)
    points = makehuman_points(everything, faces, uv, ict_uv)

    used = [faces.ravel(), points.vertices.ravel()]
    for mesh in meshes.values():
        used += [mesh["map"][:, :3].astype(np.int32).ravel(), mesh["scale"][:, :2].astype(np.int32).ravel()]
    remaining = np.unique(np.concatenate(used))
    renumber = np.zeros(len(everything), np.int32)
    renumber[remaining] = np.arange(len(remaining), dtype=np.int32)
    neutral = everything[remaining]

    def offsets(group: str) -> dict[str, Floats]:
        rows = main[group][:, remaining].astype(np.float32)
        return {str(name): row for name, row in zip(main[group + "_k"], rows) if not str(name).startswith("._")}

    shapes = offsets("facs") | {"th/" + name: row for name, row in offsets("th").items()}

    def total(recipe: Mapping[str, float]) -> Floats:
        result = np.zeros_like(neutral)
        for name, weight in recipe.items():
            for full in (name.replace("*", "Left"), name.replace("*", "Right")) if "*" in name else (name,):
                result += np.float32(weight) * shapes[full]
        return np.asarray(result, np.float32)

    identity: dict[str, Floats] = {
        f"{group}/{name}": row for group in ("macro", "det", "asym") for name, row in offsets(group).items()
    }
    identity = {name: row for name, row in identity.items() if np.abs(row).max() > 1e-4 and "-child" not in name}
    openness = np.ones(len(neutral), np.float32)
    openness[renumber[faces[(uv[..., 0].min(1) > 0.72) & (uv[..., 1].max(1) < 0.3)]].ravel()] = 0.25  # inside the mouth
    head = Head(
        kind=MAKEHUMAN,
        neutral=neutral,
        skin=renumber[faces],
        skin_uv=uv,
        identity=np.stack(list(identity.values())),
        identity_names=tuple(identity),
        units={
            u: tuple(split_sides(total(r), neutral[:, 0], BLEND) for r in recipes) for u, recipes in RECIPES.items()
        },
        extras={name: total(recipe) for name, recipe in EXTRAS.items()},
        lip_closer=total({_LOWER + "16": -1.0}),
        parts=tuple(_part(kind, material, meshes[name], renumber) for name, (kind, material) in PARTS.items()),
        cards={
            name.split("/")[1]: _part(name, HAIR, mesh, renumber)
            for name, mesh in meshes.items()
            if name.startswith(CARDS)
        },
        points=Points(renumber[points.vertices], points.weights),
        colour=np.ones_like(neutral),
        openness=openness,
    )
    return in_eye_distances(head)


def _meshes(parts: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    meshes: dict[str, dict[str, NDArray[Any]]] = {}
    for key in parts:
        name, column = key.rsplit(".", 1)
        meshes.setdefault(name.replace("__", "/"), {})[column] = parts[key]
    return {n: mesh for n, mesh in meshes.items() if (n in PARTS or n.startswith(CARDS)) and len(mesh["map"])}


def _part(name: str, material: int, mesh: Mapping[str, NDArray[Any]], renumber: Ints) -> HeadPart:
    table = mesh["map"]
    return HeadPart(
        name=name,
        material=material,
        faces=mesh["F"].astype(np.int32),
        uv=mesh["VT"][mesh["FT"]].astype(np.float32),
        anchors=renumber[table[:, :3].astype(np.int32)],
        weights=table[:, 3:6].astype(np.float32),
        offset=table[:, 6:9].astype(np.float32),
        spans=tuple((int(renumber[int(a)]), int(renumber[int(b)]), float(s)) for a, b, s in mesh["scale"]),
    )
