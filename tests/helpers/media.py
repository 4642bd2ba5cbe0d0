"""Clips for the tests, in which every picture carries its number, so that lost or repeated ones are noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
BITS = 8


def numbered(number: int, width: int = 160, height: int = 96) -> Pixels:
    """(H, W, 3) RGB: the number in black and white blocks along the top, a red left and a blue right half below."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2, 0], picture[:, width // 2 :, 2] = 200, 200
    block = width // BITS
    for bit in range(BITS):
        picture[: height // 3, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: Pixels) -> int:
    height, width = picture.shape[:2]
    block = width / BITS
    grey = picture[height // 6, :, :].mean(-1)
    return sum(1 << bit for bit in range(BITS) if grey[int((bit + 0.5) * block)] > 127)


def write_clip(
    path: Path | Any,
    pictures: Iterable[Pixels],
    *,
    fps: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    prepare: Callable[[Any], None] | None = None,
    sound: bool = False,
) -> None:
    """`times` are the presentation times in milliseconds, for a variable frame rate."""
    if codec == "libx264" and options is None:
        options = {"preset": "ultrafast", "crf": "18", "g": "10"}
    with av.open(path, "w", format=container) as output:
        stream: Any = None
        tone: Any = None
        for i, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream(codec, rate=fps, options=options or {})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if sound:
                    tone = output.add_stream("aac", rate=16000, layout="mono")
                if prepare is not None:
                    prepare(stream)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            output.mux(stream.encode(frame))
            if tone is not None:
                samples = np.sin(np.arange(16000 // fps) / 16000 * 2764).astype(np.float32)[None] * 0.1
                noise = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                noise.sample_rate, noise.pts = 16000, i * (16000 // fps)
                output.mux(tone.encode(noise))
        output.mux(stream.encode())
        if tone is not None:
            output.mux(tone.encode())
