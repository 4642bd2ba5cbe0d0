"""What a soak must show: flat memory and latency, exact frame counts, and a trace of every fault."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measuring.facts import is_json
from measuring.listening import Heard

QUEUES_HOLD = 200  # reports at most between the engine and a stalled subscriber: any more must be lost


@dataclass
class Life:
    """One process of the engine, from start to end."""

    process: subprocess.Popen[bytes]
    errors: Any
    rows_file: Path
    heard: Heard = field(default_factory=Heard)
    status: int | None = None
    stderr: str = ""


@dataclass
class Soak:
    """What happened; `verdict` judges it."""

    samples: list[dict[str, float]] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    stalled: dict[str, int] = field(default_factory=dict)
    disk_at: float | None = None
    wrong: list[str] = field(default_factory=list)


def accounts(life: Life) -> list[str]:
    """Published + dropped = decoded for every stream, and equal to the counts on this side of the wire."""
    wrong = list(life.heard.wrong)
    extra = 0
    for stream, count in sorted(life.heard.reports.items()):
        end = life.heard.ends.get(stream)
        if end is None:
            wrong.append(f"{stream}: no end message")
            continue
        if end.frames_in != end.frames_out + end.dropped:
            wrong.append(f"{stream}: {end.frames_in} decoded, {end.frames_out} published + {end.dropped} dropped")
        extra += count - end.frames_out
        if count < end.frames_out:
            wrong.append(f"{stream}: {count} of {end.frames_out} reports arrived")
        if (gaps := life.heard.last_frame[stream] + 1 - count) > end.dropped:
            wrong.append(f"{stream}: {gaps} frames are missing between the reports, {end.dropped} were dropped")
    if extra > (life.status == 2):  # one report had been sent when its row did not fit
        wrong.append(f"{extra} more reports arrived than were published")
    whole = [line for line in life.rows_file.read_bytes().split(b"\n")[:-1] if is_json(line)]
    if len(whole) != sum(end.frames_out for end in life.heard.ends.values()) or not _ends_whole(life.rows_file):
        wrong.append(f"{life.rows_file.name}: {len(whole)} whole rows")
    return wrong


def _ends_whole(path: Path) -> bool:
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def grown(samples: Sequence[dict[str, float]], memory: float, latency: float) -> list[str]:
    """What is higher in the last third of the first life than in the second; the first third is for warming up.

    `memory` and `latency` are shares; less than 10 MB or 5 ms does not count as growth."""
    first = [row for row in samples if row["life"] == 0]
    third = len(first) // 3
    if not third:
        return ["too short to judge"]
    growth = []
    for name, share, least in (("memory_mb", memory, 10.0), ("p95_ms", latency, 5.0)):
        before, after = (
            float(np.median([row[name] for row in part])) for part in (first[third:-third], first[-third:])
        )
        if after > before * (1 + share) and after > before + least:
            growth.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return growth


def traces(done: Soak, streams: int) -> list[str]:
    """Faults that left no trace where they must leave one."""
    wrong = []
    first = done.lives[0].heard
    kinds = {what for _, what in done.faults}
    if "source" in kinds and not (first.ends["camera0"].reconnects if "camera0" in first.ends else 0):
        wrong.append("a killed camera led to no reconnection")
    if "source" in kinds and not first.after_gap.get("camera0"):
        wrong.append("the killed camera never came back")
    if "stall over" in kinds and not done.stalled["lost"] and done.stalled["meanwhile"] >= QUEUES_HOLD:
        wrong.append("the stalled subscriber lost nothing")
    if done.stalled["wrong"]:
        wrong.append("the stalled subscriber received messages out of order")
    if "clock" in kinds and not any(life.heard.jumps >= 2 for life in done.lives):
        wrong.append("no report shows the clock's jumps")
    if streams > 1 and not first.ends.get(f"camera{streams - 1}", None):
        wrong.append("the fast camera's end message is missing")
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
