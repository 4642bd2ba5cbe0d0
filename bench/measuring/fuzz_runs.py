"""What a child of the fuzzer does with its case: writes the damaged files, then lets the engine read them.

Runs in a separate process (`nursery.py`), whose current folder is empty. Leaves PROMISES, what must hold afterwards,
and for what runs inside of it OUTCOME, next to that folder; `fuzz_verdict.py` judges by both.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring.fuzz_cases import COMMAND, EMBEDDED, LIGHT, NONSENSE, RENDER, WATCH, configuration
from measuring.fuzz_seeds import BUNDLE, SHORT, TOKENS, log_odds
from measuring.fuzz_wire import hostile_publisher, listen, run_wire
from measuring.mutations import Step, apply, bent, text, written_out
from numpy.typing import NDArray
from PIL import Image

from vlfau.engine import app
from vlfau.engine.app import Engine, StreamFailed
from vlfau.engine.commands import stream, watch
from vlfau.engine.settings import SECTIONS, for_python
from vlfau.engine.sinks import drawing, parquet, render, subtitles, tables  # noqa: F401  (so that children need not)
from vlfau.engine.tracking.find import FaceFinder
from vlfau.engine.tracking.pose import MEAN_FACE
from vlfau.models.bundle import Bundle, sha256
from vlfau.models.errors import UserError
from vlfau.models.faces.base import Detections
from vlfau.models.faces.landmarks import Located
from vlfau.models.files import embedded
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.base import Executor, Runtime

OUTCOME, PROMISES, NO_FILE = "outcome.json", "promises.json", "no file"
START = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR1, all_threads=True)
from vlfau.engine.commands.stream import main
sys.exit(main())
"""


def perform(request: dict[str, Any], folder: Path) -> int:
    case, seeds = request["case"], Path(request["seeds"])
    os.environ["VLFAU_CACHE"] = str(seeds / "cache" if case["how"] == COMMAND else folder / "cache")
    match case["target"]:
        case "clips":
            return _clip(case, folder, seeds, request["kept"])
        case "bundles":
            return _bundle(case, folder, seeds)
        case "wire":
            return _finish(folder, run_wire(case["steps"]))
        case "flags":
            return _flags(case, folder, seeds)
        case "config":
            return _config(case, folder, seeds)
        case "messages":
            return _messages(case, folder)
    raise ValueError(case["target"])


