"""Runs `vlfau-stream` as a process and measures it at a subscriber over TCP, as any client would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from measuring.comparison import jitter
from measuring.facts import cpu_s, free_port, peak_mb
from measuring.stages import STAGES, decode_mean, mean_faces, stage_means
from numpy.typing import NDArray

from vlfau.engine.wire import End, Report, Status, decode
from vlfau.models.errors import UserError

WARM_S = 2.0  # after the first report: sentences are still being compiled, and caches are cold
START_S = 120.0  # to load networks, and to time them when `auto` chooses for the first time
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    runtime: str
    faces: int  # in the clip; how many were found is a separate column
    streams: int
    paced: bool

    @property
    def name(self) -> str:
        many = f"{self.streams} streams" if self.streams > 1 else f"{self.faces} face{'s' * (self.faces > 1)}"
        return f"{self.runtime}, {many}, {'paced' if self.paced else 'unpaced'}"


@dataclass(frozen=True)
class Run:
    """What a subscriber measured of one process."""

    latencies: Values  # (n,) ms, capture to receipt, without the first WARM_S (at most half of the run)
    warm_ms: float  # the longest latency of those not counted
    stages: dict[str, float]  # mean ms
    decode_ms: float  # mean, before capture
    fps: float  # reports per second, all streams together
    jitter_ms: float
    faces: float  # found per frame, mean
    dropped: int  # by the engine
    lost: int  # between the engine and this subscriber
    frames: int
    cpu_percent: float  # of one core, from the first report to the end (of the whole process on systems without /proc)
    peak_mb: float
    start_s: float  # from the start of the process to the receipt of the first report
    runtime: str
    device: str


@dataclass
class Heard:
    messages: list[tuple[int, bytes]]  # unix ns at receipt, message
    cpu_s: float
    over_s: float  # the time in which cpu_s was spent
    peak_mb: float
    status: int
    start_s: float = 0.0


def run(case: Case, clip: Path, model: str, seconds: float, python: str = sys.executable) -> Run:
    """`python` belongs to the installation to run."""
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [python, "-m", "vlfau.engine.commands.stream", *[str(clip)] * case.streams]
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
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"vlfau-stream ended with {heard.status}: {lines[-1] if lines else 'no message'}")
    return measured(heard, case)


def _listen(subscriber: Any, process: subprocess.Popen[bytes], case: Case, limit_s: float) -> Heard:
    """Only receives: messages are decoded afterwards, when no frame waits."""
    messages: list[tuple[int, bytes]] = []
    began = first = time.perf_counter()
    cpu_first, playing, ends, peak = 0.0, False, 0, 0.0
    while ends < case.streams:
        if not subscriber.poll(200):
            if process.poll() is not None:
                return Heard([], 0, 1, 0, process.returncode or 1)
            if time.perf_counter() - began > limit_s:
                raise UserError(f"'{case.name}' did not end within {limit_s:.0f} s. Use --seconds or --quick.")
            continue
        message = subscriber.recv()
        messages.append((time.time_ns(), message))
        if not playing and message.startswith(b"au/"):
            playing, first, cpu_first = True, time.perf_counter(), cpu_s(process.pid)
        if not message.startswith(b"au/"):
            peak = max(peak, peak_mb(process.pid))
        ends += message.startswith(b"end/")
    cpu_last, last = cpu_s(process.pid), time.perf_counter()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    if cpu_last:
        cpu, over = cpu_last - cpu_first, last - first
    else:
        cpu, over = used.ru_utime + used.ru_stime, time.perf_counter() - began
    if not peak:
        peak = used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return Heard(messages, cpu, over, peak, process.returncode, first - began)


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
        raise UserError(f"'{case.name}' gave {len(reports)} reports. {' '.join(failed) or 'Use a longer --source.'}")
    warm = min(sum(at - reports[0][0] < WARM_S * 1e9 for at, _ in reports), len(reports) // 2)
    counted = reports[warm:]
    plain = [report for _, report in counted]
    latencies = np.array([(at - report.captured_ns) / 1e6 for at, report in counted])
    total = np.array([report.latency_ms.total for report in plain])
    in_stages = np.array([sum(getattr(report.latency_ms, stage) for stage in STAGES) for report in plain])
    stages = stage_means(plain)
    stages["other"] = float(np.maximum(total - in_stages, 0).mean())  # between stages, and publishing
    stages["wire"] = float(np.maximum(latencies - total, 0).mean())  # publishing, sending and receiving
    streams = {report.stream for report in plain}
    each = [np.array([x for x, r in zip(latencies, plain) if r.stream == name]) for name in streams]
    return Run(
        latencies=latencies,
        stages=stages,
        decode_ms=decode_mean(plain),
        warm_ms=max(((at - report.captured_ns) / 1e6 for at, report in reports[:warm]), default=0.0),
        fps=(len(counted) - 1) / max(counted[-1][0] - counted[0][0], 1) * 1e9,
        jitter_ms=float(np.mean([jitter(one) for one in each])),
        faces=mean_faces(plain),
        dropped=sum(end.dropped for end in ends),
        lost=sum(end.frames_out for end in ends) - len(reports),
        frames=len(reports),
        cpu_percent=heard.cpu_s / max(heard.over_s, 1e-3) * 100,
        peak_mb=heard.peak_mb,
        start_s=heard.start_s,
        runtime=runtime,
        device=device,
    )
