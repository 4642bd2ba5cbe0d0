"""Draws a report onto its frame: corner marks, track, unit bars and the sentence, for --render, --show and the docs.

Text is rendered with Pillow's built-in font into masks, cached by string, so that a frame only costs blending.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlfau.models.sentences.loading import unit_names

from ..wire import Face, Report
from .base import Pixels

Colour = tuple[int, int, int]  # RGB
Mask = NDArray[np.uint8]  # (h, w) coverage

TRACK_COLOURS: tuple[Colour, ...] = (
    (94, 234, 212),
    (251, 191, 36),
    (167, 139, 250),
    (248, 113, 113),
    (96, 165, 250),
    (163, 230, 53),
    (244, 114, 182),
    (251, 146, 60),
)
INK: Colour = (238, 242, 247)
FAINT: Colour = (148, 158, 172)
PANEL: Colour = (15, 20, 28)
BAR_REST: Colour = (92, 104, 122)
PANEL_OPACITY = 0.72


def draw(pixels: Pixels, report: Report) -> Pixels:
    """A new picture (H, W, 3) RGB; `pixels` stay as they are."""
    picture = np.array(pixels, order="C")  # a contiguous copy, even of a view with padded rows
    height, width = picture.shape[:2]
    scale = max(min(height / 720, width / 720) ** 0.75, 0.5)  # sizes below are for 720 lines; small ones stay legible
    sentences = [(face.track, face.text) for face in report.faces if face.text]
    caption_top = _draw_captions(picture, sentences, scale)
    taken: list[tuple[int, int, int, int]] = [_ints(face.box) for face in report.faces]
    for face in report.faces:
        colour = colour_of(face.track)
        _draw_corners(picture, face, colour, scale)
        _draw_label(picture, face, colour, scale)
        if face.aus:
            _draw_panel(picture, face, colour, scale, taken, caption_top)
    return picture


def colour_of(track: int) -> Colour:
    return TRACK_COLOURS[track % len(TRACK_COLOURS)]


def _ints(box: Sequence[float]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(side) for side in box)
    return x0, y0, x1, y1


def _draw_corners(picture: Pixels, face: Face, colour: Colour, scale: float) -> None:
    x0, y0, x1, y1 = _ints(face.box)
    thick = max(round(3 * scale), 1)
    arm = max(round(0.16 * min(x1 - x0, y1 - y0)), 4)
    shown = colour if face.valid else FAINT
    for x, y, right, down in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x0, y1, 1, -1), (x1, y1, -1, -1)):
        corner = np.array([[x + right * arm, y], [x, y], [x, y + down * arm]], np.int32)
        cv2.polylines(picture, [corner], False, shown, thick, cv2.LINE_AA)
    for x_, y_ in face.landmarks:
        cv2.circle(picture, (round(x_), round(y_)), max(round(2.2 * scale), 1), shown, -1, cv2.LINE_AA)


def _draw_label(picture: Pixels, face: Face, colour: Colour, scale: float) -> None:
    label = f"face {face.track}" if face.valid else f"face {face.track}  not judged"
    mask = text_mask(label, round(17 * scale))
    pad = round(6 * scale)
    x0, y0, _, _ = _ints(face.box)
    h, w = mask.shape[0] + pad, mask.shape[1] + 2 * pad
    top = y0 - h - round(6 * scale)
    top = top if top >= 0 else y0 + round(6 * scale)
    _fill(picture, x0, top, w, h, colour if face.valid else FAINT, 0.92)
    _stamp(picture, mask, x0 + pad, top + pad // 2, PANEL)


def _draw_panel(
    picture: Pixels, face: Face, colour: Colour, scale: float, taken: list[tuple[int, int, int, int]], floor: int
) -> None:
    """Bars next to the face, on the side with more room; as many units as fit, chosen by probability."""
    x0, y0, x1, y1 = _ints(face.box)
    height, width = min(picture.shape[0], floor), picture.shape[1]
    row, pad = round(21 * scale), round(9 * scale)
    panel_w, bars_w = round(264 * scale), round(132 * scale)  # with and without the units' names
    gap = round(14 * scale)
    others = [box for box in taken if box != (x0, y0, x1, y1)]
    fits = max((height - 2 * pad) // row, 1)
    if len(taken) > 1:  # a crowd: no panel may be much taller than its face
        fits = min(fits, max((y1 - y0) // row, 3))
    shown = sorted(face.aus, key=lambda name: (face.aus[name].on, face.aus[name].p), reverse=True)[:fits]
    names = [name for name in face.aus if name in shown]
    panel_h = len(names) * row + 2 * pad
    top = min(max(y0, 0), max(height - panel_h - pad, 0))
    places = [
        (left, top, left + wide, top + panel_h) for wide in (panel_w, bars_w) for left in (x1 + gap, x0 - gap - wide)
    ]
    left, top, right, _ = min(places, key=lambda place: _cost(place, others, width))
    named = right - left == panel_w
    panel_w = right - left
    left = min(max(left, 0), max(width - panel_w, 0))
    taken.append((left, top, left + panel_w, top + panel_h))
    _fill(picture, left, top, panel_w, panel_h, PANEL, PANEL_OPACITY)
    size = round(14 * scale)
    code_w, bar_w = round(46 * scale), round(64 * scale)
    for place, name in enumerate(names):
        unit = face.aus[name]
        y = top + pad + place * row
        ink = INK if unit.on else FAINT
        _stamp_line(picture, name, left + pad, y, row, size, ink)
        bar_x, bar_y, bar_h = left + pad + code_w, y + row // 2 - round(4 * scale), max(round(8 * scale), 3)
        _fill(picture, bar_x, bar_y, bar_w, bar_h, BAR_REST, 0.35)
        _fill(picture, bar_x, bar_y, round(bar_w * unit.p), bar_h, colour if unit.on else BAR_REST, 1.0)
        if named:
            _stamp_line(picture, unit_names().get(name, ""), bar_x + bar_w + round(9 * scale), y, row, size, ink)


def _cost(place: tuple[int, int, int, int], others: list[tuple[int, int, int, int]], width: int) -> int:
    """Square pixels that would cover something or lie outside."""
    x0, y0, x1, y1 = place
    hidden: int = sum(
        max(min(x1, box[2]) - max(x0, box[0]), 0) * max(min(y1, box[3]) - max(y0, box[1]), 0) for box in others
    )
    return hidden + 3 * (max(-x0, 0) + max(x1 - width, 0)) * (y1 - y0)


def _draw_captions(picture: Pixels, sentences: list[tuple[int, str]], scale: float) -> int:
    """Sentences along the bottom; returns the row at which they begin."""
    height, width = int(picture.shape[0]), int(picture.shape[1])
    size, pad = round(22 * scale), round(10 * scale)
    row = round(30 * scale)
    lines: list[tuple[int, str]] = []
    for track, text in sentences:
        prefix = f"face {track}: " if len(sentences) > 1 else ""
        lines += [(track, line) for line in wrap(prefix + text, size, width - 6 * pad)]
    lines = lines[: max(height // 3 // row, 1)]
    if not lines:
        return height
    top = height - len(lines) * row - 2 * pad
    _fill(picture, 0, top, width, height - top, PANEL, PANEL_OPACITY)
    for place, (track, line) in enumerate(lines):
        y = top + pad + place * row
        _fill(
            picture,
            2 * pad,
            y + round(5 * scale),
            max(round(4 * scale), 2),
            row - round(10 * scale),
            colour_of(track),
            1,
        )
        _stamp_line(picture, line, round(3.4 * pad), y, row, size, INK)
    return top


@functools.lru_cache(maxsize=256)
def wrap(text: str, size: int, width: int) -> tuple[str, ...]:
    """Lines of whole words that are at most `width` pixels wide."""
    font = _font(size)
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return tuple(lines)


@functools.lru_cache(maxsize=1024)
def text_mask(text: str, size: int) -> Mask:
    """(h, w) coverage 0..255; the height is that of a line, the same for all strings of a size."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    width = max(int(np.ceil(font.getlength(text))), 1)
    image = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(image).text((0, 0), text, 255, font)
    return np.asarray(image)


