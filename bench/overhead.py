"""The engine end to end: frames per second, latency, share of each stage, CPU time and memory; also without networks.

    python bench/overhead.py --shards FOLDER [--model BUNDLE] [--runtime auto] [--seconds 10]

Clips are 1280x720, 30 frames/s, H.264 at 3 Mbit/s, of people cut out of renders who move a little. Each row is one
`vlfau-stream` process: times are those in its reports, CPU time is counted from the first report to the last, memory is
the peak, and start is from the start of the process to its first report ("the very first start": with an empty cache,
as on a new machine).

"no network" is the same program with networks (faces, landmarks, action units) that repeat their first answer at no
cost: what is left is decoding, converting, cutting, following, aligning, pose, quality and publishing. Decoding alone
is measured, too, so that the difference is the engine's own work per frame. The peer is a common alternative: a
face-mesh landmarker with blendshapes plays such a clip at 71 frames/s on two such cores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from measuring import children, clips
from measuring.clips import FPS, HEIGHT, WIDTH
from measuring.comparison import percentiles
from measuring.facts import about, cpu_s, heading, peak_mb, table
from measuring.people import Person, Pixels, cut, draw, people
from measuring.stages import STAGES, decode_mean, mean_faces, shares, stage_means

from vlfau.engine.wire import Report, decode_payload

BITS_PER_S = 3_000_000  # as webcams and video calls send this size
POLL_S = 0.02
FASTEST, LATEST_MS, LARGEST_MB, START_S, OVERHEAD_MS = 90.0, 25.0, 1000.0, 2.0, 2.0  # the targets
Row = dict[str, float]


def write_clip(path: Path, shards: Path, count: int, seconds: float) -> None:
    """`count` people side by side, each swaying; a noisy room, so that the codec has work."""
    random = np.random.default_rng(count)
    room = np.kron(random.integers(50, 200, (9, 16, 3)), np.ones((80, 80, 1))).astype(np.uint8)
    persons = []
    for k, (image, points) in enumerate(people(shards)[3 : 3 + count]):
        size = min(2.2, 6.5 / count)
        picture, mask, placed = cut(image, points, size)
        x, y = WIDTH * (k + 0.5) / count - 80 * size, HEIGHT / 2 - 80 * size
        persons.append(Person(picture, mask, placed, (x, y), (0, 0), 14))

    def pictures() -> Iterator[Pixels]:
        for i in range(int(seconds * FPS)):
            noisy = draw(room, persons, i / FPS).astype(np.int16) + random.integers(-10, 11, (HEIGHT, WIDTH, 1))
            yield np.clip(noisy, 0, 255).astype(np.uint8)

    clips.encode(path, pictures(), {}, BITS_PER_S)


def run(sources: list[Path], model: str, runtime: str, flags: list[str], networks: bool = True) -> Row:
    """One process: what it cost, and the times that its reports carry."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        arguments = [*map(str, sources), "--model", model, "--runtime", runtime]
        arguments += ["--bind", "none", "--quiet", "--jsonl", str(out), *flags]
        command = [sys.executable, "-m", "vlfau.engine.commands.stream", *arguments]
        if not networks:
            command = children.command("without_networks", *arguments, "--explain", "never")
        began_ns = time.time_ns()
        process = subprocess.Popen(command, env=children.environment())
        size, peak, used = 0, 0.0, [0.0, 0.0]  # processor seconds at the first report seen, and at the newest
        while process.poll() is None:
            time.sleep(POLL_S)
            peak = max(peak, peak_mb(process.pid))
            if out.exists() and (now := out.stat().st_size) > size:
                used = [used[0] if size else cpu_s(process.pid), cpu_s(process.pid)]
                size = now
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed with {process.returncode}")
        reports = [decode_payload("au", line) for line in out.read_bytes().splitlines()]
    return figures([one for one in reports if isinstance(one, Report)], began_ns, used[1] - used[0]) | {"peak_mb": peak}


def figures(reports: Sequence[Report], began_ns: int, cpu: float) -> Row:
    sent = np.array([report.captured_ns / 1e6 + report.latency_ms.total for report in reports])  # ms
    counted = reports[len(reports) // 10 :]
    p50, p95, p99 = percentiles([report.latency_ms.total for report in counted])
    wall = float(sent.max() - sent.min()) / 1e3
    return {
        "fps": (len(reports) - 1) / wall,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        **{f"{stage}_ms": mean for stage, mean in stage_means(counted).items()},
        "decode_ms": decode_mean(counted),
        "cpu_ms_per_frame": cpu / (len(reports) - 1) * 1e3,
        "cpu_percent": cpu / wall * 100,
        "start_s": float(sent.min() / 1e3 - began_ns / 1e9),
        "faces": mean_faces(reports),
    }


def decoding(clip: Path) -> Row:
    """Decoding and conversion alone: the engine's own decoder in a separate process."""
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


def verdicts(rows: dict[str, Row]) -> list[tuple[str, float, float, bool]]:
    """(what, value, target, whether it is met) of each target."""
    unpaced, paced = rows["one face, unpaced"], rows["one face, real time"]
    own = rows["no network, unpaced"]["cpu_ms_per_frame"] - rows["decoding alone"]["cpu_ms_per_frame"]
    peak = max(row["peak_mb"] for row in rows.values() if "peak_mb" in row)
    start = max(unpaced["start_s"], paced["start_s"])
    results = [
        ("frames a second, one face, unpaced", unpaced["fps"], FASTEST, unpaced["fps"] >= FASTEST),
        ("p95 capture to publish, one face, real time, ms", paced["p95_ms"], LATEST_MS, paced["p95_ms"] < LATEST_MS),
        ("the engine's own processor time a frame, ms", own, OVERHEAD_MS, own < OVERHEAD_MS),
        ("largest memory of all runs, MB", peak, LARGEST_MB, peak < LARGEST_MB),
        ("process start to first report, one face, s", start, START_S, start < START_S),
    ]
    return [(what, float(value), target, bool(met)) for what, value, target, met in results]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="folder written by vlfau-synthesize")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    facts = about()  # the load before this bench adds its own
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VLFAU_CACHE"] = f"{folder}/cache"  # empty, as on a new machine
        clips = {count: Path(folder) / f"faces{count}.mp4" for count in (1, 4)}
        for count, clip in clips.items():
            write_clip(clip, options.shards, count, options.seconds)
        rows = measured(options.model, options.runtime, [clips[1]], [clips[4]])
    print(heading(facts))
    columns = list(rows["one face, unpaced"])
    head = ["run", *(key.replace("_ms", " ms").replace("_", " ") for key in columns)]
    body = [[name, *(f"{row[key]:.1f}" if key in row else "" for key in columns)] for name, row in rows.items()]
    print(table([head, *body]))
    paced = rows["one face, real time"]
    spent = {stage: paced[f"{stage}_ms"] for stage in STAGES}
    parts = ", ".join(f"{stage} {share:.0%}" for stage, share in shares(spent).items())
    print(f"\nfrom capture to publish, one face, real time: {parts}; before it {paced['decode_ms']:.1f} ms decoding")
    print("peer, one face, unpaced: 71 fps")
    results = verdicts(rows)
    for what, value, target, met in results:
        print(f"{'met' if met else 'MISSED'}: {what}: {value:.2f} (target {target:g})")
    last = {what: {"value": round(value, 3), "target": target, "met": met} for what, value, target, met in results}
    print(json.dumps({"bench": "overhead", **facts, "model": options.model, "targets": last, "rows": rows}))
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
