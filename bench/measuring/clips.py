"""The clips that benches play: 720p30 H.264 with 1 to 8 faces, composed from one video with a face."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vlfau.models.errors import UserError
from vlfau.models.files import embedded

WIDTH, HEIGHT, FPS = 1280, 720, 30
GRIDS = {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (4, 2)}  # faces -> columns, rows
SOURCE_S = 10  # of the source at most: its frames are kept in memory


def find_source(video: Path | None) -> Path:
    path = video or embedded() / "demo.mp4"
    if path.is_file():
        return path
    what = f"There is no file {video}." if video else f"The package's demo clip is not at {path}."
    raise UserError(f"{what} This bench plays a video with one face. Name one with --source VIDEO.")


def write_clip(path: Path, source: Path, faces: int, seconds: float) -> None:
    """`faces` copies of the source in a grid, each at a different time, so that no two are alike."""
    columns, rows = GRIDS[faces]
    cell = (WIDTH // columns, HEIGHT // rows)
    parts = _fitted(source, cell, seconds)

    def picture(index: int) -> NDArray[np.uint8]:
        whole = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for k in range(faces):
            x, y = k % columns * cell[0], k // columns * cell[1]
            whole[y : y + cell[1], x : x + cell[0]] = parts[(index + k * len(parts) // faces) % len(parts)]
        return whole

    encode(path, map(picture, range(int(seconds * FPS))), {"crf": "23"})


def encode(
    path: Path, pictures: Iterable[NDArray[np.uint8]], options: dict[str, str], bits_per_s: int | None = None
) -> None:
    """Pictures (HEIGHT, WIDTH, 3) RGB."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", **options})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if bits_per_s is not None:
            stream.bit_rate = bits_per_s
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def _fitted(source: Path, cell: tuple[int, int], seconds: float) -> list[NDArray[np.uint8]]:
    """Whole frames of the source in grey (height, width, 3) cells. A short source plays forwards and backwards."""
    fitted = []
    with av.open(str(source)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            scale = min(cell[0] / picture.shape[1], cell[1] / picture.shape[0])
            width, height = int(picture.shape[1] * scale), int(picture.shape[0] * scale)
            x, y = (cell[0] - width) // 2, (cell[1] - height) // 2
            canvas = np.full((cell[1], cell[0], 3), 110, np.uint8)
            canvas[y : y + height, x : x + width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            fitted.append(canvas)
            if len(fitted) >= min(seconds, SOURCE_S) * FPS:
                break
    if not fitted:
        raise UserError(f"{source} contains no video frames. Name another file with --source VIDEO.")
    return fitted + fitted[-2:0:-1]
