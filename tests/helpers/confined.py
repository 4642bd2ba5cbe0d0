"""Runs a command with only the system calls and socket families that a systemd unit allows: `confined.py UNIT COMMAND`.

Replaces systemd, which does not run where the tests run. Needs libseccomp and systemd-analyze.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ALLOW = 0x7FFF0000
REFUSE = 0x00050000  # plus the error number
EQUAL = 4


class Comparison(ctypes.Structure):
    """Of an argument of a system call with a number; libseccomp's `scmp_arg_cmp`."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def lines_of(unit: Path, name: str) -> list[str]:
    """The values of a setting, which can occur several times."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(encoding="utf-8"), re.M)


def calls_in(group: str) -> Iterator[str]:
    if not group.startswith("@"):
        yield group
        return
    listing = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    for word in re.findall(r"^ +([@\w-]+)$", listing.stdout, re.M):
        yield from calls_in(word)


def allowed_calls(unit: Path) -> set[str]:
    """After each line in turn: it adds to what is allowed, or takes away if it begins with a tilde."""
    allowed: set[str] = set()
    for line in lines_of(unit, "SystemCallFilter"):
        calls = {call for word in line.lstrip("~").split() for call in calls_in(word)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


def confine(unit: Path) -> None:
    library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    calls = ctypes.c_void_p(library.seccomp_init(REFUSE | errno.EPERM))
    for call in allowed_calls(unit):
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            library.seccomp_rule_add_array(calls, ALLOW, number, 0, None)
    families = ctypes.c_void_p(library.seccomp_init(ALLOW))
    allowed = {getattr(socket, name) for line in lines_of(unit, "RestrictAddressFamilies") for name in line.split()}
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in set(range(64)) - allowed:
        comparison = Comparison(0, EQUAL, family, 0)
        refuse = REFUSE | errno.EAFNOSUPPORT
        library.seccomp_rule_add_array(families, refuse, number, 1, ctypes.byref(comparison))
    if library.seccomp_load(families) or library.seccomp_load(calls):
        raise OSError("The filter of system calls cannot be loaded.")


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
