"""What each output costs per frame.

    python bench/outputs.py [--frames 1000] [--faces 1]

Reports are artificial, sockets and files are real; the subscriber is a separate process. --render draws and encodes
720p at once, so it is measured over fewer frames. Python's own json encodes the same message for comparison. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from measuring.facts import about, heading, table

from vlfau.engine import wire
from vlfau.engine.packets import Origin
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.base import Pixels, Sink
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.parquet import ParquetTable
from vlfau.engine.sinks.progress import PlainProgress
from vlfau.engine.sinks.prometheus import Metrics
from vlfau.engine.sinks.render import Render
from vlfau.engine.sinks.subtitles import Subtitles
from vlfau.engine.sinks.tables import CsvTable, JsonLines
from vlfau.engine.sinks.zeromq import Publisher
from vlfau.models.bundle import open_bundle

READER = "import sys\nfrom vlfau.engine import subscribe\nprint(sum(1 for _ in subscribe(sys.argv[1])))"
FILM_FRAMES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--faces", type=int, default=1)
    options = parser.parse_args()
    units = open_bundle("embedded").manifest.units
    report = make_report(options.faces, units)
    rows: dict[str, float] = {}  # name -> microseconds per frame
    rows["make the report"] = each(lambda _: make_report(options.faces, units), options.frames)
    rows["encode, Python's json"] = each(lambda _: json.dumps(msgspec.to_builtins(report)).encode(), options.frames)
    rows["encode, json"] = each(lambda _: wire.encode(report, "json"), options.frames)
    rows["encode, msgpack"] = each(lambda _: wire.encode(report, "msgpack"), options.frames)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        settings = PublishSettings(bind="tcp://127.0.0.1:*")
        rows["publish, nobody listens"] = through(Publisher(settings), report, options.frames)
        rows["publish, one subscriber"] = published(report, options.frames)
        rows["--jsonl"] = through(JsonLines(here / "o.jsonl"), report, options.frames)
        rows["--csv"] = through(CsvTable(here / "o.csv", units), report, options.frames)
        rows["--parquet"] = through(ParquetTable(here / "o.parquet", units), report, options.frames)
        rows["--subtitles"] = through(Subtitles(here / "o.vtt", ["cam"]), report, options.frames)
        rows["--metrics"] = through(Metrics(":0"), report, options.frames)
        with open(here / "log", "w", encoding="utf-8") as log:
            rows["progress lines"] = through(PlainProgress([Origin("cam")], log), report, options.frames)
        rows["--render 720p"] = through(Render(here / "o.mp4", [Origin("cam")]), report, FILM_FRAMES, image())
    facts = about()
    print(heading(facts))
    print(table([["output", "us per frame"], *([name, f"{value:.1f}"] for name, value in rows.items())]))
    print(json.dumps({"bench": "outputs", **facts, "faces": options.faces, "us_per_frame": rows}))


def make_report(faces: int, units: tuple[str, ...]) -> wire.Report:
    p = np.linspace(0, 1, len(units), dtype=np.float32)
    face = [
        wire.Face(
            track=track,
            box=wire.box(np.array([300.2, 200.1, 500.7, 420.9], np.float32)),
            score=0.97,
            landmarks=wire.points(np.full((5, 2), 333.333, np.float32)),
            pose=wire.pose(10.12, -3.4, 1.0),
            valid=True,
            aus=wire.units(units, p, p > 0.5),
            text_frame=0,
            text="the face shows raised cheeks, lifted lip corners and parted lips",
            why=dict.fromkeys(units[9:], "the lip corners are pulled up and outward"),
        )
        for track in range(faces)
    ]
    stages = wire.milliseconds(decode=4.0, detect=1.0, align=0.4, predict=6.0, explain=0.0, total=12.3)
    return wire.Report(0, "cam", 0, 0.0, wire.now_ns(), 0, stages, face)


def image() -> Pixels:
    """720p with gradients and some grain, about as hard to encode as a room."""
    random = np.random.default_rng(0)
    slopes = np.linspace(40, 200, 1280)[None, :, None] + np.linspace(-30, 30, 720)[:, None, None]
    return np.clip(slopes + random.normal(0, 2, (720, 1280, 3)), 0, 255).astype(np.uint8)


def each(work: Callable[[int], object], count: int) -> float:
    started = time.perf_counter()
    for frame in range(count):
        work(frame)
    return (time.perf_counter() - started) / count * 1e6


def through(sink: Sink, report: wire.Report, count: int, pixels: Pixels | None = None) -> float:
    """One sink behind the lock and the search for changed sentences, without opening and closing."""
    reports = [msgspec.structs.replace(report, seq=frame, frame=frame, pts=frame / 30) for frame in range(count)]
    with Sinks([sink], ["cam"]) as sinks:
        return each(lambda frame: sinks.write(reports[frame], pixels), count)


def published(report: wire.Report, count: int) -> float:
    publisher = Publisher(PublishSettings(bind="tcp://127.0.0.1:*", wait_subscribers=1, send_queue=count + 1))
    reports = [msgspec.structs.replace(report, seq=frame, frame=frame) for frame in range(count)]
    with Sinks([publisher], ["cam"]) as sinks:
        command = [sys.executable, "-c", READER, publisher.address]
        reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        sinks.wait(lambda: reader.poll() is not None)
        cost = each(lambda frame: sinks.write(reports[frame]), count)
        sinks.end(wire.End(0, "cam", "finished", wire.now_ns(), 1.0, count, count, 1.0, 0, {}, 1, {}))
        heard = int(reader.communicate()[0])
    if heard != count:
        raise SystemExit(f"The subscriber received {heard} of {count} messages.")
    return cost


if __name__ == "__main__":
    main()