@functools.lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(max(size, 7))
    assert isinstance(font, ImageFont.FreeTypeFont)  # every wheel of Pillow has FreeType
    return font


def _stamp_line(picture: Pixels, text: str, x: int, y: int, row: int, size: int, colour: Colour) -> None:
    if text:
        mask = text_mask(text, size)
        _stamp(picture, mask, x, y + (row - mask.shape[0]) // 2, colour)


def _stamp(picture: Pixels, mask: Mask, x: int, y: int, colour: Colour) -> None:
    clipped = _clip(picture, x, y, mask.shape[1], mask.shape[0])
    if clipped is None:
        return
    x0, y0, x1, y1 = clipped
    cover = mask[y0 - y : y1 - y, x0 - x : x1 - x, None].astype(np.uint16)
    region = picture[y0:y1, x0:x1]
    region[...] = (region * (255 - cover) + np.array(colour, np.uint16) * cover + 127) // 255


def _fill(picture: Pixels, x: int, y: int, width: int, height: int, colour: Colour, opacity: float) -> None:
    clipped = _clip(picture, x, y, width, height)
    if clipped is None:
        return
    x0, y0, x1, y1 = clipped
    region = picture[y0:y1, x0:x1]
    if opacity >= 1:
        region[...] = colour
        return
    flat = np.empty_like(region)
    flat[...] = colour
    cv2.addWeighted(flat, opacity, region, 1 - opacity, 0, region)


def _clip(picture: Pixels, x: int, y: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + width, picture.shape[1]), min(y + height, picture.shape[0])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
