"""One labelled picture from a person, an expression, light and a camera; the order of all steps."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .assets import Assets
from .backgrounds import draw_background
from .camera import HEADROOM, Frame, HeadPose, Lens, draw_curve, draw_lens, draw_light, draw_pose, photograph
from .expression import Expression, draw_expression
from .layers import put_glasses, put_wrap
from .matter import Light, Scene, Surface
from .occluders import put_occluder, unseen
from .person import Person, draw_person
from .rasteriser import draw, draw_cutout, empty_buffers, vertex_normals
from .shading import blend_cards, shade, shadow_map
from .skin import TONES
from .tone import develop
from .units import UNITS, UNKNOWN, presence

Floats = NDArray[np.float32]

SIDE = 160  # pixels of a stored picture: the face with a margin, so that training can jitter crops
SUPERSAMPLING = 1.5
PICTURES_PER_PERSON = 5
FACELESS = 0.08  # share of pictures without a face
OCCLUDED = 0.12  # share of faces with something in front


@dataclass(frozen=True)
class LabelledRender:
    image: NDArray[np.uint8]  # (160, 160, 3) RGB
    intensity: Floats  # (A, 2)
    presence: NDArray[np.int8]  # (A,)
    points: Floats  # (68, 2) pixels, centres at integers
    pose: Floats  # (3,) yaw, pitch, roll in degrees; roll counter-clockwise, as in shards
    box: Floats  # (4,) x0 y0 x1 y1 around the points
    identity: int
    face: int
    head: int


@dataclass(frozen=True)
class Shot:
    """A rendered face before the camera: linear light, which pixels are covered, where the points are."""

    linear: Floats  # (H, W, 3)
    covered: NDArray[np.bool_]  # (H, W)
    hidden: NDArray[np.bool_]  # (H, W) where hair or cloth lies over the face
    depth: Floats  # (H, W)
    points: Floats  # (68, 2) in pixels of the shot, centres at half numbers


def take(
    person: Person,
    vertices: Floats,
    intensity: Floats,
    pose: HeadPose,
    lens: Lens,
    light: Light,
    frame: Frame,
    assets: Assets,
) -> Shot:
    """Renders `vertices` (V, 3), the person's head showing `intensity` (A, 2), into a frame of pixels."""
    mesh = person.mesh
    turned = np.ascontiguousarray(person.with_parts(vertices) @ pose.rotation().T)
    screen = lens.project(turned, frame)
    normals = vertex_normals(turned, mesh.faces)
    depth, visible = empty_buffers(*frame)
    draw(screen, mesh.faces[: mesh.solid], depth, visible, True)
    draw_cutout(screen, mesh.faces[: mesh.cutout], mesh.solid, mesh.uv, mesh.sprite, assets.sprites, 1, depth, visible)
    surface = Surface(
        texture=person.skin.texture,
        shine=person.shine,
        gloss=person.gloss,
        relief=person.wrinkles.relief(intensity),
        window=assets.face.window,
        cloth=person.cloth,
    )
    shadow = shadow_map(turned, person.head.skin, light.directions[0])
    scene = Scene(screen, turned, normals, mesh, assets.sprites, surface, light, shadow)
    linear = np.zeros((*frame, 3), np.float32)
    shade(linear, visible, scene)
    blend_cards(linear, depth, scene, person.brow_strength, 0.06)
    points = lens.project(np.ascontiguousarray(person.head.points.on(turned[: len(vertices)])), frame)[:, :2]
    covered = visible >= 0
    hidden = visible >= mesh.solid
    if person.wrap:
        level = light.harmonics[0] + np.float32(0.5) * light.colours.sum(0)
        covered, front = put_wrap(person.wrap, linear, covered, level, pose.rotation(), lens)
        hidden |= front
    return Shot(linear, covered, hidden, depth, points)


def exposure(rng: np.random.Generator, shot: Shot) -> Floats:
    """(3,) gain: automatic exposure that meters the face imprecisely, and a white balance that is slightly off."""
    covered = int(np.count_nonzero(shot.covered))
    level = float(shot.linear.sum()) / (3 * covered) if covered else 0.3  # black where nothing is covered
    target = 0.27 * np.exp(rng.normal(0, 0.33))
    automatic = rng.uniform(0.5, 0.9)  # a camera leaves dark skin darker than light skin
    gain = (target / max(level, 1e-3)) ** automatic / HEADROOM
    return np.asarray(gain * np.clip(1 + rng.normal(0, 0.05, 3), 0.8, 1.25), np.float32)


