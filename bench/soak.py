"""Hours of looped streams with faults on a schedule: flat memory, flat latency, and every frame accounted for.

    python bench/soak.py [CLIP] [--minutes 120] [--streams 2] [--plot soak.png]

`vlfau-stream` watches cameras that are made here (`feeder.py`: a clip again and again over HTTP, the last one faster
than the machine can look) and writes a file beside it. Meanwhile, in every round of ten minutes or less:

    source   the first camera's process is killed, and started again a while later
    stall    a subscriber stops reading; the others, and the engine, must not notice
    clock    the engine's wall clock jumps an hour ahead, later two hours back (its own, not the computer's)
    disk     once, near the end: the kernel lets its file grow no further (RLIMIT_FSIZE, since nobody may fill a disk
             that others use), so that it must end with the reason, and is started again as a service manager would

It fails (exit code 1) when memory of the last third before the disk fills is above the second, or the 95th percentile
of the latency is (--memory and --latency say by how much), when published and dropped are not exactly what was decoded,
when an honest subscriber missed a message, when time ran backwards, or when a fault left no trace where it must leave
one. A row every now and then, a verdict, one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from clips import find_source
from facts import about, cpu_s, free_port, heading, resident_mb, table
from listening import Heard, Staller

from vlfau.engine.wire import decode
from vlfau.models.errors import UserError

CLOCK = "VLFAU_SOAK_CLOCK"  # names the file that holds the offset of the engine's clock
ROUND_S = 600.0
FAST = 8.0  # times the clip's pace, of the last camera
EXIT_S = 10.0  # the promise is two seconds, or the read timeout; a busy machine is given more
KINDS = ("source", "stall", "clock", "disk")


@dataclass(frozen=True)
class Fault:
    at_s: float
    kind: str
    lasts_s: float = 0.0
    hours: float = 0.0  # of a clock


def schedule(seconds: float) -> list[Fault]:
    """In order of time. The first tenth is left alone, and so is the last."""
    disk = 0.85 * seconds
    rounds = max(1, round(disk / ROUND_S))
    length = (disk - 0.1 * seconds) / rounds
    faults = [Fault(disk, "disk")]
    for k in range(rounds):
        begin = 0.1 * seconds + k * length
        away = min(0.15 * length, 20.0)
        faults += [
            Fault(begin, "source", away),
            Fault(begin + 0.3 * length, "stall", min(0.3 * length, 60.0)),
            Fault(begin + 0.65 * length, "clock", hours=1),
            Fault(begin + 0.8 * length, "clock", hours=-1),
        ]
    return sorted(faults, key=lambda fault: fault.at_s)


@dataclass
class Life:
    """One process of the engine, from its start to its end."""

    process: subprocess.Popen[bytes]
    errors: Any
    rows_file: Path
    heard: Heard = field(default_factory=Heard)
    status: int | None = None
    said: str = ""


@dataclass
class Soak:
    """What happened; `verdict` judges it."""

    samples: list[dict[str, float]] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    stalled: dict[str, int] = field(default_factory=dict)
    disk_at: float | None = None
    wrong: list[str] = field(default_factory=list)


class Clock:
    """The engine's wall clock, through a page that both processes see."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        self.path, self.hours = path, 0.0
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)

    def jump(self, hours: float) -> None:
        self.hours = hours
        self._page[:8] = int(hours * 3600e9).to_bytes(8, "little", signed=True)


def inside(arguments: list[str]) -> int:
    """What the child does: the command itself, with a wall clock that jumps when told to."""
    with open(os.environ[CLOCK], "rb") as file:
        page = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time_ns
    time.time_ns = lambda: real() + int.from_bytes(page[:8], "little", signed=True)  # type: ignore[assignment]
    time.time = lambda: time.time_ns() / 1e9  # type: ignore[assignment]
    from vlfau.engine.stream_command import main as stream

    return stream(arguments)


