"""Hours of looped streams with scheduled faults: flat memory, flat latency, and every frame accounted for.

    python bench/soak.py [CLIP] [--minutes 120] [--streams 2] [--plot soak.png]

`vlfau-stream` watches simulated cameras (`feeder.py`: a clip in a loop over HTTP, the last one faster than the machine
can process) and also writes a file. Meanwhile, in every round of ten minutes or less:

    source   the first camera's process is killed, and restarted a while later
    stall    a subscriber stops reading; the other subscriber and the engine must not be affected
    clock    the engine's wall clock jumps an hour ahead, later two hours back (only its own, not the computer's)
    disk     once, near the end: the kernel limits the size of the engine's file (RLIMIT_FSIZE, which leaves the disk
             free for others), so it must exit with the reason, and is restarted as a service manager would do

It fails (exit code 1) if memory or the 95th percentile of the latency is higher in the last third before the disk fault
than in the second (by more than --memory and --latency allow), if published plus dropped is not exactly what was
decoded, if the reading subscriber missed a message, if time ran backwards, or if a fault left no trace where it must
leave one. Prints a row now and then and a verdict; the last line is JSON.
"""

from __future__ import annotations

import argparse
import faulthandler
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from measuring import children
from measuring.clips import find_source
from measuring.facts import about, cpu_s, free_port, heading, load, resident_mb, table
from measuring.listening import Staller
from measuring.soak_verdict import QUEUES_HOLD, Life, Soak, accounts, totals, verdict

from vlfau.engine.wire import decode
from vlfau.models.errors import UserError

CLOCK = "VLFAU_SOAK_CLOCK"  # names the file with the offset of the engine's clock
ROUND_S = 600.0
FAST = 8.0  # speed of the last camera, in multiples of real time
WARM = 30  # reports until a process counts as running, because sentences are still loading after the first
EXIT_S = 10.0  # promised are two seconds, or the read timeout; a busy machine gets more, by its load


@dataclass(frozen=True)
class Fault:
    at_s: float
    kind: str
    lasts_s: float = 0.0
    hours: float = 0.0  # of a clock


def schedule(seconds: float) -> list[Fault]:
    """Faults in order of time; none in the first and the last tenth."""
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


class Clock:
    """The engine's wall clock, through a memory page that both processes share."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        self.path, self.hours = path, 0.0
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)

    def jump(self, hours: float) -> None:
        self.hours = hours
        self._page[:8] = int(hours * 3600e9).to_bytes(8, "little", signed=True)


def inside(arguments: list[str]) -> int:
    """Runs in the child process: the command, with a wall clock that jumps on request. On SIGUSR1 it prints the stacks
    of its threads."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # A shell's background jobs ignore interrupts, and so would all their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.environ[CLOCK], "rb") as file:
        page = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time_ns
    time.time_ns = lambda: real() + int.from_bytes(page[:8], "little", signed=True)  # type: ignore[assignment]
    time.time = lambda: time.time_ns() / 1e9  # type: ignore[assignment]
    from vlfau.engine.commands.stream import main as stream

    return stream(arguments)


