"""Slow-down caused by other load on this machine."""

from __future__ import annotations

import time

SPIN_S = 0.1  # processor seconds


def slowness() -> float:
    """1 on an idle machine, 2 if this process gets half of a core. Time limits of tests are multiplied by it."""
    wall, cpu = time.monotonic(), time.thread_time()
    while time.thread_time() - cpu < SPIN_S:
        pass
    return max(1.0, (time.monotonic() - wall) / SPIN_S)
