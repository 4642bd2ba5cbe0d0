"""The headline: how long from a frame's capture until a subscriber holds its report, and where the time goes.

    python bench/latency.py                      every case, with the runtime that `auto` takes
    python bench/latency.py --quick              the same cases in a few seconds each: under four minutes on two cores
    python bench/latency.py --all-runtimes --repeats 5 --json A.json --plots DIR
    python bench/latency.py --compare A.json B.json

Each case is one `vlfau-stream` in a process of its own that plays encoded 720p30 clips of 1 to 8 faces, on 1 to 4
streams, paced and as fast as it can; this process subscribes over TCP as any client would and notes when each message
arrives. Capture is when the decoder hands a frame over. The clips are the package's demo clip or --source, side by
side; with --source the case of one face plays that file as it is. The first tenth of the frames of a run is not
counted. Unpaced, frames wait in the queues between the stages, so that latency there says how much waits.

--json keeps every latency. To compare two installations fairly, let them take turns, each with its own Python:
`for i in 1 2 3 4 5; do A/bin/python bench/latency.py --json A.json --append; B/bin/python ...; done`.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import zmq
from comparison import compare, jitter, percentile, quantiles
from numpy.typing import NDArray

from vlfau.engine.wire import End, Report, Status, decode
from vlfau.models.bundle import embedded, open_bundle
from vlfau.models.errors import UserError
from vlfau.models.runtimes import RUNTIMES

WIDTH, HEIGHT, FPS = 1280, 720, 30
GRIDS = {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (4, 2)}  # faces -> columns, rows
STREAMS = (2, 4)  # beside the case of one
STAGES = ("detect", "align", "predict", "explain")
PACKAGES = ("vlfau-stream", "numpy", "av", "pyzmq", "openvino", "onnxruntime", "torch", "tensorrt-rtx", "tensorrt")
QUICK_S, FULL_S = 4.0, 20.0  # of video in each case
QUICK_BUDGET_S = 200.0  # no case begins later, so that the slowest one still ends within four minutes
START_S = 120.0  # loading networks, and timing them where `auto` chooses for the first time
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    runtime: str
    faces: int  # put into the clip; what is found is another column
    streams: int
    paced: bool

    @property
    def name(self) -> str:
        many = f"{self.streams} streams" if self.streams > 1 else f"{self.faces} face{'s' * (self.faces > 1)}"
        return f"{self.runtime}, {many}, {'paced' if self.paced else 'unpaced'}"


@dataclass(frozen=True)
class Run:
    """What a subscriber saw of one process."""

    latencies: Values  # (n,) ms, capture to receipt
    stages: dict[str, float]  # mean ms
    fps: float  # reports a second, of all streams together
    jitter_ms: float
    faces: float  # found in a frame, on average
    dropped: int  # by the engine
    lost: int  # between the engine and this subscriber
    frames: int
    cpu_percent: (
        float  # of one core; from the first report to the end where the system tells, else of the whole process
    )
    peak_mb: float
    runtime: str
    device: str


def cases(runtimes: Sequence[str], faces: Sequence[int], streams: Sequence[int]) -> list[Case]:
    """One face first, paced and unpaced: the figures that are quoted."""
    plan = [(count, 1) for count in faces] + [(1, count) for count in streams]
    return [Case(name, *place, paced) for name in runtimes for place in plan for paced in (True, False)]


# Clips


def find_source(given: Path | None) -> Path:
    path = given or embedded() / "demo.mp4"
    if path.is_file():
        return path
    what = f"There is no file {given}." if given else f"The package's demo clip is not at {path}."
    raise UserError(f"{what} The bench plays a video with one face. Give one: --source VIDEO")


def write_clip(path: Path, source: Path, faces: int, seconds: float) -> None:
    """720p30 H.264: `faces` copies of the source in a grid, each a little further on, so that no two are alike."""
    columns, rows = GRIDS[faces]
    cell = (WIDTH // columns, HEIGHT // rows)
    pictures = _fitted(source, cell, seconds)
    frames = int(seconds * FPS)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for k in range(faces):
                x, y = k % columns * cell[0], k // columns * cell[1]
                part = pictures[(index + k * len(pictures) // faces) % len(pictures)]
                picture[y : y + cell[1], x : x + cell[0]] = part
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def _fitted(source: Path, cell: tuple[int, int], seconds: float) -> list[NDArray[np.uint8]]:
    """The source's frames in (height, width, 3) cells, whole, with grey around. A short source swings to and fro."""
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
            if len(fitted) >= min(seconds, 10) * FPS:  # 10 s: the frames are held in memory
                break
    if not fitted:
        raise UserError(f"{source} holds no video frame. Give another: --source VIDEO")
    return fitted + fitted[-2:0:-1]


# One process


