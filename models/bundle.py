"""The bundle: one folder that training exports and every runtime loads; read, checked, verified and written here.

manifest.json           everything below except the numbers; schema version; sha256 of each file
encoder.onnx            crops -> log-odds, and the memory that sentences are made from
caption.onnx            greedy decoding inside the graph (absent for a network without sentences)
weights.safetensors     for the torch runtime and for further training
selftest.npz            a stored input and its output, which each runtime reproduces when it starts
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import zipfile
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .errors import UserError, unknown
from .faces import align
from .files import embedded

MEMORY = ("visual", "channel", "spatial")  # what sentences are made from, as named in both graphs

CLIP, TRUTH = "demo.mp4", "demo.json"

SCHEMA = 1
MANIFEST = "manifest.json"
SELFTEST = "selftest.npz"
TIERS = ("solid", "fair", "experimental", "unrated")
WRITTEN = ("fp32", "bf16", "fp16")  # precisions of graphs

LARGEST_MANIFEST = 1 << 24  # bytes
LARGEST_SIDE = 1024
LONGEST_SENTENCE = 1000
LONGEST_NAME = 200  # letters, of a bundle, a unit or a word
SELFTEST_CROPS = 64  # a self-test takes less memory than this many crops and their answers
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds; `thresholds`, `temperatures` and `tiers` have one entry per unit, in their order."""

    name: str
    units: tuple[str, ...]  # "AU01", "AU02", ...
    side: int  # pixels; crops are (N, side, side, 3) uint8 RGB
    network: dict[str, Any]  # {"kind": "vlfau", ...}: what the torch runtime builds it from
    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    tiers: tuple[str, ...]
    template: tuple[tuple[float, float], ...] = tuple((float(x), float(y)) for x, y in align.TEMPLATE)
    template_weights: tuple[float, ...] = tuple(float(w) for w in align.WEIGHTS)
    vocabulary: tuple[str, ...] = ()  # token -> word; empty without captions
    words: int = 0  # T, the longest sentence; 0 without captions
    precision: str = "fp32"
    baseline_seconds: float = 0.0  # the neutral baseline that was best for this bundle; 0: off
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256
    provenance: dict[str, Any] = field(default_factory=dict)  # data, code revision, metrics, licence, date
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in ("thresholds", "temperatures", "tiers"):
            if len(getattr(self, name)) != len(self.units):
                raise UserError(
                    f"Manifest of {reprlib.repr(self.name)}: {name} needs {len(self.units)} entries, one per unit."
                )
        for tier in self.tiers:
            if tier not in TIERS:
                raise unknown("tier", reprlib.repr(tier)[1:-1], TIERS)


@dataclass(frozen=True)
class Bundle:
    folder: Path
    manifest: Manifest

    @property
    def has_captions(self) -> bool:
        return self.manifest.words > 0

    @cached_property
    def checksum(self) -> str:
        """Identifies this bundle's content; compiled engines are keyed by it."""
        body = json.dumps(self.manifest.files, sort_keys=True).encode()
        return hashlib.sha256(body).hexdigest()[:16]

    def path(self, name: str) -> Path:
        """A file the manifest lists; `open_bundle` has verified it."""
        if name not in self.manifest.files:
            raise UserError(f"Bundle {self.folder} has no {name}. Export it again with vlfau-export.")
        return self.folder / name

    def selftest(self) -> dict[str, NDArray[Any]]:
        """crops (n, S, S, 3) uint8, log_odds (n, A); with captions also active (n, A), local_tokens, global_tokens."""
        path = self.path(SELFTEST)
        try:
            stored = _unpacked(path, self._selftest_bytes)
        except UserError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged files
            raise _damaged(path, str(error) or type(error).__name__) from None
        _check_selftest(stored, self.manifest, path)
        return stored

    @property
    def _selftest_bytes(self) -> int:
        manifest = self.manifest
        answer = 8 * len(manifest.units) * (manifest.words + 8)
        return SELFTEST_CROPS * (3 * manifest.side**2 + answer) + (1 << 16)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.hexdigest()


