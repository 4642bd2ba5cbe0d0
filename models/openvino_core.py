"""The one OpenVINO of a process. Compiles nothing; every network that runs on a CPU asks here for it.

Why one, kept for ever: OpenVINO's CPU plugin gives the thread on which it starts a stack of its own for signals and
takes the memory back when it goes (seen in 2026.4.1). Where plugins go in another order than they came, or on another
thread, that stack stays registered and is not there any more, and the next signal with a handler (Ctrl-C, SIGTERM, a
child that ends) kills the process without a word. Starting the plugin also takes a tenth of a second, once.
"""

from __future__ import annotations

import threading
from typing import Any

from .errors import UserError

_starting = threading.Lock()
_started: list[Any] = []


def openvino_core() -> Any:
    with _starting:  # two threads load networks at the same time
        if not _started:
            try:
                import openvino
            except ImportError as error:
                raise UserError(f"OpenVINO cannot be imported ({error}). Run: pip install openvino") from None
            _started.append(openvino.Core())
        return _started[0]
