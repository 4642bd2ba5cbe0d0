"""Puts a person, an expression, a light and a camera together: one labelled picture. The only place that knows the order."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .assets import Assets
from .backgrounds import draw_background
from .camera import Lens, Pose, draw_curve, draw_lens, draw_light, draw_pose, photograph
from .expression import Expression, draw_expression
from .person import Person, draw_person
from .rasteriser import draw, draw_cutout, empty_buffers, vertex_normals
from .shading import LINEAR, Light, Surface, blend_cards, develop, shade, shadow_map
from .units import UNITS, presence

Floats = NDArray[np.float32]

SIDE = 160  # pixels of a stored picture: the face and a margin, so that a trainer can cut its own jittered crops
SUPERSAMPLING = 1.5
PICTURES_PER_PERSON = 5


@dataclass(frozen=True)
class Picture:
    image: NDArray[np.uint8]  # (160, 160, 3) RGB
    intensity: Floats  # (A, 2)
    presence: NDArray[np.int8]  # (A,)
    points: Floats  # (68, 2) pixels, centres at integers
    pose: Floats  # (3,) yaw, pitch, roll in degrees
    box: Floats  # (4,) x0 y0 x1 y1 around the points
    identity: int
    face: int
    head: int


@dataclass(frozen=True)
class Shot:
    """A rendered face before the camera: linear light, which pixels are covered, where the points are."""

    linear: Floats  # (R, R, 3)
    covered: NDArray[np.bool_]  # (R, R)
    points: Floats  # (68, 2) in pixels of the shot, centres at half numbers


def take(person: Person, vertices: Floats, pose: Pose, lens: Lens, light: Light, side: int, assets: Assets) -> Shot:
    """Renders `vertices` (V, 3), the person's head with an expression, into a square of `side` pixels."""
    mesh = person.mesh
    turned = np.ascontiguousarray(person.with_parts(vertices) @ pose.rotation().T)
    screen = lens.project(turned, side)
    normals = vertex_normals(turned, mesh.faces)
    depth, visible = empty_buffers(side, side)
    draw(screen, mesh.faces[: mesh.solid], depth, visible)
    draw_cutout(screen, mesh.faces[: mesh.cutout], mesh.solid, mesh.uv, mesh.sprite, assets.sprites, 1, depth, visible)
    shadow, matrix = shadow_map(turned, person.head.skin, light.directions[0])
    surface = person_surface(person)
    linear = np.zeros((side, side, 3), np.float32)
    shared = (
        screen, mesh.faces, mesh.uv, mesh.material, mesh.sprite, mesh.colour, mesh.openness, turned, normals,
        surface.texture, LINEAR, assets.sprites, surface.tint, surface.shine, surface.gloss, surface.relief,
        surface.window, surface.cloth, light.harmonics, light.directions, light.colours, shadow, matrix, 0.12,
    )  # fmt: skip
    shade(linear, visible, *shared)
    blend_cards(linear, depth, mesh.cutout, person.brow_strength, 0.06, *shared)
    points = lens.project(np.ascontiguousarray(person.head.points.on(turned[: len(vertices)])), side)[:, :2]
    return Shot(linear, visible >= 0, points)


def person_surface(person: Person) -> Surface:
    flat = np.zeros((4, 4, 2), np.float32)
    flat[..., 1] = 1
    return Surface(
        person.texture, person.tint, person.shine, person.gloss, flat, np.array([2, 2, 1, 1], np.float32), person.cloth
    )


def exposure(rng: np.random.Generator, shot: Shot) -> Floats:
    """(3,) gain: automatic exposure that meters the face, not quite, and a white balance that is a little off."""
    light = shot.linear[shot.covered]
    level = float(light.mean()) if len(light) else 0.3
    target = 0.24 * np.exp(rng.normal(0, 0.4))
    automatic = rng.uniform(0.5, 0.9)  # a camera leaves dark skin darker than light skin
    gain = (target / max(level, 1e-3)) ** automatic
    return (gain * np.clip(1 + rng.normal(0, 0.07, 3), 0.75, 1.3)).astype(np.float32)


def make_picture(assets: Assets, seed: int, number: int) -> tuple[Picture, Expression]:
    """Picture `number` of the endless series `seed`: depends on these two numbers and the assets only."""
    identity, rng = number // PICTURES_PER_PERSON, np.random.default_rng([seed, 1, number])
    person = _person(assets, seed, identity)
    expression = draw_expression(rng, assets.statistics)
    vertices = person.vertices(expression)
    intensity = person.seen_intensity(expression, vertices)
    pose, lens, light = draw_pose(rng), draw_lens(rng), draw_light(rng)
    side = round(SIDE * SUPERSAMPLING)
    shot = take(person, vertices, pose, lens, light, side, assets)
    image = develop(shot.linear, exposure(rng, shot), draw_curve(rng))
    image = np.where(shot.covered[..., None], image, draw_background(rng, side))
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    points = shot.points * (SIDE / side) - 0.5
    picture = Picture(
        image=photograph(rng, image),
        intensity=intensity,
        presence=presence(intensity),
        points=points.astype(np.float32),
        pose=np.array([pose.yaw, pose.pitch, pose.roll], np.float32),
        box=np.concatenate([points.min(0), points.max(0)]).astype(np.float32),
        identity=identity,
        face=1,
        head=person.head.kind,
    )
    assert len(picture.intensity) == len(UNITS)
    return picture, expression


_last: dict[tuple[int, int, int], Person] = {}


def _person(assets: Assets, seed: int, identity: int) -> Person:
    """The last person drawn is kept: consecutive pictures show the same one."""
    key = (id(assets), seed, identity)
    if key not in _last:
        _last.clear()
        rng = np.random.default_rng([seed, 2, identity])
        _last[key] = draw_person(rng, assets, int(rng.integers(2)))
    return _last[key]
