"""How much longer everything takes just now because others compute on this machine too."""

from __future__ import annotations

import time

SPIN_S = 0.1  # processor seconds


def slowness() -> float:
    """1 on an idle machine, 2 where we get half of a core. What may take two seconds may take that much longer."""
    wall, cpu = time.monotonic(), time.thread_time()
    while time.thread_time() - cpu < SPIN_S:
        pass
    return max(1.0, (time.monotonic() - wall) / SPIN_S)
