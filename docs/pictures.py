"""Regenerates the pictures of the README and the documentation:  python docs/pictures.py

All come from the engine as users run it: the frames from `vlfau-stream --demo --render`, the plot from `--csv`, and the
terminal from what `vlfau-watch` receives of a second run in real time. The clip is the one in the package (rendered,
MIT).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import matplotlib
import numpy as np
from PIL import Image

from vlfau.engine.commands.board import Board, save_picture
from vlfau.engine.sinks.demo import TRUTH
from vlfau.engine.subscriber import subscribe
from vlfau.engine.wire import Report
from vlfau.models.bundle import demo_clip

FOLDER = Path(__file__).with_name("pictures")
PLOT = Path(__file__).parents[1] / "examples" / "plot_aus.py"
PARTS = ("talking", "smile", "displeasure")  # parts of the clip, each at its middle
GAP = 6  # pixels between frames
ENGINE = [sys.executable, "-m", "vlfau.engine.commands.stream", "--demo", "--quiet"]
WATCH_COLUMNS = 118
WATCH_PIXELS = 1400


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    parts = {part["name"]: part for part in json.loads(demo_clip().with_name(TRUTH).read_text())["parts"]}
    moments = [(parts[name]["start"] + parts[name]["end"]) / 2 for name in PARTS]  # seconds
    with TemporaryDirectory() as folder:
        film, table = Path(folder) / "film.mp4", Path(folder) / "table.csv"
        subprocess.run([*ENGINE, "--bind", "none", "--render", str(film), "--csv", str(table)], check=True)
        subprocess.run([sys.executable, str(PLOT), str(table), str(FOLDER / "plot.png")], check=True)
        strip(film, moments).save(FOLDER / "annotated.png", optimize=True)
        drawing = Path(folder) / "watch.svg"
        watch(moments[1], drawing)
        (FOLDER / "watch.png").write_bytes(as_png(drawing))
    for path in sorted(FOLDER.glob("*.png")):
        with Image.open(path) as picture:
            print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def strip(film: Path, moments: list[float]) -> Image.Image:
    """The frames at these moments, side by side."""
    with av.open(str(film)) as container:
        frames = {frame.time: frame.to_image() for frame in container.decode(video=0) if frame.time is not None}
    times = np.array(list(frames))
    chosen = [frames[times[np.abs(times - moment).argmin()]] for moment in moments]
    width, height = chosen[0].size
    image = Image.new("RGBA", (len(chosen) * (width + GAP) - GAP, height))
    for place, frame in enumerate(chosen):
        image.paste(frame, (place * (width + GAP), 0))
    return image


def watch(moment: float, drawing: Path) -> None:
    """What the terminal shows at this moment of the clip, played in real time."""
    with TemporaryDirectory() as folder:
        address = f"ipc://{folder}/demo"
        board = Board(address.replace(folder, "/tmp"))
        command = [*ENGINE, "--realtime", "--bind", address, "--wait-subscribers", "1"]
        with subprocess.Popen(command) as engine, subscribe(address, ("au/", "status/"), timeout_s=120) as messages:
            for message in messages:
                board.add(message)
                if isinstance(message, Report) and message.pts >= moment and board.statuses:
                    break
            engine.terminate()
    save_picture(board, str(drawing), width=WATCH_COLUMNS)


def as_png(drawing: Path) -> bytes:
    """With the font of matplotlib, which is the same on every machine; Rich's SVG names a web font."""
    import resvg_py

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    picture = resvg_py.svg_to_bytes(
        svg_path=str(drawing),
        skip_system_fonts=True,
        font_dirs=[str(fonts)],
        monospace_family="DejaVu Sans Mono",
        width=WATCH_PIXELS,
    )
    return bytes(picture)


if __name__ == "__main__":
    main()
