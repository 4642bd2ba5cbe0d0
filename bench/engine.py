"""The engine end to end: frames a second, latency, share of each stage, processor and memory; and without the network.

    python bench/engine.py --shards FOLDER [--model BUNDLE] [--runtime openvino] [--seconds 10]

Clips are 1280x720, 30 frames a second, H.264, of people cut out of rendered pictures who move a little (`tracking.py`).
Each row is one run of `vlfau-stream` in a process of its own, measured from outside (processor, memory) and by the
times that its reports carry. "no network" replaces the action unit network by one that answers at once, so that what
is left is decoding, following, aligning and publishing. The peer is what people would pick instead: a face-mesh
landmarker with blendshapes runs this kind of clip at 71 frames a second on two such cores. One JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from tracking import Person, cut, people

WIDTH, HEIGHT, FPS = 1280, 720, 30
STAGES = ("decode", "detect", "align", "predict", "explain", "total")


def write_clip(path: Path, shards: Path, count: int, seconds: float) -> None:
    """`count` people beside each other, each swaying; a noisy room, so that the codec has work."""
    random = np.random.default_rng(count)
    room = np.kron(random.integers(50, 200, (9, 16, 3)), np.ones((80, 80, 1))).astype(np.uint8)
    persons = []
    for k, (image, points) in enumerate(people(shards)[3 : 3 + count]):
        size = min(2.2, 6.5 / count)
        picture, mask, placed = cut(image, points, size)
        x, y = WIDTH * (k + 0.5) / count - 80 * size, HEIGHT / 2 - 80 * size
        persons.append(Person(picture, mask, placed, (x, y), (0, 0), 14))
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
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
            noisy = picture.astype(np.int16) + random.integers(-3, 4, (HEIGHT, WIDTH, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(noisy, 0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def run(sources: list[Path], model: str, runtime: str, flags: list[str], network: bool = True) -> dict[str, float]:
    """One process; what it cost and what its reports say."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        command = [sys.executable, __file__, "--inside", *map(str, sources), "--model", model, "--runtime", runtime]
        command += ["--bind", "none", "--quiet", "--jsonl", str(out), *flags]
        began, began_ns = time.perf_counter(), time.time_ns()
        process = subprocess.Popen(command, env=os.environ | {"VLFAU_BENCH_NETWORK": "yes" if network else "no"})
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if status:
            sys.exit(f"{' '.join(command)} failed with {status}")
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    sent = np.array([row["captured_ns"] / 1e6 + row["latency_ms"]["total"] for row in rows])  # ms
    late = np.array([[row["latency_ms"][stage] for stage in STAGES] for row in rows[len(rows) // 10 :]])
    p50, p95, p99 = np.percentile(late[:, -1], (50, 95, 99))
    return {
        "frames": len(rows),
        "fps": (len(rows) - 1) / (sent.max() - sent.min()) * 1e3,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        **{f"{stage}_ms": float(np.median(late[:, k])) for k, stage in enumerate(STAGES[:-1])},
        "cpu_ms_per_frame": (used.ru_utime + used.ru_stime) / len(rows) * 1e3,
        "cpu_percent": (used.ru_utime + used.ru_stime) / wall * 100,
        "peak_mb": used.ru_maxrss / 1024,
        "first_message_s": float(sent.min() / 1e3 - began_ns / 1e9),
        "faces": float(np.mean([len(row["faces"]) for row in rows])),
    }


def inside(arguments: list[str]) -> int:
    """What the child process does: the command itself, or the command with a network that costs nothing."""
    from vlfau.engine.stream_command import main as stream

    if os.environ.get("VLFAU_BENCH_NETWORK") == "no":
        import vlfau.models.runtimes as runtimes

        runtimes.open_runtime = instant  # type: ignore[assignment]
    return stream(arguments)


def instant(bundle: Any, *_: Any, **__: Any) -> Any:
    from vlfau.models.runtime import Runtime

    class Instant:
        name, device, precision, max_batch = "none", "none", "fp32", 16

        def encode(self, crops: Any) -> dict[str, Any]:
            return {"log_odds": np.zeros((len(crops), len(bundle.manifest.units)), np.float32)}

        def close(self) -> None: ...

    return Runtime(bundle, Instant())  # type: ignore[arg-type]


def main() -> int:
    if "--inside" in sys.argv:
        return inside(sys.argv[sys.argv.index("--inside") + 1 :])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="folder written by vlfau-synthesize")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = {count: Path(folder) / f"faces{count}.mp4" for count in (1, 4)}
        for count, clip in clips.items():
            write_clip(clip, given.shards, count, given.seconds)
        one, four = [clips[1]], [clips[4]]
        plan: dict[str, tuple[list[Path], list[str], bool]] = {
            "one face, unpaced": (one, [], True),
            "one face, real time": (one, ["--realtime"], True),
            "one face, unpaced, no sentences": (one, ["--explain", "never"], True),
            "four faces, unpaced": (four, [], True),
            "four faces, real time": (four, ["--realtime"], True),
            "four streams, unpaced": (one * 4, [], True),
            "four streams, real time": (one * 4, ["--realtime"], True),
            "no network, unpaced": (one, ["--explain", "never"], False),
            "no network, real time": (one, ["--realtime", "--explain", "never"], False),
        }
        for name, (sources, flags, network) in plan.items():
            rows[name] = run(sources, given.model, given.runtime, flags, network)
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=here).stdout
    load = os.getloadavg()[0]
    print(f"{processor()}, {os.cpu_count()} cores, load {load:.1f}, {given.model}, commit {commit.strip()}\n")
    columns = [key for key in next(iter(rows.values())) if key != "frames"]
    print("| run | " + " | ".join(key.replace("_", " ") for key in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.1f}" for key in columns) + " |")
    print("\npeer, one face, unpaced: 71 fps; targets: 90 fps, p95 25 ms in real time, 1000 MB, first message 2 s")
    print(json.dumps({"bench": "engine", "commit": commit.strip(), "load": load, "rows": rows}))
    return 0


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