def _finish(folder: Path, outcome: dict[str, str]) -> int:
    (folder / OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")
    return 0


def promise(
    folder: Path,
    inputs: Iterable[Path],
    rows: dict[str, str] | None = None,
    mute: bool = False,
    nonsense: Sequence[str] = (),
    unbroken: str = "",
) -> None:
    """Files that may not change, those that hold whole rows (path -> "jsonl" or "csv") once they are written, whether
    no sentence can be printed, what has to be refused, and the name of what has to end well."""
    unchanged = {str(path): digest(path) for path in inputs}
    written = {path: [kind, digest(Path(path))] for path, kind in (rows or {}).items()}
    body = {"unchanged": unchanged, "rows": written, "mute": mute, "nonsense": nonsense, "unbroken": unbroken}
    (folder / PROMISES).write_text(json.dumps(body), encoding="utf-8")


def digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else NO_FILE
    except (OSError, ValueError):  # such as a name that is too long
        return NO_FILE


# Stand-ins for networks


class Linear(Executor):
    """An executor that answers by the mean colour, as the graph of the small bundle does."""

    name, device, precision, max_batch = "none", "none", "fp32", 16
    captions_ready = True

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        return {"log_odds": log_odds(crops)}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        tokens = np.array(TOKENS, np.int64)
        return {"local_tokens": np.tile(tokens, (len(rows), 1)), "global_tokens": np.tile(tokens, (len(active), 1))}

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        return memory

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return parts[0]

    def close(self) -> None: ...


def light_runtime(bundle: Bundle) -> Runtime:
    if bundle.folder == embedded():  # by a setting that went back to its default
        return open_runtime(bundle, "openvino")
    runtime = Runtime(bundle, Linear())
    runtime.prove()
    return runtime


class Middle:
    """A face in the middle of every picture, found and followed."""

    name, reason, landmarks, threshold = "middle", "a face in the middle", None, 0.5

    def __init__(self) -> None:
        self._points = np.zeros((68, 2), np.float32)  # millimetres on a face
        self._points[:] = MEAN_FACE[3, 1:3]
        for eye, corner in ((36, 5), (42, 7)):
            self._points[eye : eye + 6] = MEAN_FACE[corner : corner + 2, 1:3].mean(0)
        self._points[MEAN_FACE[:, 0].astype(int)] = MEAN_FACE[:, 1:3]
        self._points -= self._points.mean(0)
        self._points /= 100.0

    def find(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        sides = [(picture.shape[1], picture.shape[0]) for picture in pictures]
        boxes = [np.array([[w / 2 - min(w, h) / 3, h / 6, w / 2 + min(w, h) / 3, h * 5 / 6]]) for w, h in sides]
        return [
            Detections(box.astype(np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)) for box in boxes
        ]

    def locate(self, picture: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Located:
        centres, sides = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        points = centres + self._points * sides.max(1)[:, None, None] * 0.8
        return Located(points.astype(np.float32), np.full(len(boxes), 0.9, np.float32))


def light_finder(bundle: Bundle, engine: Engine) -> FaceFinder:
    middle = Middle()
    stills = [source.origin.stream for source in engine.sources if source.stills]
    faces, side = engine.settings.faces, bundle.manifest.side
    return FaceFinder(faces, middle, middle, side, stills=stills, keep_pixels=engine.sinks.needs_pixels)


light_engine: Any = partial(Engine, open_runtime=light_runtime, open_finder=light_finder)


# Clips


def _clip(case: dict[str, Any], folder: Path, seeds: Path, kept: str | None) -> int:
    path = Path("clip").with_suffix(Path(case["base"]).suffix)
    whole = Path(kept) if kept else seeds / case["base"]
    steps = [] if kept else case["steps"]
    path.write_bytes(apply(whole.read_bytes(), steps, lambda name: (seeds / name).read_bytes()))
    rows = {"rows.jsonl": "jsonl", "rows.csv": "csv"}
    promise(folder, [path], rows)
    if case["how"] == COMMAND:
        return _command([str(path), "--bind", "none", "--runtime", "openvino", "--explain", "never"])
    more: dict[str, Any] = {"render": Path("x.mp4"), "subtitles": Path("x.vtt")} if case["how"] == RENDER else {}
    given = {"model": str(seeds / BUNDLE), "jsonl": Path("rows.jsonl"), "csv": Path("rows.csv")} | more
    return _finish(folder, read(lambda: light_engine(for_python((str(path),), given)), case["base"]))


def read(opened: Callable[[], Any], place: str) -> dict[str, str]:
    """What comes of an engine in this process: its rows are counted, and its times must rise."""
    count, last = 0, (-1, -math.inf)
    wrong = ""
    try:
        with opened() as reports:
            for report in reports:
                if not (math.isfinite(report.pts) and report.pts > last[1] and report.frame > last[0]):
                    wrong = wrong or f"{last[1]:.3f} s is followed by {report.pts:.3f} s at frame {report.frame}"
                count, last = count + 1, (report.frame, report.pts)
    except (UserError, StreamFailed) as error:
        if not str(error).strip():
            return {"problem": "no sentence", "where": place, "detail": type(error).__name__}
        if not wrong:
            return {"verdict": "refused", "detail": str(error)[:300]}
    if wrong:
        return {"problem": "times backwards", "where": place, "detail": wrong}
    written = Path("rows.jsonl").read_bytes().count(b"\n") if Path("rows.jsonl").exists() else 0
    if written != count:
        return {"problem": "torn row", "where": place, "detail": f"{count} reports and {written} rows"}
    return {"verdict": "read", "detail": f"{count} reports"}


def _command(arguments: Sequence[str]) -> int:
    outputs = ["--jsonl", "rows.jsonl", "--csv", "rows.csv"]
    return _replaced([*outputs, *arguments])


def _replaced(arguments: Sequence[str]) -> int:
    """The rest of this process is the command, from its beginning."""
    os.execv(sys.executable, [sys.executable, "-c", START, *arguments])


# Bundles


def _bundle(case: dict[str, Any], folder: Path, seeds: Path) -> int:
    here, clip = Path("bundle"), Path(SHORT)
    clip.write_bytes((seeds / SHORT).read_bytes())
    damaged_bundle(embedded() if case["base"] == EMBEDDED else seeds / BUNDLE, here, case["steps"])
    promise(folder, [clip, *sorted(here.iterdir())], {"rows.jsonl": "jsonl", "rows.csv": "csv"})
    if case["how"] == COMMAND:
        return _command([SHORT, "--bind", "none", "--runtime", "openvino", "--model", "bundle", "--duration", "0.1"])
    settings = for_python((SHORT,), {"model": "bundle", "runtime": "openvino", "jsonl": Path("rows.jsonl")})
    bundles: list[Bundle] = []

    def opened() -> Engine:
        runtime = light_runtime if case["how"] == LIGHT else None
        engine = Engine(settings, open_runtime=runtime, open_finder=light_finder)
        bundles.append(engine.bundle)
        return engine

    outcome = read(opened, "a bundle")
    if outcome.get("verdict") == "read" and (odd := oddities(bundles[0])):
        outcome = {"problem": "accepted", "where": odd, "detail": ""}
    return _finish(folder, outcome)


def damaged_bundle(source: Path, target: Path, steps: Sequence[Step]) -> None:
    """A copy of the three files and the manifest, with the steps applied; "seal" takes the checksums again."""
    target.mkdir()
    manifest = json.loads((source / "manifest.json").read_bytes())
    for name in manifest["files"]:
        (target / name).symlink_to(source / name)
    damage_text: list[Step] = []
    seal = "seal" in (name for name, *_ in steps)
    gone: list[str] = []
    bends: list[Step] = []
    for name, *arguments in steps:
        if name == "manifest":
            bends.append(arguments[0])
        elif name == "text":
            damage_text.append(arguments[0])
        elif name == "bytes":
            data = (target / arguments[0]).read_bytes()
            _put(target / arguments[0], apply(data, [arguments[1]], lambda other: (source / other).read_bytes()))
        elif name == "exchange":
            _put(target / arguments[0], (source / arguments[1]).read_bytes())
        elif name == "array":
            _damage_array(target / "selftest.npz", source / "selftest.npz", *arguments)
        elif name == "remove":
            gone.append(arguments[0])
    if seal:
        manifest["files"] = {name: sha256(target / name) for name in manifest["files"]}
    for step in bends:
        manifest = bent(manifest, step)
    (target / "manifest.json").write_bytes(apply(text(manifest), damage_text, lambda other: b"{}"))
    for name in gone:
        (target / name).unlink(missing_ok=True)


def _put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # a link would lead into the original
    path.write_bytes(data)


def _damage_array(path: Path, source: Path, name: str, how: str) -> None:
    with np.load(source) as stored:
        arrays = {key: stored[key] for key in stored.files}
    old = arrays.get(name, np.zeros(1, np.float32))
    changed: dict[str, Callable[[], NDArray[Any]]] = {
        "nan": lambda: np.full(old.shape, np.nan, np.float32),
        "huge numbers": lambda: np.full(old.shape, 3e38, np.float32),
        "shape": lambda: old[..., None, :],
        "empty": lambda: old[:0],
        "type": lambda: old.astype("U8"),
        "objects": lambda: np.array([{"a": 1}, None], object),
        "large": lambda: np.zeros(300_000_000, np.uint8),
        "announced": lambda: old,
    }
    arrays.pop(name, None)
    if how in changed:
        arrays[name] = changed[how]()
    path.unlink(missing_ok=True)
    if how == "large":  # a few kilobytes that unpack to much
        np.savez_compressed(str(path), **arrays)  # type: ignore[arg-type]
        return
    np.savez(str(path), **arrays)  # type: ignore[arg-type]
    if how == "announced":  # a header that promises more than there is; its padding gives the room
        honest, larger = f"'shape': {old.shape}, }}".encode(), b"'shape': (99999999999999,), }"
        padding = b" " * max(0, len(larger) - len(honest))
        path.write_bytes(path.read_bytes().replace(honest + padding, larger))


def oddities(bundle: Bundle) -> str:
    """What should not have been taken from a bundle, as words; nothing of a sound one."""
    manifest, odd = bundle.manifest, []
    numbers: dict[str, Callable[[Any], bool]] = {
        "thresholds": lambda value: 0 < value < 1,
        "temperatures": lambda value: 0 < value < 1e6,
        "template_weights": lambda value: 0 <= value < 1e6,
    }
    for name, sound in numbers.items():
        if not all(_is_number(value) and sound(value) for value in _entries(getattr(manifest, name))):
            odd.append(name)
    for name in ("units", "vocabulary"):
        if not all(isinstance(value, str) for value in _entries(getattr(manifest, name))):
            odd.append(name)
    if not isinstance(manifest.name, str):
        odd.append("name")
    if not (_is_number(manifest.baseline_seconds) and 0 <= manifest.baseline_seconds < 1e6):
        odd.append("baseline_seconds")
    names = set(manifest.files) if isinstance(manifest.files, dict) else set()
    if any("/" in name or name.startswith(".") for name in names):
        odd.append("names of files")
    if not {"encoder.onnx", "selftest.npz"} <= names:
        odd.append("files")
    return ", ".join(odd) or _odd_selftest(bundle)


def _entries(value: Any) -> Sequence[Any]:
    """Of a list in the manifest; what is no list counts as one that holds nothing sound."""
    return value if isinstance(value, (tuple, list)) else (None,)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _odd_selftest(bundle: Bundle) -> str:
    stored = bundle.selftest()
    sound = {"crops", "log_odds"} <= set(stored) and all(
        np.isfinite(value).all() for name, value in stored.items() if name.startswith("log_odds")
    )
    return "" if sound else "numbers of the self-test"


# Messages


def _messages(case: dict[str, Any], folder: Path) -> int:
    with hostile_publisher(case["steps"]) as address:
        if case["how"] == WATCH:
            promise(folder, [], unbroken="vlfau-watch")
            return watch.main(["--once", address, "--timeout", "4"])
        return _finish(folder, listen(address))


# Flags and configuration files


def _prepare(seeds: Path) -> None:
    """The files that values of flags name."""
    clip = (seeds / SHORT).read_bytes()
    for name in ("clip.mp4", "other.mp4", "http:__x.mp4"):
        Path(name).write_bytes(clip)
    os.symlink("clip.mp4", "link.mp4")
    os.link("clip.mp4", "hard.mp4")
    for name in ("folder", "empty", "pictures"):
        Path(name).mkdir()
    Path("old.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    Path("text.jpg").write_text("no picture", encoding="utf-8")
    Path("secret.key_secret").write_text("secret", encoding="utf-8")
    Path("config.toml").write_text("[screen]\nquiet = true\n", encoding="utf-8")
    for name in ("pictures/a.png", "pictures/b.png", "a\nvlfau-stream: FORGED.png"):
        Image.new("RGB", (64, 48), (90, 60, 30)).save(name)


def _flags(case: dict[str, Any], folder: Path, seeds: Path) -> int:
    _prepare(seeds)
    arguments: list[str] = ["--bind", "none", "--duration", "0.2", "--model", str(seeds / BUNDLE)]
    sources = [step[1] for step in case["steps"] if step[0] == "source"] or ["clip.mp4"]
    given = [step[1:] for step in case["steps"] if step[0] == "flag"]
    closed = [step[1] for step in case["steps"] if step[0] == "close"]
    if ["talk"] not in case["steps"]:
        arguments.append("--quiet")
    for flag, *values in given:
        arguments += [f"{flag}={value}" for value in values] or [flag]
    values = {flag: values[0] for flag, *values in given if values}
    guarded = set(_named(sources))
    guarded |= {Path(values[flag]) for flag in ("--config", "--curve-secret", "--allow") if values.get(flag)}
    if values.get("--bind", "").startswith("ipc://"):
        guarded.add(Path(values["--bind"].removeprefix("ipc://")))
    if ["--no-overwrite"] in given:
        guarded |= set(Path().iterdir())
    rows = {values[flag]: kind for flag, kind in (("--csv", "csv"), ("--jsonl", "jsonl")) if values.get(flag)}
    rows = {path: kind for path, kind in rows.items() if not path.startswith("/dev")}
    pairs = {(flag, *values) for flag, *values in given} | {("SOURCE", source) for source in sources}
    promise(folder, guarded, rows, 2 in closed, [" ".join(pair) for pair in sorted(pairs & NONSENSE)])
    for number in closed:
        os.close(number)
    return _stream(case["how"], [*arguments, *sources])


def _named(sources: Iterable[str]) -> Iterable[Path]:
    for source in sources:
        path = Path(source.removeprefix("file://"))
        if source and _is_dir(path) and source != "/":
            yield from path.iterdir()
        elif source:
            yield from (Path(name) for name in (source, source.removeprefix("file://"), *glob.glob(source)))


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _stream(how: str, arguments: Sequence[str]) -> int:
    if how == COMMAND:
        return _replaced(arguments)
    app.Engine = light_engine  # type: ignore[misc]
    return stream.main(arguments)


def _config(case: dict[str, Any], folder: Path, seeds: Path) -> int:
    _prepare(seeds)
    tree = configuration(case["base"])
    tree["predict"]["model"] = str(seeds / BUNDLE)
    for name, step in case["steps"]:
        tree = bent(tree, step) if name == "tree" else tree
    data = toml(tree).encode(errors="surrogatepass")
    steps = [step for name, step in case["steps"] if name == "bytes"]
    Path("config.toml").write_bytes(apply(data, steps, lambda name: data))
    rows = {"rows.csv": "csv", "rows.jsonl": "jsonl"}
    nonsense = [] if steps else sorted(_without_number(tree))
    promise(folder, [Path("clip.mp4"), Path("config.toml")], rows, nonsense=nonsense)
    return _stream(case["how"], ["--config", "config.toml"])


def _without_number(tree: Any) -> Iterable[str]:
    """Settings that are not a number where one is needed."""
    for section, part in SECTIONS.items():
        for key, value in tree[section].items() if isinstance(tree.get(section), dict) else ():
            if isinstance(value, float) and math.isnan(value) and key in {field.name for field in fields(part)}:
                yield f"{section}.{key} = nan"


def toml(tree: Any) -> str:
    """A table of tables; values inside are written inline. What TOML does not have (null) is written all the same."""
    if not isinstance(tree, dict):
        return written_out(_inline(tree))
    plain = [f"{_inline(key)} = {_inline(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for name, table in tree.items():
        if isinstance(table, dict):
            plain += [f"[{_inline(name)}]", *(f"{_inline(key)} = {_inline(value)}" for key, value in table.items())]
    return written_out("\n".join(plain) + "\n")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_inline(key)} = {_inline(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return json.dumps(value, ensure_ascii=False)
