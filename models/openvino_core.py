"""The only OpenVINO core of a process, used by every network that OpenVINO runs.

There is one, which is never released, because OpenVINO's CPU plugin registers an alternative signal stack for the
thread on which it starts and frees its memory when it is destroyed (seen in 2026.4.1). If plugins are destroyed in
another order than they were created, or on another thread, the freed stack stays registered, and the next signal with a
handler (Ctrl-C, SIGTERM, a child that ends) kills the process without a message. Starting the plugin also takes a tenth
of a second.

Importing OpenVINO sends telemetry from a thread that forks this process. If another thread holds a lock at that moment,
the child waits for ever and the process cannot end. So it is imported without its telemetry.
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
            # Face boxes, landmarks and action units run on a thread each: pinned, they would wait for the same core.
            core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
            _started.append(core)
        return _started[0]


def _silent_openvino() -> Any:
    """Imports it so that it finds no telemetry and uses its stub; has no effect if either was imported before."""
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importlib then raises ModuleNotFoundError
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"OpenVINO cannot be imported ({error}). Run: pip install openvino") from None
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    return openvino
