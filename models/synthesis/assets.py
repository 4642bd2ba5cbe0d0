"""Reads the folder of public 3-D assets and checks that it is complete; `asset_sources.py` lists the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from . import ict, makehuman
from .asset_sources import FILES, SOURCES
from .facemap import FaceMap, bake
from .heads import Head
from .tone import LINEAR

SPRITE_SIDE = 256
# A brow is some 40 pixels wide in a picture, so its sprite is averaged down first to avoid aliasing.
FINE_SIDE = 96

EYES = tuple(f"{c}_eye" for c in ("brown", "brownlight", "blue", "bluegreen", "green", "grey", "ice", "lightblue"))
BROWS = tuple(f"eyebrow{i:03d}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12))
LASHES = tuple(f"eyelashes{i:02d}" for i in (1, 2, 3))
HAIR = ("short01", "short02", "short03", "bob02")
SPRITES: dict[str, str] = (
    {name: name for name in (*EYES, *BROWS, *LASHES)}
    | {name: f"{name}_diffuse" for name in HAIR}
    | {"teeth": "teeth", "tongue": "tongue01_diffuse"}
)


@dataclass(frozen=True)
class Assets:
    heads: tuple[Head, Head]  # MakeHuman, ICT
    face: FaceMap  # where on the face the skins' texels lie
    skins: tuple[NDArray[np.uint8], ...]  # each (1024, 1024, 3) RGB, all with the same texture coordinates
    skin_names: tuple[str, ...]
    sprites: NDArray[np.uint8]  # (K, 256, 256, 4) RGBA
    sprite_index: Mapping[str, int]
    sprite_mean: NDArray[np.float32]  # (K, 3) linear colour of what is opaque
    statistics: Mapping[str, Any]  # au_stats.json


@lru_cache(maxsize=2)
def load_assets(folder: Path) -> Assets:
    missing = [name for name in FILES if not (folder / name).exists()]
    textures = folder / "textures"
    skins = sorted(textures.glob("*skinned*diffuse*.jpg"))
    missing += [f"textures/{file}.png" for file in SPRITES.values() if not (textures / f"{file}.png").exists()]
    if not skins:
        missing.append("textures/*skinned*diffuse*.jpg")
    if missing:
        raise UserError(
            f"The assets folder {folder} lacks {', '.join(missing[:6])}{' and more' if len(missing) > 6 else ''}. "
            f"Give --assets a folder with all of these public files.\n{SOURCES}"
        )
    with (
        np.load(folder / "makehuman.npz") as main,
        np.load(folder / "makehuman_parts.npz") as parts,
        np.load(folder / "ict.npz") as other,
        np.load(folder / "ict_fit.npz") as fit,
    ):
        first = makehuman.read_head(main, parts, fit["uv"])
        second = ict.read_head(other, fit, first.cards)
    sprites = {name: _sprite(textures / f"{file}.png", fine=name in BROWS + LASHES) for name, file in SPRITES.items()}
    # The brown iris is a dark red, while most people's is a dark and dull version of the light brown one.
    light = sprites["brownlight_eye"].astype(np.float32)
    iris = np.ptp(sprites["brown_eye"][..., :3].astype(np.float32), axis=2, keepdims=True) > 60
    sprites["brown_eye"] = np.where(iris, light * (0.42, 0.36, 0.34, 1.0), light).astype(np.uint8)
    return Assets(
        heads=(first, second),
        face=bake(first),
        skins=tuple(np.ascontiguousarray(_read(path, cv2.IMREAD_COLOR)[:, :, ::-1]) for path in skins),
        skin_names=tuple(path.stem for path in skins),
        sprites=np.stack(list(sprites.values())),
        sprite_mean=np.stack([LINEAR[s[..., :3]][s[..., 3] > 128].mean(0) for s in sprites.values()]),
        sprite_index={name: i for i, name in enumerate(SPRITES)},
        statistics=json.loads((folder / "au_stats.json").read_text(encoding="utf-8")),
    )


def _read(path: Path, how: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), how)
    if picture is None:
        raise UserError(f"{path} is not a readable image. Download the assets again.")
    return np.asarray(picture, np.uint8)


def _sprite(path: Path, fine: bool) -> NDArray[np.uint8]:
    """RGBA, averaged with colours weighted by alpha, so that invisible background does not bleed in."""
    picture = _read(path, cv2.IMREAD_UNCHANGED)
    if picture.ndim == 2:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA), np.uint8)
    elif picture.shape[2] == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA), np.uint8)
    pixels = picture.astype(np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    if fine:
        pixels = cv2.resize(pixels, (FINE_SIDE, FINE_SIDE), interpolation=cv2.INTER_AREA)
    shrinks = pixels.shape[0] > SPRITE_SIDE
    size = (SPRITE_SIDE, SPRITE_SIDE)
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-4)
    return np.ascontiguousarray((np.clip(pixels[..., [2, 1, 0, 3]], 0, 1) * 255).astype(np.uint8))