class Cameras:
    """The feeders, each a process on a port of its own."""

    def __init__(self, clip: Path, count: int) -> None:
        self.clip = clip
        self.ports = [free_port() for _ in range(count)]
        self.speeds = [1.0] * (count - 1) + [FAST] if count > 1 else [1.0]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count

    @property
    def addresses(self) -> list[str]:
        return [f"http://127.0.0.1:{port}/camera.ts" for port in self.ports]

    def start(self, number: int) -> None:
        script = str(Path(__file__).with_name("feeder.py"))
        command = [sys.executable, script, str(self.clip), str(self.ports[number]), "--speed", str(self.speeds[number])]
        self.processes[number] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self, number: int) -> None:
        process = self.processes[number]
        if process is not None:
            process.kill()
            process.wait()
            self.processes[number] = None

    def __enter__(self) -> Cameras:
        for number in range(len(self.ports)):
            self.start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in range(len(self.ports)):
            self.kill(number)


def soak(clip: Path, seconds: float, streams: int, model: str, runtime: str) -> Soak:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlfau-soak-")))
        run = _Run(folder, clip, streams, model, runtime, stack)
        try:
            return run.play(seconds)
        finally:
            run.kill()


class _Run:
    def __init__(self, folder: Path, clip: Path, streams: int, model: str, runtime: str, stack: ExitStack) -> None:
        self.folder, self.model, self.runtime = folder, model, runtime
        self.clock = Clock(folder / "clock")
        self.cameras = stack.enter_context(Cameras(clip, streams))
        self.address = f"ipc://{folder}/reports"  # the system holds less for a reader that stalls than on TCP
        context = stack.enter_context(zmq.Context())
        self.socket = stack.enter_context(context.socket(zmq.SUB))
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 0)
        for topic in (b"au/", b"status/", b"end/"):
            self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        self.socket.connect(self.address)
        self.staller = stack.enter_context(Staller(context, self.address))
        self.done = Soak()
        self.latencies: list[float] = []
        self.reports = 0
        self.cpu = 0.0

    @property
    def life(self) -> Life:
        return self.done.lives[-1]

    def play(self, seconds: float) -> Soak:
        self.start()
        zero = time.monotonic()  # after the first report: loading is not part of the soak
        todo: list[tuple[float, str, Any]] = []
        for fault in schedule(seconds):
            todo.append((fault.at_s, fault.kind, fault))
            if fault.lasts_s:
                todo.append((fault.at_s + fault.lasts_s, f"{fault.kind} over", fault))
        todo.sort(key=lambda one: one[0])
        step = max(0.5, seconds / 240)
        next_sample, shown = step, 0.0
        while (now := time.monotonic() - zero) < seconds:
            self.listen(0.05)
            while todo and todo[0][0] <= now:
                _, what, fault = todo.pop(0)
                self.done.faults.append((round(now, 1), what))
                self.happen(what, fault, now)
            if now >= next_sample:
                next_sample = now + step
                self.sample(now)
                if now - shown >= seconds / 10:
                    shown = now
                    print(f"{now:7.0f} s  {json.dumps(self.done.samples[-1])}", flush=True)
            if self.life.process.poll() is not None and self.life.status is None:
                self.leave("it ended by itself")
                self.start()
        self.stop()
        self.done.stalled = {"heard": self.staller.heard, "lost": self.staller.lost, "wrong": self.staller.wrong}
        return self.done

    def happen(self, what: str, fault: Fault, now: float) -> None:
        match what:
            case "source":
                self.cameras.kill(0)
            case "source over":
                self.cameras.start(0)
            case "stall":
                self.staller.stall()
            case "stall over":
                self.staller.go_on()
            case "clock":
                self.clock.jump(fault.hours)
            case "disk":
                self.done.disk_at = now
                self.fill_disk()

    def fill_disk(self) -> None:
        size = self.life.rows_file.stat().st_size + 1000  # in the middle of a row
        pid = self.life.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        self.wait_end()
        self.leave("")
        if self.life.status != 2 or "rows" not in self.life.said:
            self.done.wrong.append(f"a full disk ended the engine with {self.life.status}: {self.life.said!r}")
        self.start()

    def start(self) -> None:
        number = len(self.done.lives)
        rows, errors = self.folder / f"rows{number}.jsonl", tempfile.TemporaryFile()  # noqa: SIM115
        names = [f"camera{k}" for k in range(len(self.cameras.ports))]
        command = [sys.executable, __file__, "--inside", *self.cameras.addresses, "--name", *names, "--quiet"]
        command += ["--model", self.model, "--runtime", self.runtime, "--bind", self.address, "--jsonl", str(rows)]
        command += ["--wait-subscribers", "2", "--send-queue", "100", "--live", "--read-timeout", "2", "--why", "all"]
        environment = os.environ | {CLOCK: str(self.clock.path)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        self.done.lives.append(Life(process, errors, rows))
        self.staller.begin()
        until = time.monotonic() + 120
        while not self.life.heard.reports:
            self.listen(0.1)
            if process.poll() is not None or time.monotonic() > until:
                self.leave("")
                raise UserError(f"vlfau-stream gave no report ({self.life.status}): {self.life.said or 'nothing said'}")
        self.cpu = cpu_s(process.pid)

    def listen(self, seconds: float) -> None:
        """All that is there, for at most about `seconds`."""
        until = time.monotonic() + seconds
        while self.socket.poll(max(0, round((until - time.monotonic()) * 1000))):
            raw = self.socket.recv()
            latency = self.life.heard.take(decode(raw), time.time_ns(), self.clock.hours)
            if latency is not None:
                self.latencies.append(latency)
                self.reports += 1
            if time.monotonic() > until:
                return

    def sample(self, now: float) -> None:
        process = self.life.process.pid
        cpu, before = cpu_s(process), self.done.samples[-1]["s"] if self.done.samples else 0.0
        p50, p95 = np.percentile(self.latencies, (50, 95)) if self.latencies else (0.0, 0.0)
        self.done.samples.append(
            {
                "s": round(now, 1),
                "memory_mb": round(resident_mb(process), 1),
                "fps": round(self.reports / max(now - before, 1e-3), 1),
                "p50_ms": round(float(p50), 2),
                "p95_ms": round(float(p95), 2),
                "cpu_percent": round(max(cpu - self.cpu, 0.0) / max(now - before, 1e-3) * 100, 1),
                "life": len(self.done.lives) - 1,
            }
        )
        self.latencies, self.reports, self.cpu = [], 0, cpu

    def wait_end(self) -> None:
        until = time.monotonic() + EXIT_S
        while self.life.process.poll() is None and time.monotonic() < until:
            self.listen(0.05)
        if self.life.process.poll() is None:
            self.done.wrong.append(f"it was still there {EXIT_S:.0f} s after it had to end")
            self.life.process.kill()
            self.life.process.wait()

    def leave(self, complaint: str) -> None:
        """What the process leaves behind: its last messages, its exit code and its words."""
        life = self.life
        self.listen(0.3)
        life.process.poll()
        life.errors.seek(0)
        life.status, life.said = life.process.returncode, life.errors.read().decode(errors="replace").strip()
        life.errors.close()
        if complaint:
            self.done.wrong.append(f"{complaint}, with {life.status}: {life.said!r}")
        self.done.wrong += accounts(life)
        self.staller.end()

    def stop(self) -> None:
        self.life.process.send_signal(signal.SIGINT)
        self.wait_end()
        self.leave("")
        if self.life.status != 130:
            self.done.wrong.append(f"an interrupt ended it with {self.life.status}: {self.life.said!r}")

    def kill(self) -> None:
        for life in self.done.lives:
            if life.process.poll() is None:
                life.process.kill()
                life.process.wait()


# What is asserted


def accounts(life: Life) -> list[str]:
    """Published + dropped = decoded, stream by stream, with what this side of the wire counted itself."""
    wrong = list(life.heard.wrong)
    extra = 0
    for stream, count in sorted(life.heard.reports.items()):
        end = life.heard.ends.get(stream)
        if end is None:
            wrong.append(f"{stream}: no end was told")
            continue
        if end.frames_in != end.frames_out + end.dropped:
            wrong.append(f"{stream}: {end.frames_in} decoded, {end.frames_out} published + {end.dropped} dropped")
        extra += count - end.frames_out
        if count < end.frames_out:
            wrong.append(f"{stream}: {count} of {end.frames_out} reports arrived")
        if (gaps := life.heard.last_frame[stream] + 1 - count) > end.dropped:
            wrong.append(f"{stream}: {gaps} frames are missing between the reports, {end.dropped} were dropped")
    if extra > (life.status == 2):  # one report was out when its row did not fit
        wrong.append(f"{extra} reports more arrived than were published")
    whole = [line for line in life.rows_file.read_bytes().split(b"\n")[:-1] if _is_row(line)]
    if len(whole) != sum(end.frames_out for end in life.heard.ends.values()) or not _ends_whole(life.rows_file):
        wrong.append(f"{life.rows_file.name}: {len(whole)} whole rows")
    return wrong


def _is_row(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _ends_whole(path: Path) -> bool:
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def grown(samples: Sequence[dict[str, float]], memory: float, latency: float) -> list[str]:
    """What is more in the last third of the first life than in its second; the first third is warming up. `memory` and
    `latency` are shares; less than 10 MB and 5 ms are no growth."""
    first = [row for row in samples if row["life"] == 0]
    third = len(first) // 3
    if not third:
        return ["too short to judge"]
    found = []
    for name, share, least in (("memory_mb", memory, 10.0), ("p95_ms", latency, 5.0)):
        before, after = (
            float(np.median([row[name] for row in part])) for part in (first[third:-third], first[-third:])
        )
        if after > before * (1 + share) and after > before + least:
            found.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return found


def traces(done: Soak, streams: int) -> list[str]:
    """A fault that nothing shows was no fault."""
    wrong = []
    first = done.lives[0].heard
    kinds = {what for _, what in done.faults}
    if "source" in kinds and not (first.ends["camera0"].reconnects if "camera0" in first.ends else 0):
        wrong.append("a killed camera led to no reconnection")
    if "source" in kinds and not first.after_gap.get("camera0"):
        wrong.append("the killed camera never came back")
    if "stall" in kinds and not done.stalled["lost"]:
        wrong.append("the stalled subscriber lost nothing")
    if done.stalled["wrong"]:
        wrong.append("the stalled subscriber heard messages in disorder")
    if "clock" in kinds and not any(life.heard.jumps >= 2 for life in done.lives):
        wrong.append("the clock's jumps are in no report")
    if streams > 1 and not first.ends.get(f"camera{streams - 1}", None):
        wrong.append("the fast camera was never heard to the end")
    return wrong


def verdict(done: Soak, streams: int, memory: float, latency: float) -> list[str]:
    return [*grown(done.samples, memory, latency), *done.wrong, *traces(done, streams)]


def totals(done: Soak) -> list[dict[str, Any]]:
    return [
        {
            "life": number,
            "exit": life.status,
            "stream": stream,
            "decoded": end.frames_in,
            "published": end.frames_out,
            "dropped": end.dropped,
            "drops": end.drops,
            "reconnects": end.reconnects,
        }
        for number, life in enumerate(done.lives)
        for stream, end in sorted(life.heard.ends.items())
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    if arguments is None and "--inside" in sys.argv:
        return inside(sys.argv[sys.argv.index("--inside") + 1 :])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?", help="a video with a face; default: the demo clip")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--memory", type=float, default=0.05, metavar="SHARE", help="growth that is allowed (0.05)")
    parser.add_argument("--latency", type=float, default=0.5, metavar="SHARE", help="growth that is allowed (0.5)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="memory, latency and rate over time, and the faults")
    given = parser.parse_args(arguments)
    try:
        clip = find_source(given.clip)
        done = soak(clip, given.minutes * 60, given.streams, given.model, given.runtime)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    wrong, facts = verdict(done, given.streams, given.memory, given.latency), about("psutil")
    print("\n" + heading(facts))
    rows = totals(done)
    columns = ("life", "exit", "stream", "decoded", "published", "dropped", "reconnects")
    print(table([list(columns), *([str(row[key]) for key in columns] for row in rows)]))
    lost = done.stalled
    print(f"\nThe subscriber that stalled heard {lost['heard']} reports and lost {lost['lost']}.")
    told = ", ".join(f"{what} at {at:.0f} s" for at, what in done.faults)
    print(f"{given.minutes:g} minutes, {given.streams} cameras; {told}")
    print("; ".join(wrong) or "flat, and every frame accounted for")
    if given.plot:
        from soak_plot import draw

        draw(given.plot, done.samples, done.faults, f"{facts['device']}, commit {facts['commit']}")
        print(f"wrote {given.plot}")
    last = {"bench": "soak", "minutes": given.minutes, "streams": given.streams, "wrong": wrong, "totals": rows}
    print(json.dumps(last | facts | {"stalled": lost, "faults": done.faults, "samples": done.samples}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
