"""The same clip on the same machine in one run: this engine and what people would use instead.

    python bench/peers.py [--insightface-model FILE] [--mediapipe-model FILE] [--source VIDEO] [--seconds 10]

A 720p30 clip of one face (the demo clip, or --source). Every peer is a separate process that plays it as fast as it
can; with --repeats they take turns. Ours is `vlfau-stream`, measured at a subscriber: frames/s unpaced, latency paced
(capture to receipt). A peer's latency is from a frame to its result inside its own loop. Start is from the start of the
process to the first result, memory is the peak of the process, and installed is what pip has put on this disk for it. A
peer that cannot run here is listed with the reason. The last line is JSON.

The Swin-Base network has random weights: this measures time, not accuracy. The loops of py-feat, OpenFace and MediaPipe
have been tested against stand-ins only, not with the real programs and models.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measuring import children
from measuring.clips import find_source, write_clip
from measuring.facts import about, heading, peak_mb, table
from measuring.installed_size import installed_mb
from measuring.streaming import Case, run

from vlfau.models.bundle import open_bundle
from vlfau.models.errors import UserError

OPENFACE = "FeatureExtraction"
COLUMNS = {
    "fps": ("frames/s", ".1f"),
    "p50_ms": ("p50 ms", ".1f"),
    "p95_ms": ("p95 ms", ".1f"),
    "peak_mb": ("memory MB", ".0f"),
    "start_s": ("start s", ".1f"),
    "installed_mb": ("installed MB", ".0f"),
    "faces": ("faces found", ".2f"),
    "frames": ("frames", ".0f"),
}


class Skipped(Exception):
    """Why a peer cannot run here."""


@dataclass(frozen=True)
class Peer:
    name: str
    says: str  # its output, in words
    needs: tuple[str, ...]  # distributions to install
    measure: Callable[[Path], dict[str, Any]]


def ours(clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    fast = run(Case(options.runtime, 1, 1, False), clip, options.model, options.seconds)
    paced = run(Case(options.runtime, 1, 1, True), clip, options.model, options.seconds)
    p50, p95 = np.percentile(paced.latencies, (50, 95))
    return {
        "fps": fast.fps,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "faces": fast.faces,
        "frames": fast.frames,
        "start_s": paced.start_s,  # the second start: the choice of `auto` is remembered
        "peak_mb": max(fast.peak_mb, paced.peak_mb),
    }


def looped(name: str, clip: Path, limit_s: float, *modules: str, model: Path | None = None) -> dict[str, Any]:
    """Runs a loop of `peer_loops.py` as a process."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise Skipped(f"{' and '.join(missing)} not installed")
    command = children.command("peer_loops", name, clip, time.time(), "--limit", limit_s)
    command += ["--model", str(model)] if model else []
    environment = children.environment(HF_HUB_OFFLINE="1")  # a bench downloads nothing
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300 + 10 * limit_s)
    try:
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise Skipped(f"it failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:200]}") from None
    return facts


def model_file(path: Path | None, flag: str) -> Path:
    if path is None:
        raise Skipped(f"no model file; name one with {flag} FILE")
    if not path.is_file():
        raise UserError(f"There is no file {path}. Name the peer's model file with {flag}.")
    return path


def openface(clip: Path, limit_s: float) -> dict[str, Any]:
    """OpenFace is a program: a clip of one frame gives its start-up time, and the rest is frames."""
    program = shutil.which(OPENFACE)
    if program is None:
        raise Skipped(f"no {OPENFACE} on the PATH")
    with tempfile.TemporaryDirectory(prefix="vlfau-openface-") as folder:
        short = Path(folder) / "one.mp4"
        write_clip(short, clip, 1, 1 / 30)
        start_s, _, _ = _openface(program, short, Path(folder), limit_s)
        whole_s, frames, peak = _openface(program, clip, Path(folder), limit_s)
    return {"fps": (frames - 1) / max(whole_s - start_s, 1e-3), "frames": frames, "start_s": start_s, "peak_mb": peak}


