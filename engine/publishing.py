"""The last stage: turns outcomes into numbered reports, counts them and passes them to every sink."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping

from . import wire
from .counters import Counters
from .packets import Ended, Outcome
from .sinks.group import Sinks


def publish(
    items: Iterable[Outcome | Ended], sinks: Sinks, counters: Mapping[str, Counters], failures: list[str]
) -> Generator[wire.Report, None, None]:
    """Yields each report after it was sent. A stream that fails adds its message to `failures`; the others go on."""
    for item in items:
        if isinstance(item, Ended):
            if item.error:
                failures.append(item.error)
            sinks.end(counters[item.stream].end(item.reason, item.error))
            continue
        counter = counters[item.stamp.stream]
        report = _report(item, seq=counter.frames_out, dropped=counter.dropped)
        sinks.write(report, item.pixels)
        counter.frames_out += 1
        counter.frame, counter.pts, counter.faces = report.frame, report.pts, len(report.faces)
        counter.highest_track = max([counter.highest_track, *(face.track for face in report.faces)])
        counter.latencies.add(report.latency_ms)
        yield report


def _report(outcome: Outcome, seq: int, dropped: int) -> wire.Report:
    stamp = outcome.stamp
    return wire.Report(
        seq,
        stamp.stream,
        frame=stamp.index,
        pts=stamp.pts,
        captured_ns=stamp.captured_ns,
        dropped=dropped,
        latency_ms=wire.milliseconds(
            decode=stamp.decode_ms,
            detect=outcome.detect_ms,
            align=outcome.align_ms,
            predict=outcome.predict_ms,
            explain=outcome.explain_ms,
            total=(time.monotonic_ns() - stamp.monotonic_ns) / 1e6,
        ),
        faces=outcome.faces,
    )