def open_bundle(where: str | Path) -> Bundle:
    """Loads and verifies. `where` is a folder, or 'embedded' for the bundle inside the package."""
    folder = embedded() if str(where) == "embedded" else Path(where)
    path = folder / MANIFEST
    remedy = "Give a folder written by vlfau-export, or 'embedded'."
    try:
        if not path.is_file():
            reason = "it is a file" if folder.is_file() else f"{MANIFEST} is missing"
            raise UserError(f"No bundle in {folder}: {reason}. {remedy}")
        if (size := path.stat().st_size) > LARGEST_MANIFEST:
            raise UserError(f"{path} has {size} bytes; a manifest has at most {LARGEST_MANIFEST}. {remedy}")
        body = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {remedy}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not readable JSON ({error}). Export the bundle again.") from None
    manifest = _manifest(body, path)
    for name, expected in manifest.files.items():
        _verify(folder, name, expected)
    return Bundle(folder, manifest)


def _verify(folder: Path, name: str, expected: str) -> None:
    file = folder / name
    if not file.is_file():
        raise UserError(f"Bundle {folder} is incomplete: {name} is missing. Copy it again or export again.")
    elsewhere = False
    try:
        if file.suffix == ".onnx":  # read once for both; runtimes load it whole anyway
            body = file.read_bytes()
            actual, elsewhere = hashlib.sha256(body).hexdigest(), _reads_other_files(body)
        else:
            actual = sha256(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}). Copy the bundle again.") from None
    if actual != expected:
        raise UserError(
            f"Bundle {folder} does not verify: {name} has sha256 {actual[:12]}, its manifest {expected[:12]}. "
            "It was changed or damaged after export; copy it again or export again."
        )
    if elsewhere:
        raise UserError(
            f"{file} keeps weights in another file, which no checksum covers; a bundle's graphs hold their own. "
            "Export the bundle again."
        )


