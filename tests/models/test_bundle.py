"""Damaged bundles: each is refused with one sentence that says what came and what to do, at no cost."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.external_data_helper import convert_model_to_external_data
from small_bundle import SIDE, UNITS, encoder, small_bundle

from vlfau.models.bundle import LARGEST_MANIFEST, Bundle, open_bundle, write_manifest
from vlfau.models.errors import UserError

NAN = float("nan")
MANY = len(UNITS)
LONG = "x" * 5000


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small_bundle(tmp_path / "bundle")


def refusal(folder: Path) -> str:
    """What is said when the bundle is opened and its self-test read."""
    with pytest.raises(UserError) as caught:
        open_bundle(folder).selftest()
    message = str(caught.value)
    assert len(message) < 500
    assert message.endswith(".")
    assert message.isprintable()
    return message


def rewrite(bundle: Bundle, change: Callable[[dict[str, Any]], Any]) -> None:
    path = bundle.folder / "manifest.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    changed = change(table)
    path.write_text(json.dumps(table if changed is None else changed), encoding="utf-8")


TABLE: list[tuple[str, Any, str]] = [
    ("thresholds", [NAN] * MANY, "threshold of AU01 is nan; it must lie between 0 and 1"),
    ("thresholds", [0.5] * (MANY - 1) + [float("inf")], "threshold of AU25 is inf; it must lie"),
    ("thresholds", [1e300] * MANY, r"threshold of AU01 is 1e\+300; it must lie"),
    ("thresholds", None, "Expected `array`, got `null` - at `\\$.thresholds`"),
    ("thresholds", ["0.5"] * MANY, "Expected `float`, got `str` - at `\\$.thresholds"),
    ("thresholds", [10**400] * MANY, "out of range - at `\\$.thresholds"),
    ("thresholds", [0.5] * (MANY - 1), f"thresholds needs {MANY} entries, one per unit"),
    ("temperatures", [0.0] * MANY, r"temperature of AU01 is 0.0; it must lie between 0 and 1000"),
    ("temperatures", [-1.0] * MANY, "temperature of AU01 is -1.0"),
    ("temperatures", [1.0, NAN] + [1.0] * (MANY - 2), "temperature of AU04 is nan"),
    ("tiers", ["splendid"] * MANY, "Unknown tier 'splendid'"),
    ("tiers", ["\x1b]52;c;QQ==\x07"] * MANY, r"Unknown tier '.x1b\]52;c;QQ==.x07'"),
    ("\x1b[2J", 5, r"Unknown key in .* '.x1b\[2J'"),
    ("tiers", 3, "Expected `array`, got `int` - at `\\$.tiers`"),
    ("units", ["AU01"] * MANY, "units must be a list of different names"),
    ("units", ["AU01", 4, "AU06", "AU12", "AU25"], "Expected `str`, got `int` - at `\\$.units"),
    ("units", ["AU\x1b[2J", *UNITS[1:]], "the unit 'AU.x1b.2J' is not 1 to 200 printable letters"),
    ("name", 5, "Expected `str`, got `int` - at `\\$.name`"),
    ("name", LONG, r"the name 'xxx.*\.\.\..*' is not 1 to 200 printable letters"),
    ("side", 1e9, "Expected `int`, got `float`"),
    ("side", 10**30, "side is 1000.* must be 1 to 1024"),
    ("side", 0, "side is 0; it must be 1 to 1024"),
    ("words", "many", "Expected `int`, got `str` - at `\\$.words`"),
    ("words", -1, "words is -1; it must be 0 to 1000"),
    ("baseline_seconds", NAN, "baseline_seconds is nan; it must be 0 to 3600"),
    ("baseline_seconds", "5", "Expected `float`, got `str`"),
    ("precision", "x", "precision is 'x'; it must be one of fp32, bf16, fp16"),
    ("precision", 7, "Expected `str`, got `int` - at `\\$.precision`"),
    ("vocabulary", [], "vocabulary is empty, but sentences have up to 6 words"),
    ("vocabulary", list(range(16)), "Expected `str`, got `int` - at `\\$.vocabulary"),
    ("vocabulary", ["<pad>", "<start>", "<end>", ""], "the word '' is not 1 to 200 printable letters"),
    ("vocabulary", ["<pad>", "<start>", "<end>", "the"], "holds words outside the vocabulary of 4"),
    ("network", [], "Expected `object`, got `array` - at `\\$.network`"),
    ("provenance", "me", "Expected `object`, got `str` - at `\\$.provenance`"),
    ("template", [[1, 2, 3]] * 5, "Expected `array` of length 2, got 3"),
    ("template_weights", [NAN] * 5, "crops with the template_weights .*nan.* this version aligns"),
    ("files", ["encoder.onnx"], "Expected `object`, got `array` - at `\\$.files`"),
    ("files", 7, "Expected `object`, got `int` - at `\\$.files`"),
    ("files", {}, "files must list selftest.npz, and encoder.onnx or weights.safetensors"),
    ("files", {"../../x": "0" * 64}, "the file '../../x' is not in the bundle's folder"),
    ("files", {"/etc/shadow": "0" * 64}, "the file '/etc/shadow' is not in the bundle's folder"),
    ("files", {"..": "0" * 64}, r"the file '\.\.' is not in the bundle's folder"),
    ("files", {LONG: "0" * 64}, "the file 'xxx.* is not in the bundle's folder or has a name that is not plain"),
    ("files", {"selftest.npz": ["0"]}, "Expected `str`, got `array` - at `\\$.files"),
    ("files", {"selftest.npz": "0"}, "the sha256 of selftest.npz is '0'; it must be 64 hexadecimal digits"),
    ("files", {"selftest.npz": "0" * 64, "encoder.onnx": "0" * 64}, "does not verify: selftest.npz has sha256"),
    ("schema", True, "Expected `int`, got `bool`"),
    ("schema", [1] * 5000, r"has schema \[1, 1.*\.\.\.\]; this version reads 1"),
    (LONG, 1, "Unknown key in .* 'xxx"),
]


@pytest.mark.parametrize(("key", "value", "message"), TABLE, ids=[f"{k[:12]}={str(v)[:20]}" for k, v, _ in TABLE])
def test_a_manifest_that_does_not_fit_is_refused(bundle: Bundle, key: str, value: Any, message: str) -> None:
    rewrite(bundle, lambda table: table.update({key: value}))
    assert re.search(message, refusal(bundle.folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "has schema NoneType; this version reads 1"),
        ('{"schema": 1}', "Object missing required field `name`"),
        ('{"schema": 1, "side": ' + "9" * 5000 + "}", "is not readable JSON"),
        ("[" * 200_000, "is not readable JSON"),
        ('{"network": ' * 100_000, "is not readable JSON"),
        ("{" + " " * LARGEST_MANIFEST + "}", f"a manifest has at most {LARGEST_MANIFEST}"),
    ],
    ids=lambda value: value[:20],
)
def test_a_manifest_of_nonsense_is_refused(bundle: Bundle, text: str, message: str) -> None:
    (bundle.folder / "manifest.json").write_text(text, encoding="utf-8")
    assert message in refusal(bundle.folder)


def test_provenance_and_network_are_free_in_form(bundle: Bundle) -> None:
    """Older exports wrote the NaN of an epoch's metrics, which is no strict JSON."""
    rewrite(bundle, lambda table: table.update(provenance={"metrics": {"loss": NAN, "x": [1, {"y": None}]}}))
    assert open_bundle(bundle.folder).manifest.provenance["metrics"]["x"] == [1, {"y": None}]