def _openface(program: str, clip: Path, folder: Path, limit_s: float) -> tuple[float, int, float]:
    """Seconds, rows and memory of one run."""
    began, peak = time.perf_counter(), 0.0
    command = [program, "-f", str(clip), "-out_dir", str(folder), "-aus"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        if time.perf_counter() - began > 10 * limit_s:
            process.kill()
            process.wait()
            raise Skipped(f"{OPENFACE} took more than {10 * limit_s:.0f} s")
        time.sleep(0.02)
    took = time.perf_counter() - began
    try:
        with (folder / f"{clip.stem}.csv").open(newline="") as file:
            rows = len(list(csv.reader(file))) - 1
    except OSError:
        raise Skipped(f"{OPENFACE} exited with {process.returncode} and wrote no table") from None
    return took, rows, peak


def peers(options: argparse.Namespace) -> list[Peer]:
    limit = options.limit
    torch = ("torch", "timm", "opencv-python", "numpy")

    def scrfd() -> Path:
        return model_file(options.insightface_model, "--insightface-model")

    def landmarker() -> Path:
        return model_file(options.mediapipe_model, "--mediapipe-model")

    return [
        Peer(
            "vlfau-stream",
            f"{len(open_bundle(options.model).manifest.units)} AUs, sentences, over ZeroMQ",
            ("vlfau-stream",),
            lambda clip: ours(clip, options),
        ),
        Peer(
            "Swin-Base + Haar loop",
            "12 AUs (ME-GraphAU's network)",
            torch,
            lambda clip: looped("swin-haar", clip, limit, "torch", "timm"),
        ),
        Peer(
            "Swin-Base + SCRFD loop",
            "12 AUs (ME-GraphAU's network)",
            (*torch, "insightface", "onnxruntime"),
            lambda clip: looped("swin-scrfd", clip, limit, "torch", "timm", "insightface", model=scrfd()),
        ),
        Peer(
            "MediaPipe landmarker",
            "478 points, 52 blendshapes, no AUs",
            ("mediapipe",),
            lambda clip: looped("mediapipe", clip, limit, "mediapipe", model=landmarker()),
        ),
        Peer("OpenFace", "17 AUs", (), lambda clip: openface(clip, limit)),
        Peer("py-feat", "20 AUs", ("py-feat",), lambda clip: looped("py-feat", clip, limit, "feat")),
        Peer(
            "insightface detection",
            "boxes and 5 points, no AUs",
            ("insightface", "onnxruntime"),
            lambda clip: looped("insightface", clip, limit, "insightface", model=scrfd()),
        ),
    ]


def measure(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Rows and reasons by name. Repeats take turns, and rows hold medians."""
    source, chosen = find_source(options.source), peers(options)
    runs: dict[str, list[dict[str, Any]]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="vlfau-peers-") as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, source, 1, options.seconds)
        for peer in chosen * options.repeats:
            if peer.name in skipped or (options.only and peer.name not in options.only):
                continue
            if sys.stderr.isatty():
                print(peer.name, file=sys.stderr)
            try:
                runs.setdefault(peer.name, []).append(peer.measure(clip))
            except Skipped as reason:
                skipped[peer.name] = str(reason)
    rows = {}
    for peer in chosen:
        if done := runs.get(peer.name):
            row: dict[str, Any] = {key: float(np.median([one[key] for one in done])) for key in done[0]}
            rows[peer.name] = (
                row | {"says": peer.says} | ({"installed_mb": installed_mb(*peer.needs)} if peer.needs else {})
            )
    return rows, skipped


def show(rows: dict[str, dict[str, Any]], skipped: dict[str, str], facts: dict[str, Any]) -> None:
    print(heading(facts))
    lines = [["", *(title for title, _ in COLUMNS.values()), "output"]]
    for name, row in rows.items():
        cells = (format(row[key], how) if key in row else "" for key, (_, how) in COLUMNS.items())
        lines.append([name, *cells, row["says"]])
    print(table(lines))
    for name, reason in skipped.items():
        print(f"{name} not run: {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, metavar="VIDEO", help="video with one face (default: the demo clip)")
    parser.add_argument("--model", default="embedded", metavar="BUNDLE", help="for this engine")
    parser.add_argument("--runtime", default="auto", help="for this engine")
    parser.add_argument("--insightface-model", type=Path, metavar="FILE", help="an SCRFD .onnx, for two of the peers")
    parser.add_argument("--mediapipe-model", type=Path, metavar="FILE", help="a face_landmarker.task")
    parser.add_argument("--seconds", type=float, default=10.0, help="of video (default: 10)")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds after which a peer stops (default: 30)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these peers, named as in the table")
    options = parser.parse_args(arguments)
    try:
        rows, skipped = measure(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    facts = about("timm", "insightface", "mediapipe", "py-feat")
    show(rows, skipped, facts)
    print(json.dumps({"bench": "peers", **facts, "rows": rows, "skipped": skipped}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
