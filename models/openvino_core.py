"""The one OpenVINO of a process. Compiles nothing; every network that runs on a CPU asks here for it.

Why one, kept for ever: OpenVINO's CPU plugin gives the thread on which it starts a stack of its own for signals and
takes the memory back when it goes (seen in 2026.4.1). Where plugins go in another order than they came, or on another
thread, that stack stays registered and is not there any more, and the next signal with a handler (Ctrl-C, SIGTERM, a
child that ends) kills the process without a word. Starting the plugin also takes a tenth of a second, once.

Importing OpenVINO tells its makers over the internet, from a thread that forks this process. Nobody asked for that; and
where another thread held a lock at that moment, the child waits for ever and the process cannot end.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from .errors import UserError

_starting = threading.Lock()
_started: list[Any] = []


def openvino_core() -> Any:
    with _starting:  # two threads load networks at the same time
        if not _started:
            core = _silent_openvino().Core()
            # Finder, landmarks and action units run side by side on a thread each: pinned, they wait for the same core.
            core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
            _started.append(core)
        return _started[0]


def _silent_openvino() -> Any:
    """Imported so that it finds no telemetry and takes its own stub. Whoever imported either before keeps it."""
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # for importlib: there is no such module
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"OpenVINO cannot be imported ({error}). Run: pip install openvino") from None
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    return openvino
