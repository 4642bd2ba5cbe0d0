"""The engine end to end: frames a second, latency, share of each stage, processor and memory; and without any network.

    python bench/overhead.py --shards FOLDER [--model BUNDLE] [--runtime auto] [--seconds 10]

Clips are 1280x720, 30 frames a second, H.264 at 3 Mbit/s, of people cut out of rendered pictures who move a little
(`tracking.py`). Each row is one run of `vlfau-stream` in a process of its own; times are those that its reports carry,
processor time is counted from the first report to the last, memory is the peak that the system kept, and start is from
the start of the process to its first report ("the very first start": with an empty cache, as on a new machine).

"no network" is the same program in which every network (faces, landmarks, action units) repeats its first answer at no
cost: what is left is decoding, converting, cutting, following, aligning, pose, quality and publishing. Decoding alone
is measured beside it, so that the difference is the engine's own work on a frame. The peer is what people would pick
instead: a face-mesh landmarker with blendshapes runs this kind of clip at 71 frames a second on two such cores. One
JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

STAGES = ("detect", "align", "predict", "explain")
WIDTH, HEIGHT, FPS = 1280, 720, 30
BITS_PER_S = 3_000_000  # as webcams and meetings send this size
LOOK_S = 0.02  # how often the other process is looked at
FASTEST, LATEST_MS, LARGEST_MB, START_S, OVERHEAD_MS = 90.0, 25.0, 1000.0, 2.0, 2.0  # the targets
Row = dict[str, float]


def write_clip(path: Path, shards: Path, count: int, seconds: float) -> None:
    """`count` people beside each other, each swaying; a noisy room, so that the codec has work."""
    import av
    import numpy as np
    from measuring.people import Person, cut, people

    random = np.random.default_rng(count)
    room = np.kron(random.integers(50, 200, (9, 16, 3)), np.ones((80, 80, 1))).astype(np.uint8)
    persons = []
    for k, (image, points) in enumerate(people(shards)[3 : 3 + count]):
        size = min(2.2, 6.5 / count)
        picture, mask, placed = cut(image, points, size)
        x, y = WIDTH * (k + 0.5) / count - 80 * size, HEIGHT / 2 - 80 * size
        persons.append(Person(picture, mask, placed, (x, y), (0, 0), 14))
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.bit_rate = BITS_PER_S
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(int(seconds * FPS)):
            picture = room.copy()
            for person in persons:
                x, y = person.corner(i / FPS)
                n = len(person.image)
                x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + n, WIDTH), min(y + n, HEIGHT)
                part = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
                alpha, under = person.mask[part][..., None], picture[y0:y1, x0:x1]
                picture[y0:y1, x0:x1] = (under * (1 - alpha) + person.image[part] * alpha).astype(np.uint8)
            noisy = picture.astype(np.int16) + random.integers(-10, 11, (HEIGHT, WIDTH, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(noisy, 0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def run(sources: list[Path], model: str, runtime: str, flags: list[str], networks: bool = True) -> Row:
    """One process; what it cost and what its reports say."""
    from measuring.facts import cpu_s, peak_mb

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        program = ["-m", "vlfau.engine.commands.stream"] if networks else [__file__, "--without-networks"]
        command = [sys.executable, *program, *map(str, sources), "--model", model, "--runtime", runtime]
        command += ["--bind", "none", "--quiet", "--jsonl", str(out), *flags]
        began_ns = time.time_ns()
        process = subprocess.Popen(command)
        size, peak, used = 0, 0.0, [0.0, 0.0]  # processor seconds when the first report was seen, and the newest
        while process.poll() is None:
            time.sleep(LOOK_S)
            peak = max(peak, peak_mb(process.pid))
            if out.exists() and (now := out.stat().st_size) > size:
                used = [used[0] if size else cpu_s(process.pid), cpu_s(process.pid)]
                size = now
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed with {process.returncode}")
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return figures(rows, began_ns, used[1] - used[0]) | {"peak_mb": peak}


def figures(rows: list[dict[str, Any]], began_ns: int, cpu: float) -> Row:
    import numpy as np

    sent = np.array([row["captured_ns"] / 1e6 + row["latency_ms"]["total"] for row in rows])  # ms
    kept = rows[len(rows) // 10 :]
    total = np.array([row["latency_ms"]["total"] for row in kept])
    p50, p95, p99 = np.percentile(total, (50, 95, 99)).tolist()
    wall = float(sent.max() - sent.min()) / 1e3
    return {
        "fps": (len(rows) - 1) / wall,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        **{f"{stage}_ms": float(np.mean([row["latency_ms"][stage] for row in kept])) for stage in STAGES},
        "decode_ms": float(np.mean([row["latency_ms"]["decode"] for row in kept])),
        "cpu_ms_per_frame": cpu / (len(rows) - 1) * 1e3,
        "cpu_percent": cpu / wall * 100,
        "start_s": float(sent.min() / 1e3 - began_ns / 1e9),
        "faces": float(np.mean([len(row["faces"]) for row in rows])),
    }


def decoding(clip: Path) -> Row:
    """Decoding and conversion alone, in the engine's own decoder and in a process of its own."""
    code = (
        "import sys, time\nfrom vlfau.engine.sources.decoding import Decoder\n"
        "with Decoder(sys.argv[1]) as decoder:\n"
        "    pictures = iter(decoder)\n    next(pictures)\n"
        "    wall, cpu = time.perf_counter(), time.process_time()\n    count = sum(1 for _ in pictures)\n"
        "    print(count, time.perf_counter() - wall, time.process_time() - cpu)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(clip)], capture_output=True, text=True, check=True)
    count, wall, cpu = map(float, done.stdout.split())
    return {"fps": count / wall, "cpu_ms_per_frame": cpu / count * 1e3, "cpu_percent": cpu / wall * 100}


def without_networks(arguments: list[str]) -> int:
    """What the child process of "no network" does: the command, in which each network repeats its first answer."""
    import numpy as np

    import vlfau.engine.app as app
    from vlfau.engine.commands.stream import main as stream
    from vlfau.models.faces.embedded import EmbeddedDetector
    from vlfau.models.faces.landmarks import BOX_GROWTH, CROP_GROWTH, LandmarkNet
    from vlfau.models.runtimes.base import Runtime

    find, locate = EmbeddedDetector.find, LandmarkNet.run
    seen: dict[str, Any] = {}

    def same_faces(self: Any, pictures: Any) -> Any:
        """Of the first picture that had one."""
        if "faces" not in seen:
            found = find(self, pictures)
            if not len(found[0]):
                return found
            seen["faces"] = found[0]
        return [seen["faces"]] * len(pictures)

    def same_points(self: Any, crops: Any) -> tuple[Any, Any]:
        """Of the first crop after that, moved to the middle of the crop: the face stays where it is."""
        if "faces" not in seen:
            return locate(self, crops)
        if "points" not in seen:
            points = locate(self, crops[:1])[0][0]
            low, high = points.min(0), points.max(0)
            seen["points"] = 0.5 + (points - (low + high) / 2) / (high - low).max() / (BOX_GROWTH * CROP_GROWTH)
        return np.repeat(seen["points"][None], len(crops), 0), np.full(len(crops), 5, np.float32)

    class Instant:
        name, device, precision, max_batch = "none", "none", "fp32", 16

        def __init__(self, units: int) -> None:
            self.units = units

        def encode(self, crops: Any) -> dict[str, Any]:
            return {"log_odds": np.zeros((len(crops), self.units), np.float32)}

        def close(self) -> None: ...

    def instant(_: Any, bundle: Any) -> Runtime:
        return Runtime(bundle, Instant(len(bundle.manifest.units)))  # type: ignore[arg-type]

    EmbeddedDetector.find, LandmarkNet.run = same_faces, same_points  # type: ignore[method-assign]
    app._runtime = instant  # type: ignore[assignment]
    return stream([*arguments, "--explain", "never"])


def verdicts(rows: dict[str, Row]) -> list[tuple[str, float, float, bool]]:
    """(what, value, target, whether it is met)."""
    unpaced, paced = rows["one face, unpaced"], rows["one face, real time"]
    own = rows["no network, unpaced"]["cpu_ms_per_frame"] - rows["decoding alone"]["cpu_ms_per_frame"]
    peak = max(row["peak_mb"] for row in rows.values() if "peak_mb" in row)
    start = max(unpaced["start_s"], paced["start_s"])
    found = [
        ("frames a second, one face, unpaced", unpaced["fps"], FASTEST, unpaced["fps"] >= FASTEST),
        ("p95 capture to publish, one face, real time, ms", paced["p95_ms"], LATEST_MS, paced["p95_ms"] < LATEST_MS),
        ("the engine's own processor time a frame, ms", own, OVERHEAD_MS, own < OVERHEAD_MS),
        ("largest memory of all runs, MB", peak, LARGEST_MB, peak < LARGEST_MB),
        ("process start to first report, one face, s", start, START_S, start < START_S),
    ]
    return [(what, float(value), target, bool(met)) for what, value, target, met in found]


def main() -> int:
    if "--without-networks" in sys.argv:
        return without_networks(sys.argv[sys.argv.index("--without-networks") + 1 :])
    from measuring.facts import about, heading, table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="folder written by vlfau-synthesize")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto", help="default: %(default)s, as without the flag")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    facts = about()  # the load before this bench adds its own
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VLFAU_CACHE"] = f"{folder}/cache"  # empty, as on a new machine
        clips = {count: Path(folder) / f"faces{count}.mp4" for count in (1, 4)}
        for count, clip in clips.items():
            write_clip(clip, given.shards, count, given.seconds)
        rows = measured(given.model, given.runtime, [clips[1]], [clips[4]])
    print(heading(facts))
    columns = list(rows["one face, unpaced"])
    head = ["run", *(key.replace("_ms", " ms").replace("_", " ") for key in columns)]
    body = [[name, *(f"{row[key]:.1f}" if key in row else "" for key in columns)] for name, row in rows.items()]
    print(table([head, *body]))
    paced = rows["one face, real time"]
    spent = {stage: paced[f"{stage}_ms"] for stage in STAGES}
    shares = ", ".join(f"{stage} {value / sum(spent.values()):.0%}" for stage, value in spent.items())
    print(f"\nfrom capture to publish, one face, real time: {shares}; before it {paced['decode_ms']:.1f} ms decoding")
    print("peer, one face, unpaced: 71 fps")
    found = verdicts(rows)
    for what, value, target, met in found:
        print(f"{'met' if met else 'MISSED'}: {what}: {value:.2f} (target {target:g})")
    last = {what: {"value": round(value, 3), "target": target, "met": met} for what, value, target, met in found}
    print(json.dumps({"bench": "engine", **facts, "model": given.model, "targets": last, "rows": rows}))
    return 0


def measured(model: str, runtime: str, one: list[Path], four: list[Path]) -> dict[str, Row]:
    plan: dict[str, tuple[list[Path], list[str], bool]] = {
        "one face, unpaced": (one, [], True),
        "one face, real time": (one, ["--realtime"], True),
        "one face, unpaced, no sentences": (one, ["--explain", "never"], True),
        "four faces, unpaced": (four, [], True),
        "four faces, real time": (four, ["--realtime"], True),
        "four streams, unpaced": (one * 4, [], True),
        "four streams, real time": (one * 4, ["--realtime"], True),
        "no network, unpaced": (one, [], False),
        "no network, real time": (one, ["--realtime"], False),
    }
    first = run(
        one, model, runtime, ["--duration", "0.5"]
    )  # compiles graphs and chooses a runtime; the others find both
    rows = {name: run(sources, model, runtime, flags, networks) for name, (sources, flags, networks) in plan.items()}
    return rows | {"decoding alone": decoding(one[0]), "the very first start": {"start_s": first["start_s"]}}


if __name__ == "__main__":
    sys.exit(main())