def run(case: Case, clip: Path, model: str, seconds: float) -> Run:
    address = f"tcp://127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "vlfau.engine.stream_command", *[str(clip)] * case.streams]
    command += ["--model", model, "--runtime", case.runtime, "--bind", address, "--wait-subscribers", "1", "--quiet"]
    command += ["--duration", str(seconds), *(["--realtime"] if case.paced else [])]
    with zmq.Context() as context, tempfile.TemporaryFile() as errors:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.RCVHWM, 0)
        subscriber.setsockopt(zmq.LINGER, 0)
        for topic in (b"au/", b"status/", b"end/"):
            subscriber.setsockopt(zmq.SUBSCRIBE, topic)
        subscriber.connect(address)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            heard = _listen(subscriber, process, case, START_S + seconds * (2 + 10 * case.streams))
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            subscriber.close()
        if heard.status:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"vlfau-stream ended with {heard.status}: {said[-1] if said else 'it said nothing'}")
    return measured(heard, case)


@dataclass
class Heard:
    messages: list[tuple[int, bytes]]  # unix ns at receipt, message
    cpu_s: float
    over_s: float  # the time that cpu_s is of
    peak_mb: float
    status: int


def _listen(subscriber: Any, process: subprocess.Popen[bytes], case: Case, limit_s: float) -> Heard:
    """Nothing but receiving: messages are read afterwards, on time that no frame waits for."""
    messages: list[tuple[int, bytes]] = []
    began = first = time.perf_counter()
    cpu_first, playing, ends, peak = 0.0, False, 0, 0.0
    while ends < case.streams:
        if not subscriber.poll(200):
            if process.poll() is not None:
                return Heard([], 0, 1, 0, process.returncode or 1)
            if time.perf_counter() - began > limit_s:
                raise UserError(f"No end after {limit_s:.0f} s of '{case.name}'. Give less to do: --seconds, --quick")
            continue
        message = subscriber.recv()
        messages.append((time.time_ns(), message))
        if not playing and message.startswith(b"au/"):
            playing, first, cpu_first = True, time.perf_counter(), _cpu_s(process.pid)
        if not message.startswith(b"au/"):
            peak = max(peak, _peak_mb(process.pid))
        ends += message.startswith(b"end/")
    cpu_last, last = _cpu_s(process.pid), time.perf_counter()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
    if cpu_last:
        cpu, over = cpu_last - cpu_first, last - first
    else:
        cpu, over = used.ru_utime + used.ru_stime, time.perf_counter() - began
    if not peak:
        peak = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return Heard(messages, cpu, over, peak, process.returncode)