def test_what_is_written_is_read_back_equal(bundle: Bundle) -> None:
    path = bundle.folder / "manifest.json"
    before = path.read_bytes()
    assert write_manifest(bundle.folder, open_bundle(bundle.folder).manifest) == bundle.manifest
    assert path.read_bytes() == before


def test_a_path_that_is_no_bundle_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    assert f"No bundle in {file}: it is a file" in refusal(file)
    assert "manifest.json is missing" in refusal(tmp_path)
    assert "cannot be read (File name too long)" in refusal(tmp_path / ("y" * 300))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no permissions of this kind")
@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx", "selftest.npz"])
def test_a_file_without_permission_is_a_sentence(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refused(kind: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *args: Any, **how: Any) -> Any:
            if path.name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return kind(path, *args, **how)

        return call

    for method in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, method, refused(getattr(Path, method)))
    assert f"{name} cannot be read (Permission denied)" in refusal(bundle.folder)


# ---- the self-test


def store(bundle: Bundle, **changes: Any) -> None:
    arrays: dict[str, Any] = {**bundle.selftest(), **changes}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    np.savez(bundle.folder / "selftest.npz", **arrays)
    write_manifest(bundle.folder, bundle.manifest)


def changed(name: str, how: Callable[[NDArray[Any]], Any]) -> Callable[[Bundle], None]:
    return lambda bundle: store(bundle, **{name: how(bundle.selftest()[name])})