def _reads_other_files(graph: bytes) -> bool:
    """Whether a tensor of an ONNX graph has external data. Its file is the entry "location", a string of protobuf after
    a byte of length 8 (or 0, if the length was padded). A graph that calls a value exactly that is refused as well;
    in return nothing has to be parsed, which would take longer than all other checks."""
    place = graph.rfind(b"location")  # find() takes half as long again
    while place > 0:
        if graph[place - 1] in (0, 8):
            return True
        place = graph.rfind(b"location", 0, place)
    return False


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Updates the checksums of all listed files and replaces `manifest.json` in one step."""
    manifest = replace(manifest, files={name: sha256(folder / name) for name in sorted(manifest.files)})
    path = folder / MANIFEST
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return manifest


def _manifest(body: str, path: Path) -> Manifest:
    try:
        table = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}). Export the bundle again.") from None
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        came = reprlib.repr(table.get("schema")) if isinstance(table, dict) else type(table).__name__
        raise UserError(
            f"{path} has schema {came}; this version reads {SCHEMA}. Export the bundle with the same version."
        )
    keys = {field.name for field in fields(Manifest)}
    for key in table:
        if key not in keys:
            raise unknown(f"key in {path}", reprlib.repr(key)[1:-1], keys)
    try:
        manifest = msgspec.convert(table, Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if fault := _fault(manifest):
        raise _damaged(path, fault)
    _check_template(manifest, path)
    return manifest


def _fault(manifest: Manifest) -> str:
    """What no sound manifest holds, with what is expected instead; empty if there is nothing."""
    for what, names in (("name", (manifest.name,)), ("unit", manifest.units), ("word", manifest.vocabulary)):
        for name in names:
            if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
                return f"the {what} {reprlib.repr(name)} is not 1 to {LONGEST_NAME} printable letters"
    if not manifest.units or len(set(manifest.units)) < len(manifest.units):
        return "units must be a list of different names, and have at least one"
    numbers = [(f"threshold of {unit}", t, 0, 1) for unit, t in zip(manifest.units, manifest.thresholds)]
    numbers += [
        (f"temperature of {unit}", value, 0, 1000) for unit, value in zip(manifest.units, manifest.temperatures)
    ]
    for what, value, low, high in numbers:
        if not low < value < high:  # NaN is neither
            return f"the {what} is {value}; it must lie between {low} and {high}"
    for what, value, low, high in (
        ("baseline_seconds", manifest.baseline_seconds, 0, 3600),
        ("side", manifest.side, 1, LARGEST_SIDE),
        ("words", manifest.words, 0, LONGEST_SENTENCE),
    ):
        if not low <= value <= high:
            return f"{what} is {reprlib.repr(value)}; it must be {low} to {high}"
    if manifest.words and not manifest.vocabulary:
        return f"vocabulary is empty, but sentences have up to {manifest.words} words"
    if manifest.precision not in WRITTEN:
        return f"precision is {reprlib.repr(manifest.precision)}; it must be one of {', '.join(WRITTEN)}"
    for name, digest in manifest.files.items():
        if not FILE_NAME.fullmatch(name):
            return f"the file {reprlib.repr(name)} is not in the bundle's folder or has a name that is not plain"
        if not SHA256.fullmatch(digest):
            return f"the sha256 of {name} is {reprlib.repr(digest)}; it must be 64 hexadecimal digits"
    if SELFTEST not in manifest.files or not {"encoder.onnx", "weights.safetensors"} & manifest.files.keys():
        return f"files must list {SELFTEST}, and encoder.onnx or weights.safetensors"
    return ""


def _damaged(path: Path, fault: str) -> UserError:
    return UserError(f"{path} is damaged or incomplete: {fault}. Export the bundle again.")


def _unpacked(path: Path, most: int) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, which are not unpacked if they would take more than that many bytes."""
    with zipfile.ZipFile(path) as archive:  # no entry unpacks to more than it announces here
        size = sum(entry.file_size for entry in archive.infolist())
    if size > most:
        raise _damaged(path, f"it unpacks to {size} bytes; a self-test of this bundle has at most {most}")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _check_selftest(stored: dict[str, NDArray[Any]], manifest: Manifest, path: Path) -> None:
    for name in ("crops", "log_odds"):
        if name not in stored:
            raise _damaged(path, f"{name} is missing")
    n, units, words = len(stored["crops"]) if stored["crops"].ndim else 0, len(manifest.units), manifest.words
    shapes: dict[str, tuple[int, ...]] = {
        "crops": (max(1, n), manifest.side, manifest.side, 3),
        **{name: (n, units) for name in stored if name == "active" or name.startswith("log_odds")},
        **({"local_tokens": (n * units, words), "global_tokens": (n, words)} if words else {}),
    }
    for name, shape in shapes.items():
        array, kind = stored.get(name), np.uint8 if name == "crops" else np.integer if "tokens" in name else np.floating
        if array is None:
            continue
        if array.shape != shape or not np.issubdtype(array.dtype, kind):
            raise _damaged(path, f"{name} is {array.dtype} {array.shape}, expected {kind.__name__} {shape}")
        if kind is np.floating and not np.isfinite(array).all():
            raise _damaged(path, f"{name} holds numbers that are not finite")
        if kind is np.integer and (array.min() < 0 or array.max() >= len(manifest.vocabulary)):
            raise _damaged(path, f"{name} holds words outside the vocabulary of {len(manifest.vocabulary)}")


def _check_template(manifest: Manifest, path: Path) -> None:
    """Faces are aligned by the constants of `faces/align.py`, which must be those that the network was trained with."""
    for name, constants in (("template", align.TEMPLATE), ("template_weights", align.WEIGHTS)):
        expected = constants.astype(np.float64)
        stored = np.array(getattr(manifest, name), np.float64)
        if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=0, atol=1e-6):
            raise UserError(
                f"{path} was made for crops with the {name} {stored.round(4).tolist()}; this version aligns faces to "
                f"{expected.round(4).tolist()}. Use the version that exported it, or train and export it again."
            )


def demo_clip() -> Path:
    clip = embedded() / CLIP
    if not clip.is_file():
        raise UserError(f"The demonstration clip {clip} is missing. Reinstall the package, or name a source.")
    return clip
