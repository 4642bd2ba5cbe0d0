"""Seeded damage, as steps that JSON can hold: drawn once, applied as often as needed, left out one by one to minimise.

Every step can be applied to any data, so that each subset of the steps of a case is a case, too.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Step = list[Any]  # the name of an operation and what it needs
EXTREMES = [
    (number & (1 << 8 * size) - 1).to_bytes(size, order).hex()
    for size in (2, 4, 8)
    for order in ("big", "little")
    for number in (0, 1, 7, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1, 1 << 4 * size)
]


# Bytes


def damage(random: Random, size: int, others: Sequence[str]) -> list[Step]:
    """One or two kinds of damage to `size` bytes; `others` are the names of files that can be joined on."""
    kinds = random.sample(sorted(DAMAGES), 1 if random.random() < 0.7 else 2)
    return [step for kind in kinds for step in DAMAGES[kind](random, size, others)]


def _flips(first: float, last: float, most: int) -> Callable[..., list[Step]]:
    """Single bits between two shares of the data."""

    def draw(random: Random, size: int, others: Sequence[str]) -> list[Step]:
        low, high = int(first * size), max(int(first * size), int(last * size) - 1)
        return [["flip", random.randint(low, high), 1 << random.randrange(8)] for _ in range(random.randint(1, most))]

    return draw


def _writes(near_ends: bool, extreme: bool) -> Callable[..., list[Step]]:
    """Numbers where sizes and counts may stand, or noise."""

    def one(random: Random, size: int) -> Step:
        at = random.randrange(size)
        if near_ends:
            at = random.choice((random.randrange(min(size, 1024)), size - random.randint(1, min(size, 2048)))) & ~3
        return ["write", at, random.choice(EXTREMES) if extreme else random.randbytes(random.randint(1, 64)).hex()]

    return lambda random, size, others: [one(random, size) for _ in range(random.randint(1, 4))]


def _block(operation: str, *more: str) -> Callable[..., list[Step]]:
    """An operation on a piece of any length; what it needs besides is drawn by name."""

    def draw(random: Random, size: int, others: Sequence[str]) -> list[Step]:
        length = random.choice((1, 4, 16, 188, 512, size // 16, size // 4)) or 1
        needed = {"to": random.randrange(size), "byte": random.choice((0, 255))}
        return [[operation, random.randrange(size), length, *(needed[name] for name in more)]]

    return draw


DAMAGES: dict[str, Callable[[Random, int, Sequence[str]], list[Step]]] = {
    "bits": _flips(0, 1, 40),
    "bits of the head": _flips(0, 0.05, 16),
    "bits of the tail": _flips(0.95, 1, 16),
    "one bit": _flips(0, 1, 1),
    "noise": _writes(False, False),
    "noise at the ends": _writes(True, False),
    "sizes": _writes(True, True),
    "fields": _writes(False, True),
    "drop": _block("drop"),
    "repeat": _block("repeat"),
    "swap": _block("swap", "to"),
    "copy": _block("copy", "to"),
    "fill": _block("fill", "byte"),
    "shuffle": lambda random, size, others: [
        step for _ in range(random.randint(2, 8)) for step in _block("swap", "to")(random, size, others)
    ],
    "cut": lambda random, size, others: [["cut", random.randrange(size)]],
    "begin late": lambda random, size, others: [["drop", 0, random.randint(1, size)]],
    "insert": lambda random, size, others: [
        ["insert", random.choice((0, random.randrange(size))), random.randbytes(random.randint(1, 2000)).hex()]
    ],
    "join": lambda random, size, others: [["join", random.choice(others)]],
}


def heads(random: Random, size: int, packet: int = 188) -> list[Step]:
    """Bits in the first bytes of a few packets of equal size, where a transport stream has its numbers and tables."""
    places = [random.randrange(max(1, size // packet)) * packet for _ in range(random.randint(1, 60))]
    offsets = range(1, 3) if random.random() < 0.5 else range(24)  # which stream a packet belongs to, or all
    return [["flip", at + random.choice(offsets), 1 << random.randrange(8)] for at in places]


def apply(data: bytes, steps: Sequence[Step], other: Callable[[str], bytes]) -> bytes:
    """`other` gives the bytes of a file by name."""
    for name, *arguments in steps:
        if name == "join":
            data += other(arguments[0])
        elif data:
            data = _OPERATIONS[name](data, arguments[0] % len(data), *arguments[1:])
    return data


def _swap(data: bytes, at: int, length: int, to: int) -> bytes:
    a, b = sorted((at, to % len(data)))
    length = min(length, b - a, len(data) - b)
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


def _over(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece[: len(data) - at] + data[at + len(piece) :]


_OPERATIONS: dict[str, Callable[..., bytes]] = {
    "flip": lambda data, at, bit: _over(data, at, bytes([data[at] ^ bit])),
    "write": lambda data, at, piece: _over(data, at, bytes.fromhex(piece)),
    "drop": lambda data, at, length: data[:at] + data[at + length :],
    "repeat": lambda data, at, length: data[: at + length] + data[at:],
    "swap": _swap,
    "copy": lambda data, at, length, to: _over(data, to % len(data), data[at : at + length]),
    "fill": lambda data, at, length, byte: _over(data, at, bytes([byte]) * min(length, len(data) - at)),
    "cut": lambda data, at: data[:at],
    "insert": lambda data, at, piece: data[:at] + bytes.fromhex(piece) + data[at:],
}


# Trees of dictionaries and lists

DEEP, LONG, DIGITS = "@deep:", "@long:", "@digits:"  # with a number behind: written out by `text`, kept short in a case
ESCAPES = ("\x1b]52;c;QQ==\x07", "\x1b[2J", "\x9b31m", "\u202etxt.exe", "[bold]", "[/]", "[link=x]y", "\r\n", "\x00")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 0.5, -0.5, 1e300, -1e300, 1e-320, 2**31, 2**63, -(2**63), 2**64, 10**30),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "x", "0", "nan", "/", "..", "../x", "/dev/null"),
    *ESCAPES,
    *("\udcff", "AU12", [], {}, [[]], [None], {"": 0}, [1, 2, 3], ["x", "y"], {"x": {"x": {"x": "x"}}}),
    *(f"{DEEP}300", f"{DEEP}100000", f"{LONG}5000", f"{LONG}1000000", f"{DIGITS}5000"),
)


def bend(random: Random, tree: Any) -> Step:
    """One value of the tree replaced, removed or added."""
    path: list[Any] = []
    while isinstance(tree, (dict, list)) and tree and (not path or random.random() < 0.5):
        path.append(random.choice(list(tree) if isinstance(tree, dict) else range(len(tree))))
        tree = tree[path[-1]]
    alike = [value for value in VALUES if _kind(value) is _kind(tree)]  # what a check of types lets through
    values = alike if alike and random.random() < 0.5 else VALUES
    return random.choices(
        (["set", path, random.choice(values)], ["remove", path], ["put", path, "extra", random.choice(values)]),
        (8, 1, 1),
    )[0]


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def bent(tree: Any, step: Step) -> Any:
    """A copy with the step applied; a path that leads nowhere changes nothing."""
    name, path, *arguments = step
    tree = copy.deepcopy(tree)
    if not path:
        return tree
    holder = tree
    try:
        for key in path[:-1]:
            holder = holder[key]
        if name == "set":
            holder[path[-1]] = arguments[0]
        elif name == "remove":
            del holder[path[-1]]
        else:
            holder[arguments[0]] = arguments[1]
    except (KeyError, IndexError, TypeError):
        pass
    return tree


def string_paths(tree: Any, path: tuple[Any, ...] = ()) -> list[list[Any]]:
    """Where the tree holds strings."""
    if isinstance(tree, str):
        return [list(path)]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    return [found for key, value in items for found in string_paths(value, (*path, key))]


def text(tree: Any) -> bytes:
    """JSON with what stands for long and deep values written out, without recursion; UTF-8 that may be invalid."""
    short = json.dumps(tree, ensure_ascii=False, indent=1)
    return written_out(short).encode(errors="surrogatepass")


def written_out(short: str) -> str:
    short = re.sub(f'"{DEEP}([0-9]+)"', lambda match: "[" * int(match[1]) + "]" * int(match[1]), short)
    short = re.sub(f'"{DIGITS}([0-9]+)"', lambda match: "7" * int(match[1]), short)
    return re.sub(f'"{LONG}([0-9]+)"', lambda match: f'"{"x" * int(match[1])}"', short)
