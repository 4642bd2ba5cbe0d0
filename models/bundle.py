"""The bundle: one folder that training exports and every runtime loads; read, verified and written here.

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
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UserError, unknown
from .faces import align
from .files import embedded

MEMORY = ("visual", "channel", "spatial")  # what sentences are made from, as named in both graphs

CLIP, TRUTH = "demo.mp4", "demo.json"

SCHEMA = 1
MANIFEST = "manifest.json"
TIERS = ("solid", "fair", "experimental", "unrated")


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
                    f"Manifest of '{self.name}': {name} needs {len(self.units)} entries, one per action unit."
                )
        for tier in self.tiers:
            if tier not in TIERS:
                raise unknown("tier", tier, TIERS)


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
        with np.load(self.path("selftest.npz"), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def open_bundle(where: str | Path) -> Bundle:
    """Loads and verifies. `where` is a folder, or 'embedded' for the bundle inside the package."""
    folder = embedded() if str(where) == "embedded" else Path(where)
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"No bundle in {folder}: {MANIFEST} is missing. Give a folder written by vlfau-export, or 'embedded'."
        )
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}). Export the bundle again.") from None
    manifest = _manifest(table, path)
    _check_template(manifest, path)
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"Bundle {folder} is incomplete: {name} is missing. Copy it again or export again.")
        if (actual := sha256(file)) != expected:
            raise UserError(
                f"Bundle {folder} does not verify: {name} has sha256 {actual[:12]}, its manifest {expected[:12]}. "
                "It was changed or damaged after export; copy it again or export again."
            )
    return Bundle(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Updates the checksums of all listed files and replaces `manifest.json` in one step."""
    manifest = replace(manifest, files={name: sha256(folder / name) for name in sorted(manifest.files)})
    path = folder / MANIFEST
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return manifest


def _manifest(table: Any, path: Path) -> Manifest:
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        came = table.get("schema") if isinstance(table, dict) else type(table).__name__
        raise UserError(
            f"{path} has schema {came!r}; this version reads {SCHEMA}. Export the bundle with the same version."
        )
    keys = {field.name for field in fields(Manifest)}
    for key in table:
        if key not in keys:
            raise unknown(f"key in {path}", key, keys)
    try:
        return Manifest(**{key: _frozen(value) for key, value in table.items()})
    except TypeError as error:
        raise UserError(f"{path} is incomplete: {error}. Export the bundle again.") from None


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


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def demo_clip() -> Path:
    clip = embedded() / CLIP
    if not clip.is_file():
        raise UserError(f"The demonstration clip {clip} is missing. Reinstall the package, or name a source.")
    return clip