class Cameras:
    """The feeders: one process and port for each camera."""

    def __init__(self, clip: Path, count: int) -> None:
        self.clip = clip
        self.ports = [free_port() for _ in range(count)]
        self.speeds = [1.0] * (count - 1) + [FAST] if count > 1 else [1.0]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count

    @property
    def addresses(self) -> list[str]:
        return [f"http://127.0.0.1:{port}/camera.ts" for port in self.ports]

    def start(self, number: int) -> None:
        command = children.command("feeder", self.clip, self.ports[number], "--speed", self.speeds[number])
        self.processes[number] = subprocess.Popen(
            command, env=children.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

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


def line_of(sample: dict[str, float]) -> str:
    figures = f"{sample['memory_mb']:.0f} MB, {sample['fps']:.1f} reports/s, {sample['cpu_percent']:.0f} % of a core"
    return f"{sample['s']:.0f} s: {figures}, p50 {sample['p50_ms']:.1f} ms, p95 {sample['p95_ms']:.1f} ms"


class _Run:
    def __init__(self, folder: Path, clip: Path, streams: int, model: str, runtime: str, stack: ExitStack) -> None:
        self.folder, self.model, self.runtime = folder, model, runtime
        self.clock = Clock(folder / "clock")
        self.cameras = stack.enter_context(Cameras(clip, streams))
        self.address = f"ipc://{folder}/reports"  # the system buffers less for a stalled reader than on TCP
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
        self.reports = self.heard_since_stall = 0
        self.cpu = 0.0

    @property
    def life(self) -> Life:
        return self.done.lives[-1]

    def play(self, seconds: float) -> Soak:
        self.start()
        zero = time.monotonic()  # loading does not count
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
                if what == "stall over" and self.heard_since_stall < QUEUES_HOLD and now < 0.8 * seconds:
                    todo.append((now + 0.5, what, fault))  # a slow machine does not fill the queue in that time
                    todo.sort(key=lambda one: one[0])
                    continue
                self.done.faults.append((round(now, 1), what))
                self.happen(what, fault, now)
            if now >= next_sample:
                next_sample = now + step
                self.sample(now)
                if now - shown >= seconds / 10:
                    shown = now
                    print(line_of(self.done.samples[-1]), flush=True)
            if self.life.process.poll() is not None and self.life.status is None:
                self.leave("it exited unexpectedly")
                self.start()
        self.stop()
        self.done.stalled |= {"heard": self.staller.heard, "lost": self.staller.lost, "wrong": self.staller.wrong}
        return self.done

    def happen(self, what: str, fault: Fault, now: float) -> None:
        match what:
            case "source":
                self.cameras.kill(0)
            case "source over":
                self.cameras.start(0)
            case "stall":
                self.heard_since_stall = 0
                self.staller.stall()
            case "stall over":
                self.done.stalled["meanwhile"] = max(self.done.stalled.get("meanwhile", 0), self.heard_since_stall)
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
        if self.life.status != 2 or "rows" not in self.life.stderr:
            self.done.wrong.append(f"with a full disk the engine exited with {self.life.status}: {self.life.stderr!r}")
        self.start()

    def start(self) -> None:
        number = len(self.done.lives)
        rows, errors = self.folder / f"rows{number}.jsonl", tempfile.TemporaryFile()  # noqa: SIM115
        names = [f"camera{k}" for k in range(len(self.cameras.ports))]
        command = [sys.executable, __file__, "--inside", *self.cameras.addresses, "--name", *names, "--quiet"]
        command += ["--model", self.model, "--runtime", self.runtime, "--bind", self.address, "--jsonl", str(rows)]
        command += ["--wait-subscribers", "2", "--send-queue", "20", "--live", "--read-timeout", "2", "--why", "all"]
        environment = os.environ | {CLOCK: str(self.clock.path)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        self.done.lives.append(Life(process, errors, rows))
        self.staller.begin()
        until = time.monotonic() + 120
        while sum(self.life.heard.reports.values()) < WARM:
            self.listen(0.1)
            if process.poll() is not None or time.monotonic() > until:
                self.leave("")
                raise UserError(f"vlfau-stream gave no report ({self.life.status}): {self.life.stderr or 'no message'}")
        self.cpu = cpu_s(process.pid)

    def listen(self, seconds: float) -> None:
        """Receives what has arrived, for at most about `seconds`."""
        until = time.monotonic() + seconds
        while self.socket.poll(max(0, round((until - time.monotonic()) * 1000))):
            raw = self.socket.recv()
            latency = self.life.heard.take(decode(raw), time.time_ns(), self.clock.hours)
            if latency is not None:
                self.latencies.append(latency)
                self.reports += 1
                self.heard_since_stall += 1
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
        allowed = EXIT_S * max(1.0, load() / (os.cpu_count() or 1))
        until = time.monotonic() + allowed
        while self.life.process.poll() is None and time.monotonic() < until:
            self.listen(0.05)
        if self.life.process.poll() is None:
            self.life.process.send_signal(signal.SIGUSR1)
            time.sleep(1.0)
            self.life.errors.seek(0)
            doing = self.life.errors.read().decode(errors="replace").strip()
            self.done.wrong.append(f"it was still running {allowed:.0f} s after it had to exit:\n{doing}\n")
            self.life.process.kill()
            self.life.process.wait()

    def leave(self, complaint: str) -> None:
        """Records what an exited process leaves: its last messages, exit code and stderr."""
        life = self.life
        self.listen(0.3)
        life.process.poll()
        life.errors.seek(0)
        life.status, life.stderr = life.process.returncode, life.errors.read().decode(errors="replace").strip()
        life.errors.close()
        if complaint:
            self.done.wrong.append(f"{complaint}, with {life.status}: {life.stderr!r}")
        self.done.wrong += accounts(life)
        self.staller.end()

    def stop(self) -> None:
        self.life.process.send_signal(signal.SIGINT)
        self.wait_end()
        self.leave("")
        if self.life.status != 130:
            self.done.wrong.append(f"after an interrupt it exited with {self.life.status}: {self.life.stderr!r}")

    def kill(self) -> None:
        for life in self.done.lives:
            if life.process.poll() is None:
                life.process.kill()
                life.process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    if arguments is None and "--inside" in sys.argv:
        return inside(sys.argv[sys.argv.index("--inside") + 1 :])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?", help="video with a face (default: the demo clip)")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--memory", type=float, default=0.05, metavar="SHARE", help="allowed growth (default: 0.05)")
    parser.add_argument("--latency", type=float, default=0.5, metavar="SHARE", help="allowed growth (default: 0.5)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot memory, latency, rate and faults over time")
    options = parser.parse_args(arguments)
    try:
        clip = find_source(options.clip)
        done = soak(clip, options.minutes * 60, options.streams, options.model, options.runtime)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    wrong, facts = verdict(done, options.streams, options.memory, options.latency), about()
    print("\n" + heading(facts))
    rows = totals(done)
    columns = ("life", "exit", "stream", "decoded", "published", "dropped", "reconnects")
    print(table([list(columns), *([str(row[key]) for key in columns] for row in rows)]))
    lost = done.stalled
    during = f"{lost.get('meanwhile', 0)} were sent during its longest stall"
    print(f"\nThe stalled subscriber received {lost['heard']} reports and lost {lost['lost']}; {during}.")
    happened = ", ".join(f"{what} at {at:.0f} s" for at, what in done.faults)
    print(f"{options.minutes:g} minutes, {options.streams} cameras; {happened}")
    print("; ".join(wrong) or "flat, and every frame accounted for")
    if options.plot:
        from measuring.plots import draw

        draw(options.plot, done.samples, done.faults, f"{facts['device']}, commit {facts['commit']}")
        print(f"wrote {options.plot}")
    last = {"bench": "soak", "minutes": options.minutes, "streams": options.streams, "wrong": wrong, "totals": rows}
    print(json.dumps(last | facts | {"stalled": lost, "faults": done.faults, "samples": done.samples}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