def make_picture(assets: Assets, seed: int, number: int) -> tuple[LabelledRender, Expression | None]:
    """Picture `number` of the endless series `seed`; depends on these two numbers and the assets only."""
    identity, rng = number // PICTURES_PER_PERSON, np.random.default_rng([seed, 1, number])
    person = _person(assets, seed, identity)
    if rng.random() < FACELESS:
        return _without_face(rng, person, assets, identity), None
    expression = draw_expression(rng, assets.statistics)
    vertices = person.vertices(expression)
    intensity = person.seen_intensity(expression, vertices)
    pose, lens, light = draw_pose(rng), draw_lens(rng), draw_light(rng)
    side = round(SIDE * SUPERSAMPLING)
    shot = take(person, vertices, intensity, pose, lens, light, (side, side), assets)
    gain, curve, image = exposure(rng, shot), draw_curve(rng), draw_background(rng, side)
    develop(image, shot.linear, shot.covered, gain, curve)
    hidden = shot.hidden
    if person.glasses:
        image, dark = put_glasses(person.glasses, image, shot.depth, pose.rotation(), lens, float(rng.uniform(0, 3)))
        hidden = hidden | dark
    if rng.random() < OCCLUDED:
        cheek = image[tuple(np.clip(shot.points[[2, 14, 30]].mean(0).astype(int), 0, side - 1)[::-1])]
        image, over = put_occluder(rng, image, shot.points, cheek)
        hidden = hidden | over
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    points = shot.points * (SIDE / side) - 0.5
    picture = LabelledRender(
        image=photograph(rng, image),
        intensity=intensity,
        presence=unseen(presence(intensity), shot.points, hidden),
        points=points.astype(np.float32),
        pose=np.array([pose.yaw, pose.pitch, -pose.roll_clockwise], np.float32),
        box=np.concatenate([points.min(0), points.max(0)]).astype(np.float32),
        identity=identity,
        face=1,
        head=person.head.kind,
    )
    return picture, expression


def _without_face(rng: np.random.Generator, person: Person, assets: Assets, identity: int) -> LabelledRender:
    """Backgrounds, things, skin without a face, the back of a head, a body whose face is outside the picture."""
    side = round(SIDE * SUPERSAMPLING)
    image = draw_background(rng, side)
    kind = rng.choice(["background", "things", "head"], p=[0.35, 0.25, 0.4])
    if kind == "things":
        for _ in range(int(rng.integers(1, 5))):
            somewhere = rng.uniform(0, side, (68, 2)).astype(np.float32)
            image, _ = put_occluder(rng, image, somewhere, (TONES[int(rng.integers(len(TONES)))] ** (1 / 2.2)))
    elif kind == "head":
        pose, lens, light = draw_pose(rng), draw_lens(rng), draw_light(rng)
        if rng.random() < 0.5:
            pose = HeadPose(float(rng.uniform(120, 240)), pose.pitch, pose.roll_clockwise)
        else:
            away = (float(rng.uniform(-0.2, 1.2)), float(rng.choice([-0.75, 1.5])))
            lens = Lens(lens.fov, lens.eye_distance * float(rng.uniform(0.9, 1.6)), away)
        nothing = np.zeros((len(UNITS), 2), np.float32)
        shot = take(person, person.neutral, nothing, pose, lens, light, (side, side), assets)
        develop(image, shot.linear, shot.covered, exposure(rng, shot), draw_curve(rng))
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return LabelledRender(
        image=photograph(rng, image),
        intensity=np.zeros((len(UNITS), 2), np.float32),
        presence=np.full(len(UNITS), UNKNOWN, np.int8),
        points=np.zeros((68, 2), np.float32),
        pose=np.zeros(3, np.float32),
        box=np.zeros(4, np.float32),
        identity=identity,
        face=0,
        head=person.head.kind,
    )


_last: dict[tuple[int, int, int], Person] = {}


def _person(assets: Assets, seed: int, identity: int) -> Person:
    """Caches the last person, because consecutive pictures show the same one."""
    key = (id(assets), seed, identity)
    if key not in _last:
        _last.clear()
        rng = np.random.default_rng([seed, 2, identity])
        _last[key] = draw_person(rng, assets, int(rng.integers(2)))
    return _last[key]
