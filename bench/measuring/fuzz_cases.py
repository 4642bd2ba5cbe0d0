"""The cases of the fuzzer, drawn from a seed: what is damaged, by which steps, and how it is read. Runs nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from measuring.fuzz_seeds import BUNDLE, CLIPS, SIDE, TOKENS, UNITS, VOCABULARY
from measuring.mutations import ESCAPES, Step, bend, damage, heads, string_paths

from vlfau.engine import wire
from vlfau.engine.settings import SECTIONS
from vlfau.models.settings import as_table

# Kinds of reading. LIGHT is the engine with stand-ins for all networks, in the child itself.
LIGHT, COMMAND, OPENVINO, RENDER, SUBSCRIBE, WATCH = "light", "command", "openvino", "render", "subscribe", "watch"
COMMANDS = 1 / 12  # share of cases that run the whole command with its networks, which takes seconds
EMBEDDED = "embedded"
# These would wait for subscribers, open windows, expose the machine to the network, or start any number of threads.
UNTOUCHED = {"allow_public", "show", "demo", "wait_subscribers", "threads", "live"}


@dataclass(frozen=True)
class Case:
    target: str
    number: int
    how: str
    base: str
    steps: list[Step]

    @property
    def name(self) -> str:
        return f"{self.target}-{self.number}"


@dataclass(frozen=True)
class Given:
    """What a draw may look at."""

    random: Random
    seeds: Path


def draw(target: str, number: int, seed: int, seeds: Path) -> Case:
    """The same arguments give the same case."""
    how, base, steps = DRAWS[target](Given(Random(f"{seed}/{target}/{number}"), seeds))
    return Case(target, number, how, base, steps)


def _clip(given: Given) -> tuple[str, str, list[Step]]:
    random, base = given.random, given.random.choice(sorted(CLIPS))
    how = COMMAND if random.random() < COMMANDS else RENDER if random.random() < 0.2 else LIGHT
    if random.random() < 0.05:
        return how, base, []
    alike = [name for name in CLIPS if Path(name).suffix == Path(base).suffix]  # what joins best
    others = random.choice((alike, sorted(CLIPS)))
    size = (given.seeds / base).stat().st_size
    steps = damage(random, size, others)
    return how, base, heads(random, size) if base.endswith(".ts") and random.random() < 0.4 else steps


ARRAYS = ("crops", "log_odds", "active", "local_tokens", "global_tokens")
ARRAY_DAMAGES = ("missing", "nan", "huge numbers", "shape", "empty", "type", "objects", "large", "announced")


def _bundle(given: Given) -> tuple[str, str, list[Step]]:
    random = given.random
    how = random.choices((LIGHT, OPENVINO, COMMAND), (3, 1, 0.4))[0]
    base = EMBEDDED if how == COMMAND else BUNDLE
    steps: list[Step] = []
    for _ in range(random.randint(1, 2)):
        kind = random.choices(("manifest", "text", "bytes", "remove", "exchange", "array"), (10, 2, 4, 1, 1, 4))[0]
        file = random.choice(("encoder.onnx", "caption.onnx", "selftest.npz"))
        if kind == "manifest":
            steps.append([kind, bend(random, manifest())])
        elif kind == "text":
            steps += [[kind, step] for step in damage(random, 1500, ["manifest.json"])]
        elif kind == "bytes":
            steps += [[kind, file, step] for step in damage(random, 1500, ["encoder.onnx", "selftest.npz"])]
        elif kind == "remove":
            steps.append([kind, random.choice((file, "manifest.json"))])
        elif kind == "exchange":
            steps.append([kind, file, random.choice(("encoder.onnx", "caption.onnx", "selftest.npz"))])
        else:
            steps.append([kind, random.choice(ARRAYS), random.choice(ARRAY_DAMAGES)])
    return how, base, [*steps, *([["seal"]] if random.random() < 0.8 else [])]


def manifest() -> dict[str, Any]:
    """The shape of one, in which places to bend are chosen."""
    count = len(UNITS)
    return {
        "name": "fuzz",
        "units": list(UNITS),
        "side": SIDE,
        "network": {"kind": "stand-in"},
        "thresholds": [0.5] * count,
        "temperatures": [1.0] * count,
        "tiers": ["unrated"] * count,
        "template": [[0.0, 0.0]] * 5,
        "template_weights": [1.0] * 5,
        "vocabulary": list(VOCABULARY),
        "words": len(TOKENS),
        "precision": "fp32",
        "baseline_seconds": 0.0,
        "files": {"encoder.onnx": "", "caption.onnx": "", "selftest.npz": ""},
        "provenance": {},
        "schema": 1,
    }


LARGEST = 2_000_000  # bytes of topics in one go


def _wire(given: Given) -> tuple[str, str, list[Step]]:
    """Each step is a peer, a list of what it sends."""
    return LIGHT, "", [["peer", _peer(given.random)] for _ in range(given.random.choice((1, 1, 2, 5, 20)))]


def _peer(random: Random) -> list[Step]:
    minor = random.choice((0, 1))
    sends: list[Step] = [["greeting", 64, minor]]
    if random.random() < 0.2:
        sends = [["greeting", random.randrange(64), minor]]
    if random.random() < 0.1:
        sends = [["raw", random.randbytes(random.randint(1, 3000)).hex()]]
    if random.random() < 0.05:
        return [["http"]]
    if random.random() < 0.8:
        sends.append(["ready", random.choice(("SUB", "SUB", "SUB", "SUB", "XSUB", "PUB", "", "x" * 300))])
    for _ in range(random.randint(0, 4)):
        kind = random.choice(("subscribe", "subscribe", "subscribe", "cancel", "frame", "raw", "wait"))
        if kind in ("subscribe", "cancel"):
            length = random.choice((0, 1, 3, 7, 40, 255, 256, 5000, 65536, 300_000, 1_000_000))
            count = min(random.choice((1, 1, 10, 1000, 20_000)), LARGEST // (length + 10))
            sends.append([kind, length, count, random.choice((True, False))])
        elif kind == "frame":
            announced = random.choice((0, 1, 255, 2**16, 2**31, 2**40, 2**63, 2**64 - 1))
            sends.append([kind, random.randrange(256), announced, random.choice((0, 1, 1000, 100_000))])
        elif kind == "raw":
            sends.append([kind, random.randbytes(random.randint(1, 2000)).hex()])
        else:
            sends.append([kind, 0.05])
    return sends


def _flags(given: Given) -> tuple[str, str, list[Step]]:
    random = given.random
    steps: list[Step] = []
    for _ in range(random.randint(1, 3)):
        flag, values = random.choice(FLAGS)
        steps.append(["flag", flag, *([random.choice(values)] if values else [])])
    if random.random() < 0.3:
        steps.append(["source", random.choice(SOURCES)])
    if random.random() < 0.3:
        steps.append(["talk"])
    how = COMMAND if random.random() < COMMANDS else LIGHT
    if how == COMMAND and random.random() < 0.5:
        steps.append(["close", random.choice((0, 1, 2))])
    return how, "", steps


NUMBERS = (
    *("", "nan", "inf", "-inf", "-1", "0", "-0", "0.5", "1e-300", "1e20", "1e308", "1e400", "2147483648"),
    *("9223372036854775808", "1" * 5000, "²", "٣", "0x10", " 1", "null", "x", "\x1b[31m", "1;2", "\udcff"),
)
PATHS = (
    *("", ".", "..", "/", "folder", "missing/x", "x" * 300, "clip.mp4", "other.mp4", "link.mp4", "hard.mp4", "old.csv"),
    *("pictures/a.png", "/dev/null", "/dev/full", "rows.jsonl", "tcp:x.mp4", "file:x.csv", "a\nb.csv", "\x1b[31m.csv"),
    *("\udcff.csv", "clip.mp4/x", "secret.key_secret", "x.vtt", "x.srt", "x.mp4", "x.parquet", "config.toml"),
)
PLACES = (  # of --bind and --metrics; never one that other machines can reach
    *("", "none", ":", ":²", ":x", ":0", ":99999", ":-5", "127.0.0.1:0", "[::1]:0", "tcp://127.0.0.1:*", "tcp://"),
    *("tcp://127.0.0.1:99999", "tcp://127.0.0.1:-5", "tcp://127.0.0.1:x", "tcp://127.0.0.1", "ipc://", "ipc://old.csv"),
    *("ipc://clip.mp4", "ipc://folder", "ipc://missing/x", "ipc://" + "x" * 300, "udp://127.0.0.1:1", "\x1b[31m"),
)
WORDS = ("", "x", "=1+1", "a/b", "a\nvlfau-stream: FORGED", "\x1b]0;x\x07", "\x9b31m", "\u202ex", "\udcff", "x" * 5000)
SOURCES = (
    *("clip.mp4", "other.mp4", "link.mp4", "hard.mp4", "", " ", "missing.mp4", "folder", "empty", "text.jpg", "-"),
    *("pictures", "pictures/*.png", "*.mp4", "http:__x.mp4", "file://clip.mp4", "/dev/null", "/", "clip.mp4/x"),
    *("\udcff.mp4", "concat:clip.mp4", "\x1b[31m.mp4", "a\nvlfau-stream: FORGED.png"),
)


def _flag_values() -> list[tuple[str, Sequence[str]]]:
    """(flag, its values); none for a switch."""
    table: list[tuple[str, Sequence[str]]] = [("--config", PATHS), ("--unknown", ("x",))]
    for part in SECTIONS.values():
        for field in dataclasses.fields(part):
            flag, kind = "--" + field.name.replace("_", "-"), str(field.type)
            if field.name in UNTOUCHED:
                continue
            if kind.startswith("bool"):
                table += [(flag, ()), (flag.replace("--", "--no-", 1), ())]
            elif field.name in ("bind", "metrics"):
                table += [(flag, PLACES)] * 2
            elif kind.startswith("Path"):
                table += [(flag, PATHS)] * 5
            elif kind.startswith("str") or field.name == "name":
                table.append((flag, (*WORDS, *NUMBERS, "interval:nan", "interval:inf", "0x0", "99999999x99999999")))
            else:
                table.append((flag, NUMBERS))
    return table


FLAGS = _flag_values()
# What has to be refused wherever it is taken at all: no numbers, ports that there are not, a source without a name.
NONSENSE: set[tuple[str, ...]] = {
    *((flag, "nan") for flag, values in FLAGS if values is NUMBERS),
    *(("--bind", f"tcp://127.0.0.1:{port}") for port in ("99999", "-5")),
    *(("--metrics", port) for port in (":99999", ":-5")),
    *(("SOURCE", name) for name in ("", " ")),
}


def _config(given: Given) -> tuple[str, str, list[Step]]:
    random, how = given.random, COMMAND if given.random.random() < COMMANDS / 2 else LIGHT
    if random.random() < 0.4:  # of the text; without names of files, which damage could turn into names elsewhere
        return how, "plain", [["bytes", step] for step in damage(random, 900, ["config.toml"])]
    tree = configuration("files")
    return how, "files", [["tree", bend(random, tree)] for _ in range(random.randint(1, 3))]


def configuration(base: str) -> dict[str, Any]:
    """All settings with their defaults, as a table."""
    table: dict[str, Any] = {"sources": ["clip.mp4"]}
    for name, part in SECTIONS.items():
        table[name] = {key: value for key, value in as_table(part()).items() if key not in UNTOUCHED}
    table["source"] |= {"duration": 0.2, "max_fps": 30.0, "name": ["x"], "decode_threads": 1}
    table["faces"]["roi"] = [0.1, 0.1, 0.9, 0.9]
    table["publish"]["bind"] = "none"
    if base == "files":
        table["files"] |= {"csv": "rows.csv", "jsonl": "rows.jsonl"}
    return table


def _messages(given: Given) -> tuple[str, str, list[Step]]:
    random = given.random
    steps: list[Step] = []
    for _ in range(random.randint(1, 4)):
        kind = random.choice(sorted(wire.KINDS))
        topic = f"{kind}/hostile"
        if random.random() < 0.1:
            topic = kind + random.choice(("", "/", "/x/y", "/\x1b[31m", "/[/]", "/" + "x" * 9999))
        edits: list[Step] = []
        example = message(kind)
        for _ in range(random.randint(1, 3)):
            if random.random() < 0.5:
                edits.append(["tree", ["set", random.choice(string_paths(example)), random.choice(ESCAPES)]])
            elif random.random() < 0.8:
                edits.append(["tree", bend(random, example)])
            else:
                edits += [["bytes", step] for step in damage(random, 400, ["message"])]
        steps.append(["message", kind, random.choice(("json", "json", "msgpack")), topic, edits])
    return random.choice((SUBSCRIBE, WATCH)), "", steps


def message(kind: str, stream: str = "hostile") -> dict[str, Any]:
    """A good message as a tree, each field that holds a string filled."""
    times, quantiles = wire.LatencyMs(*[1.0] * 6), {"total": wire.Quantiles(1.0, 1.0, 1.0)}
    units, why = {"AU12": wire.Unit(0.9, True)}, {"AU12": "x"}
    box, points, pose = (1.0, 2.0, 30.0, 40.0), ((1.0, 2.0),) * 5, wire.Pose(0.0, 0.0, 0.0)
    face = wire.Face(0, box, 0.9, points, pose, True, units, 0, "The lip corners are raised.", why, 0.9)
    speed, queues, drops, tiers = (0, 0.0, 1.0, 1.0), {"read": 0}, {"late": 0}, {"AU12": "solid"}
    names = ("x", "x", "x", "x")  # of runtime, device, model and detector
    examples: dict[str, wire.AnyMessage] = {
        "au": wire.Report(0, stream, 0, 0.0, 1, 0, times, [face]),
        "text": wire.Text(0, stream, 0, 0.0, 1, 0, "x", why),
        "status": wire.Status(
            0, stream, "playing", 1, 1.0, *speed, 1, queues, drops, quantiles, *names, tiers, note="x"
        ),
        "end": wire.End(0, stream, "error", 1, 1.0, 1, 1, 1.0, 0, drops, 1, quantiles, "x"),
    }
    return dict(json.loads(wire.line(examples[kind])))


DRAWS: dict[str, Callable[[Given], tuple[str, str, list[Step]]]] = {
    "clips": _clip,
    "bundles": _bundle,
    "wire": _wire,
    "flags": _flags,
    "config": _config,
    "messages": _messages,
}