def objects(bundle: Bundle) -> None:
    store(bundle, crops=np.array([{"a": 1}, None], object))


def announced(bundle: Bundle) -> None:
    """A header that promises 33 PiB."""
    shape = bundle.selftest()["log_odds"].shape
    path = bundle.folder / "selftest.npz"
    honest, larger = f"'shape': {shape}, }}".encode(), b"'shape': (9999999999999999,), }"
    assert len(larger) > len(honest)
    padding = b" " * (len(larger) - len(honest))
    body = path.read_bytes()
    assert honest + padding in body
    path.write_bytes(body.replace(honest + padding, larger))
    write_manifest(bundle.folder, bundle.manifest)


def replaced(body: bytes) -> Callable[[Bundle], None]:
    def write(bundle: Bundle) -> None:
        (bundle.folder / "selftest.npz").write_bytes(body)
        write_manifest(bundle.folder, bundle.manifest)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replaced(b"not a zip"), "File is not a zip file"),
        (replaced(b""), "File is not a zip file"),
        (objects, "Object arrays cannot be loaded"),
        (announced, "selftest.npz is damaged or incomplete"),
        (changed("crops", lambda _: None), "crops is missing"),
        (changed("log_odds", lambda _: None), "log_odds is missing"),
        (changed("log_odds", lambda old: old * NAN), "log_odds holds numbers that are not finite"),
        (changed("active", lambda old: old + np.inf), "active holds numbers that are not finite"),
        (changed("log_odds", lambda old: old[:, :-1]), f"log_odds is float32 (3, 4), expected floating (3, {MANY})"),
        (changed("log_odds", lambda old: old.astype("U8")), "log_odds is <U8"),
        (changed("crops", lambda old: old[0]), f"expected uint8 ({SIDE}, {SIDE}, {SIDE}, 3)"),
        (changed("crops", lambda old: old[:0]), f"crops is uint8 (0, {SIDE}, {SIDE}, 3), expected uint8 (1, "),
        (changed("crops", lambda _: np.uint8(0)), "crops is uint8 ()"),
        (changed("crops", lambda old: old.astype(np.float32)), "crops is float32"),
        (changed("local_tokens", lambda old: old - 5), "local_tokens holds words outside the vocabulary of 16"),
        (changed("global_tokens", lambda old: old[:1]), "global_tokens is int64 (1, 6), expected integer (3, 6)"),
    ],
)
def test_a_damaged_selftest_is_refused(bundle: Bundle, damage: Callable[[Bundle], None], message: str) -> None:
    damage(bundle)
    assert message in refusal(bundle.folder)


def test_a_selftest_that_unpacks_to_too_much_is_not_unpacked(bundle: Bundle) -> None:
    arrays: dict[str, Any] = bundle.selftest()
    np.savez_compressed(bundle.folder / "selftest.npz", **{**arrays, "crops": np.zeros(1 << 28, np.uint8)})
    write_manifest(bundle.folder, bundle.manifest)
    start = time.process_time()
    assert "a self-test of this bundle has at most" in refusal(bundle.folder)
    assert time.process_time() - start < 0.2  # unpacking takes several times as long


# ---- graphs


@pytest.mark.parametrize("listed", [False, True])
def test_graphs_that_keep_weights_in_another_file_are_refused(bundle: Bundle, listed: bool) -> None:
    model = encoder()
    convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, bundle.folder / "encoder.onnx")
    assert (bundle.folder / "w.bin").is_file()
    files = {**bundle.manifest.files, **({"w.bin": ""} if listed else {})}
    write_manifest(bundle.folder, replace(bundle.manifest, files=files))
    assert "encoder.onnx keeps weights in another file" in refusal(bundle.folder)


def test_other_files_in_the_folder_do_no_harm(bundle: Bundle) -> None:
    (bundle.folder / "README.md").write_text("location", encoding="utf-8")
    assert open_bundle(bundle.folder).checksum == bundle.checksum
