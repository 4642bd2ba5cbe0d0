"""Signals must arrive after networks were closed: their handlers run on a stack that must still exist."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from shared_files import ROOT

from vlfau.models.openvino_core import openvino_core

# Python's handlers run on the stack of sigaltstack. If it is not mapped any more, a signal kills the process.
PROGRAM = """
import ctypes, faulthandler, gc, mmap, os, signal, sys, threading
faulthandler.enable()  # as pytest does; also registers such a stack
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
libc = ctypes.CDLL(None, use_errno=True)
def mapped():
    now = Stack()
    assert libc.sigaltstack(None, ctypes.byref(now)) == 0
    areas = [line.split()[0].split("-") for line in open("/proc/self/maps")]
    return any(int(low, 16) <= now.at < int(high, 16) for low, high in areas)
received = []
signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
if sys.argv[1] == "control":  # a stack that is unmapped while in use
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 4
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    at = libc.mmap(None, 65536, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert libc.sigaltstack(ctypes.byref(Stack(at, 0, 65536)), None) == 0
    assert mapped()
    libc.munmap(at, 65536)
else:
    from vlfau.models.faces import open_detector
    from vlfau.models.faces.landmarks import open_landmarks
    first, second = open_detector("embedded"), open_landmarks()
    first = None  # not in the order of creation
    gc.collect()
    second = None
    gc.collect()
    detectors = [open_detector("embedded")]
    other = threading.Thread(target=detectors.clear)  # and on another thread
    other.start()
    other.join()
    gc.collect()
print(mapped(), flush=True)
os.kill(os.getpid(), signal.SIGUSR1)
print(len(received), flush=True)
"""


def run(what: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_a_signal_arrives_after_networks_were_closed_in_any_order() -> None:
    assert run("networks") == (0, ["True", "1"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_the_control_dies_without_a_message() -> None:
    code, output = run("control")
    assert output == ["False"]
    assert code < 0


def test_all_parts_share_one_core() -> None:
    assert openvino_core() is openvino_core()


def test_threads_may_run_on_any_core() -> None:
    """With pinning, concurrent networks waited for one core while the other was idle."""
    assert openvino_core().get_property("CPU", "ENABLE_CPU_PINNING") is False


def test_no_file_starts_another_core() -> None:
    """If it were destroyed before the first or on another thread, its stack would be freed."""
    files = [path for folder in ("engine", "models", "calibration", "bench") for path in (ROOT / folder).rglob("*.py")]
    starting = [path.name for path in files if re.search(r"\bCore\(\)", path.read_text(encoding="utf-8"))]
    assert starting == ["openvino_core.py"]


TELEMETRY = """
import os, sys
os.environ.pop("CI", None)  # there it sends nothing
if sys.argv[1] == "ours":
    from vlfau.models.openvino_core import openvino_core
    openvino_core()
else:
    import openvino_telemetry
    class Sent(Exception): pass
    def send(*_, **__): raise Sent
    openvino_telemetry.Telemetry.send_event = send
    try:
        import openvino
    except Sent:
        print("sends")
print("openvino_telemetry" in sys.modules)
"""


@pytest.mark.parametrize(("who", "output"), [("ours", ["False"]), ("control", ["sends", "True"])])
def test_openvino_is_imported_without_its_telemetry(who: str, output: list[str]) -> None:
    if who == "control":
        pytest.importorskip("openvino_telemetry", reason="OpenVINO came without it")
    done = subprocess.run([sys.executable, "-c", TELEMETRY, who], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, output), done.stderr