def _peak_mb(process: int) -> float:
    """Since the program began, 0 where the system has no /proc. What wait4 says counts the bench before its exec."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _cpu_s(process: int) -> float:
    """Processor seconds so far, 0 where the system has no /proc."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(heard: Heard, case: Case) -> Run:
    reports: list[tuple[int, Report]] = []
    ends: list[End] = []
    runtime = device = ""
    for at, raw in heard.messages:
        message = decode(raw)
        if isinstance(message, Report):
            reports.append((at, message))
        elif isinstance(message, End):
            ends.append(message)
        elif isinstance(message, Status):
            runtime, device = message.runtime or runtime, message.device or device
    failed = [end.error for end in ends if end.error]
    if failed or len(reports) < 2:
        raise UserError(f"'{case.name}' gave {len(reports)} reports. {' '.join(failed) or 'Give a longer --source.'}")
    kept = reports[len(reports) // 10 :]
    latencies = np.array([(at - report.captured_ns) / 1e6 for at, report in kept])
    by_stage = np.array([[getattr(report.latency_ms, stage) for stage in STAGES] for _, report in kept])
    total = np.array([report.latency_ms.total for _, report in kept])
    stages = dict(zip(STAGES, by_stage.mean(0).tolist()))
    stages["other"] = float(np.maximum(total - by_stage.sum(1), 0).mean())  # between the stages, and publishing
    stages["wire"] = float(np.maximum(latencies - total, 0).mean())  # publishing, sending and receiving
    streams = {report.stream for _, report in kept}
    each = [np.array([x for x, (_, r) in zip(latencies, kept) if r.stream == name]) for name in streams]
    return Run(
        latencies=latencies,
        stages=stages,
        fps=(len(reports) - 1) / (reports[-1][0] - reports[0][0]) * 1e9,
        jitter_ms=float(np.mean([jitter(one) for one in each])),
        faces=float(np.mean([len(report.faces) for _, report in kept])),
        dropped=sum(end.dropped for end in ends),
        lost=sum(end.frames_out for end in ends) - len(reports),
        frames=len(reports),
        cpu_percent=heard.cpu_s / max(heard.over_s, 1e-3) * 100,
        peak_mb=heard.peak_mb,
        runtime=runtime,
        device=device,
    )


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


# All of them


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """One row: quantiles over the frames of all repeats, means of the rest, sums of what was lost."""
    row: dict[str, Any] = {"fps": float(np.mean([run.fps for run in runs]))}
    row |= quantiles(np.concatenate([run.latencies for run in runs]))
    row["jitter_ms"] = float(np.mean([run.jitter_ms for run in runs]))
    for key in ("dropped", "lost", "frames"):
        row[key] = sum(getattr(run, key) for run in runs)
    for key in ("faces", "cpu_percent"):
        row[key] = float(np.mean([getattr(run, key) for run in runs]))
    row["peak_mb"] = max(run.peak_mb for run in runs)
    row["stages_ms"] = {stage: float(np.mean([run.stages[stage] for run in runs])) for stage in runs[0].stages}
    return row | {"runtime": runs[0].runtime, "device": runs[0].device}


def chosen_runtimes(model: str, named: Sequence[str], every: bool) -> list[str]:
    if not every:
        return list(named)
    from vlfau.models.runtimes.choose import probe

    found = []
    for name, reason in probe(open_bundle(model), None, None).items():
        if reason is None or reason.endswith("only when asked for"):
            found.append(name)
        else:
            print(f"without {name}: {reason}")
    return found


def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Repeats take turns: a slow minute of the machine falls on all cases, not on one."""
    source = find_source(options.source)
    open_bundle(options.model)  # a wrong name is told before clips are made
    plan = cases(chosen_runtimes(options.model, options.runtime, options.all_runtimes), options.faces, options.streams)
    seconds = options.seconds or (QUICK_S if options.quick else FULL_S)
    until = time.monotonic() + (QUICK_BUDGET_S if options.quick else float("inf"))
    found: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="vlfau-latency-") as folder:
        clips = {}
        for faces in sorted({case.faces for case in plan}):
            clips[faces] = Path(folder) / f"faces{faces}.mp4"
            if faces == 1 and options.source is not None:
                clips[faces] = source
            else:
                write_clip(clips[faces], source, faces, seconds)
        for repeat, case in ((repeat, case) for repeat in range(options.repeats) for case in plan):
            if time.monotonic() > until:
                print(f"not run, --quick is out of time: {case.name}")
                continue
            if sys.stderr.isatty():
                print(f"{case.name}, repeat {repeat + 1} of {options.repeats}", file=sys.stderr)
            try:
                found.setdefault(case.name, []).append(run(case, clips[case.faces], options.model, seconds))
            except UserError as error:
                if not options.all_runtimes:
                    raise
                print(f"without {case.name}: {error}")
    runs = {name: done for name, done in found.items() if done}
    if not runs:
        raise UserError("No case ran; the lines above say why. Name a runtime that this machine has: --runtime NAME")
    return runs


def about() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # above the number of cores: other programs slowed this run
        "commit": commit(),
        "versions": {"python": platform.python_version()} | dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


# What is said


def show(rows: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    device = next(iter(rows.values()))["device"]
    print(f"{facts['processor']}, {facts['cores']} cores, load {facts['load']}, network on {device}")
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    print(f"commit {facts['commit']}, {versions}\n")
    columns = {"fps": "fps", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "max_ms": "max", "jitter_ms": "jitter"}
    columns |= {"faces": "faces found", "cpu_percent": "CPU %", "peak_mb": "MB"}
    counts = ("dropped", "lost", "frames")
    table = [["case", *columns.values(), *counts]]
    for name, row in rows.items():
        table.append([name, *(f"{row[key]:.1f}" for key in columns), *(str(row[key]) for key in counts)])
    print("capture to receipt in ms; CPU in percent of one core")
    _print_table(table)
    print("\nmean ms in each stage, its waiting included, and its share of the sum")
    stages = list(next(iter(rows.values()))["stages_ms"])
    table = [["case", *stages]]
    for name, row in rows.items():
        spent = row["stages_ms"]
        whole = sum(spent.values()) or 1.0
        table.append([name, *(f"{spent[stage]:.2f} ({spent[stage] / whole:.0%})" for stage in stages)])
    _print_table(table)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for k, row in enumerate(rows):
        first, *rest = zip(row, widths)
        print("| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]) + " |")
        if not k:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def headline(rows: dict[str, dict[str, Any]], facts: dict[str, Any], asked: str) -> dict[str, Any]:
    """What the last line begins with: one face, of the runtime asked for. None: that case did not run."""
    paced, unpaced = (rows.get(Case(asked, 1, 1, pace).name, {}) for pace in (True, False))
    quoted = {"bench": "latency", "fps": unpaced.get("fps")}
    quoted |= {key: paced.get(key) for key in ("p50_ms", "p95_ms", "p99_ms")}
    quoted["dropped"] = sum(row["dropped"] for row in rows.values())
    quoted["device"] = f"{facts['processor']} ({facts['cores']} cores)"
    network = next(iter(rows.values()))
    return quoted | facts | {"network_on": network["device"], "runtime": network["runtime"], "rows": rows}


def keep(path: Path, runs: dict[str, list[Run]], last: dict[str, Any], append: bool) -> None:
    samples: dict[str, Any] = {}
    if append and path.exists():
        samples = load(path)["samples"]
    for name, done in runs.items():
        kept = samples.setdefault(name, {"latencies_ms": [], "fps": []})
        kept["latencies_ms"] += [np.round(run.latencies, 3).tolist() for run in done]
        kept["fps"] += [run.fps for run in done]
    path.write_text(json.dumps(last | {"samples": samples}))


def load(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        _ = stored["samples"]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}. Give files that --json has written.") from None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} holds no latencies. Give files that --json has written.") from None
    return stored


def compare_files(first: Path, second: Path) -> dict[str, Any]:
    """Prints B over A for every case that both have."""
    a, b = load(first), load(second)
    print(f"A: {first}, commit {a['commit']}, {a['device']}\nB: {second}, commit {b['commit']}, {b['device']}\n")
    if a["device"] != b["device"]:
        print("The devices differ: the ratios say as much about them as about the program.\n")
    names = [name for name in a["samples"] if name in b["samples"]]
    if not names:
        raise UserError(f"{first} and {second} have no case in common. Run both with the same --runtime and cases.")
    found: dict[str, Any] = {}
    table = [["case", "what", "B / A", "95 % interval", "verdict"]]
    for name in names:
        one, two = a["samples"][name], b["samples"][name]
        runs = [[np.array(run, np.float64) for run in side["latencies_ms"]] for side in (one, two)]
        rates = [[np.array([fps], np.float64) for fps in side["fps"]] for side in (one, two)]
        ratios = {f"p{q}_ms": compare(runs[0], runs[1], percentile(q)) for q in (50, 95, 99)}
        if len(one["fps"]) > 1 and len(two["fps"]) > 1:  # one rate a run: a single run has no spread
            ratios["fps"] = compare(rates[0], rates[1], lambda values: float(values.mean()))
        for key, ratio in ratios.items():
            interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
            table.append([name, key, f"{ratio.ratio:.3f}", interval, ratio.verdict])
        found[name] = {
            key: {"ratio": r.ratio, "low": r.low, "high": r.high, "verdict": r.verdict} for key, r in ratios.items()
        }
    _print_table(table)
    commits = {"A": a["commit"], "B": b["commit"]}
    return {"bench": "latency --compare", "commits": commits, "device": b["device"], "ratios": found}


def draw(folder: Path, runs: dict[str, list[Run]], rows: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    """Of the first case, which is one face, paced."""
    from latency_plots import histogram, waterfall

    name = next(iter(runs))
    title = f"{name}\n{facts['processor']}, {facts['cores']} cores, commit {facts['commit']}"
    latencies = np.concatenate([run.latencies for run in runs[name]])
    for path in [*histogram(folder, latencies, title), *waterfall(folder, rows[name]["stages_ms"], title)]:
        print(f"wrote {path}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--source", type=Path, metavar="VIDEO", help="a video with one face; default: the demo clip")
    made.add_argument("--model", default="embedded", metavar="BUNDLE")
    made.add_argument("--runtime", nargs="+", default=["auto"], choices=RUNTIMES)
    made.add_argument("--all-runtimes", action="store_true", help="each that this machine has")
    made.add_argument("--faces", type=int, nargs="*", default=list(GRIDS), choices=list(GRIDS))
    made.add_argument("--streams", type=int, nargs="*", default=list(STREAMS), help="cases of several streams")
    made.add_argument("--seconds", type=float, help=f"of video in each case; {FULL_S:.0f}, with --quick {QUICK_S:.0f}")
    made.add_argument("--repeats", type=int, default=1)
    made.add_argument("--quick", action="store_true", help="under four minutes on two cores")
    made.add_argument("--json", type=Path, metavar="FILE", help="keep every latency, for --compare")
    made.add_argument("--append", action="store_true", help="add to the runs that --json's FILE holds")
    made.add_argument("--plots", type=Path, metavar="DIR", help="histogram and waterfall as PNG and SVG")
    made.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two files of --json; runs nothing")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.compare:
            last = compare_files(*options.compare)
        else:
            runs = measure(options)
            rows, facts = {name: summary(done) for name, done in runs.items()}, about()
            show(rows, facts)
            if options.plots:
                draw(options.plots, runs, rows, facts)
            asked = next(iter(runs)).partition(",")[0] if options.all_runtimes else options.runtime[0]
            last = headline(rows, facts, asked)
            if options.json:
                keep(options.json, runs, last, options.append)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(last))
    return 0


if __name__ == "__main__":
    sys.exit(main())
