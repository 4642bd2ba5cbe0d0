"""The conformance suite: all runtimes of this machine give the same answers, refuse the same input, leak nothing and
close. Then what belongs to one runtime: caches, choice, buckets, plain twins of captured steps."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from numpy.typing import NDArray
from small_bundle import SIDE, UNITS, encoder, small_bundle
from small_bundle import crops as small_crops

from vlfau.models import runtimes
from vlfau.models.bundle import Bundle, open_bundle, write_manifest
from vlfau.models.errors import UserError
from vlfau.models.openvino_core import openvino_core
from vlfau.models.runtimes import choose as choosing
from vlfau.models.runtimes import open_runtime
from vlfau.models.runtimes.base import Executor, Runtime, SelfTestFailed
from vlfau.models.runtimes.half_precision import to_half
from vlfau.models.runtimes.race import Rounds, race
from vlfau.models.runtimes.tensorrt_engines import gpu_count
from vlfau.models.sentences.vocabulary import END, PAD

# Largest difference in probability, and least share of equal tokens, against the stored FP32 answer. FP32 differs only
# by the order of sums. BF16 keeps 8 bits of each product: a few thousandths after averaging; a near tie flips a word
# and all after it.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.01, "int8": 0.1}
EQUAL_TOKENS = {"fp32": 1.0, "bf16": 0.6, "fp16": 0.9, "int8": 0.6}

gpu = [pytest.mark.gpu, pytest.mark.slow]
REAL = [
    pytest.param(("tiny", "openvino", "fp32"), marks=pytest.mark.slow),
    pytest.param(("tiny", "onnxruntime", "fp32"), marks=pytest.mark.slow),
    pytest.param(("tiny-weights", "torch", "bf16"), marks=pytest.mark.slow),
    pytest.param(("tiny", "torch", "fp16"), marks=gpu),
    pytest.param(("tiny", "tensorrt", "fp32"), marks=gpu),
    pytest.param(("tiny", "tensorrt", "fp16"), marks=gpu),
    pytest.param(("tiny", "torch-tensorrt", "fp16"), marks=gpu),
]
ALL = [
    ("small", "openvino", "fp32"),
    ("small", "onnxruntime", "fp32"),
    ("small", "openvino", "bf16"),
    ("small-half", "openvino", "fp16"),
    ("small-half", "onnxruntime", "fp16"),
    ("small-int8", "openvino", "int8"),
    ("small-int8", "onnxruntime", "int8"),
    ("tiny-weights", "torch", "fp32"),
    *REAL,
]


def with_int8(bundle: Bundle) -> Bundle:
    from vlfau.calibration.quantise import observe, quantise

    model = onnx.load(str(bundle.path("encoder.onnx")))
    onnx.save(quantise(model, observe(model, small_crops(32), "minmax")), bundle.folder / "encoder.int8.onnx")
    write_manifest(bundle.folder, replace(bundle.manifest, files={**bundle.manifest.files, "encoder.int8.onnx": ""}))
    return open_bundle(bundle.folder)


def with_half(bundle: Bundle) -> Bundle:
    """Written in FP16, as the embedded bundle is."""
    half = to_half(onnx.load(str(bundle.path("encoder.onnx"))))
    onnx.save(half, bundle.folder / "encoder.onnx")
    write_manifest(bundle.folder, replace(bundle.manifest, precision="fp16"))
    return open_bundle(bundle.folder)


class Claims:
    """OpenVINO's core on a processor that has BF16. One that only has AVX-512 computes it too, slowly, so OpenVINO does
    not offer it there; its answers are those of BF16."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def get_property(self, device: str, name: str) -> Any:
        found = self._core.get_property(device, name)
        return [*found, "BF16"] if name == "OPTIMIZATION_CAPABILITIES" else found


def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes sure of it, or skips."""
    from vlfau.models.runtimes import openvino

    core = openvino_core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    if "avx512bw" not in flags:
        pytest.skip("this processor neither has BF16 nor the AVX-512 to do without it")
    monkeypatch.setattr(openvino, "openvino_core", lambda: Claims(core))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[[str], Bundle]:
    def make(kind: str) -> Bundle:
        if kind == "small":
            return small_bundle(tmp_path / "bundle")
        if kind == "small-int8":
            return with_int8(small_bundle(tmp_path / "bundle"))
        if kind == "small-half":
            return with_half(small_bundle(tmp_path / "bundle"))
        pytest.importorskip("torch")
        if kind == "tiny-weights":
            from tiny_bundle import tiny_weights

            return tiny_weights(tmp_path / "bundle")
        from tiny_bundle import tiny_bundle

        return tiny_bundle()

    return make


@pytest.fixture(params=ALL, ids=lambda value: "-".join(value))
def runtime(
    request: pytest.FixtureRequest, bundle_of: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runtime]:
    kind, name, precision = request.param
    if (name, precision) == ("openvino", "bf16"):
        has_bf16(monkeypatch)
    if request.node.get_closest_marker("gpu") and gpu_count() == 0:
        pytest.skip("no NVIDIA GPU here")
    bundle = bundle_of(kind)
    device = "cpu" if name == "torch" and precision != "fp16" else None
    with open_runtime(bundle, name, precision=precision, device=device) as opened:
        yield opened


def test_probabilities_are_those_of_the_bundle_and_depend_on_the_picture(runtime: Runtime) -> None:
    stored = runtime.bundle.selftest()
    expected = 1 / (1 + np.exp(-stored["log_odds"]))
    allowed = TOLERANCE[runtime.executor.precision]
    assert np.abs(runtime.predict(stored["crops"]).probabilities - expected).max() <= allowed
    assert np.abs(runtime.predict(255 - stored["crops"]).probabilities - expected).max() > 2 * allowed


def test_tokens_are_those_of_the_bundle_and_depend_on_the_states(runtime: Runtime) -> None:
    stored = runtime.bundle.selftest()
    prediction = runtime.predict(stored["crops"])
    rows = np.argwhere(np.ones_like(stored["active"])).astype(np.int64)
    answer = runtime.executor.caption(prediction.memory, stored["active"], rows)
    least = EQUAL_TOKENS[runtime.executor.precision]
    for name in ("local_tokens", "global_tokens"):
        assert (answer[name] == stored[name]).mean() >= least
    other = runtime.executor.caption(prediction.memory, 1 - stored["active"], rows)
    assert (other["local_tokens"] == stored["local_tokens"]).mean() < min(least, 0.99)
    for row in np.asarray(answer["local_tokens"]):
        ends = np.flatnonzero(row == END)
        assert not len(ends) or (row[ends[0] + 1 :] == PAD).all()


def test_any_batch_gives_the_same_answers_in_the_same_order(runtime: Runtime) -> None:
    stored = runtime.bundle.selftest()["crops"]
    most = runtime.max_batch
    many = np.concatenate([np.roll(stored, shift, axis=2) for shift in range(2 * most // len(stored) + 2)])
    singles = np.concatenate([runtime.predict(many[[i]]).log_odds for i in range(2 * most + 3)])
    assert len(np.unique(singles.round(4), axis=0)) > most  # pictures that all look alike would prove nothing
    allowed = 20 * TOLERANCE[runtime.executor.precision]
    for count in sorted({1, 2, 3, most - 1, most, most + 1, 2 * most + 3}):
        found = runtime.predict(many[:count])
        assert len(found) == count
        assert np.allclose(found.log_odds, singles[:count], atol=allowed)


def test_sentences_of_chosen_faces_are_those_of_each_face_alone(runtime: Runtime) -> None:
    stored = runtime.bundle.selftest()
    most = runtime.max_batch
    many = np.concatenate([stored["crops"]] * (most // len(stored["crops"]) + 2))[: most + 3]
    prediction = runtime.predict(many)  # more than one batch
    faces = [most + 2, 1, 0, most]
    states = prediction.states[faces]
    units = np.zeros_like(states)
    units[0, 1] = units[2, :3] = True  # the second and the last face are described as a whole only
    together = runtime.explain(prediction, faces, states, units)
    assert [sorted(one.why) for one in together] == [
        [runtime.units[1]], [], sorted(runtime.units[:3]), []
    ]  # fmt: skip
    if runtime.executor.precision == "fp32":
        for i, face in enumerate(faces):
            alone = runtime.explain(runtime.predict(many[[face]]), [0], states[[i]], units[[i]])[0]
            assert alone == together[i]
    assert len({one.text for one in together}) > 1 or runtime.bundle.manifest.name == "tiny"


def test_few_and_many_rows_give_one_face_the_same_sentences(runtime: Runtime) -> None:
    """OpenVINO has a graph of fixed shape for few rows; a row's sentence must not depend on the others."""
    stored = runtime.bundle.selftest()
    units = len(runtime.units)
    memory = runtime.executor.take(runtime.predict(stored["crops"]).memory, [1])
    rows = np.array([[0, i % units] for i in range(3 * units)])
    many = runtime.executor.caption(memory, stored["active"][[1]], rows)
    assert len(many["local_tokens"]) == 3 * units
    for count in (1, 2, units):
        few = runtime.executor.caption(memory, stored["active"][[1]], rows[:count])
        assert len(few["local_tokens"]) == count
        assert (few["local_tokens"] == many["local_tokens"][:count]).mean() >= EQUAL_TOKENS[runtime.executor.precision]
        assert (few["global_tokens"] == many["global_tokens"]).mean() >= EQUAL_TOKENS[runtime.executor.precision]


def test_results_outlive_later_calls(runtime: Runtime) -> None:
    stored = runtime.bundle.selftest()["crops"]
    first = runtime.predict(stored[:2])
    kept = first.log_odds.copy(), first.probabilities.copy()
    states = first.states
    said = runtime.explain(first, [0, 1], states, np.ones_like(states))
    for count in (1, 2, 3):
        runtime.predict(255 - stored[:count])
    assert np.array_equal(first.log_odds, kept[0])
    assert np.array_equal(first.probabilities, kept[1])
    assert runtime.explain(first, [0, 1], states, np.ones_like(states)) == said


@pytest.mark.parametrize(
    "wrong",
    [
        lambda good: good.astype(np.float32),
        lambda good: good[0],
        lambda good: good[:0],
        lambda good: good[..., :2],
        lambda good: good[:, :-1],
        lambda good: good.transpose(0, 3, 1, 2),
    ],
    ids=["type", "no batch", "empty", "two colours", "side", "planes first"],
)
def test_wrong_crops_are_refused_with_the_shape_that_is_expected(
    runtime: Runtime, wrong: Callable[[np.ndarray], np.ndarray]
) -> None:
    good = runtime.bundle.selftest()["crops"]
    with pytest.raises(UserError, match=rf"uint8 crops of shape \(N, {runtime.side}"):
        runtime.predict(wrong(good))
    strided = np.repeat(good, 2, axis=2)[:, :, ::2]  # not contiguous, but right
    assert np.allclose(runtime.predict(strided).log_odds, runtime.predict(good).log_odds, atol=1e-3)


def test_a_thousand_calls_need_no_more_memory(runtime: Runtime) -> None:
    stored = runtime.bundle.selftest()["crops"][:3]
    prediction = runtime.predict(stored)
    states = prediction.states
    calls = 1000

    def work(times: int) -> None:
        for i in range(times):
            prediction = runtime.predict(stored[: 1 + i % 3])
            if i % 20 == 0:
                runtime.explain(prediction, [0], states[:1], np.ones_like(states[:1]))

    process = psutil.Process()
    work(calls // 5)
    gc.collect()
    before = process.memory_info().rss
    work(calls)
    gc.collect()
    grown = process.memory_info().rss - before
    assert grown < 6e6  # a leaked output of one call per call would be 10 MB and more


def test_closing_is_safe_and_final(runtime: Runtime) -> None:
    crops = runtime.bundle.selftest()["crops"]
    before = runtime.predict(crops)
    kept = before.log_odds.copy()
    runtime.close()
    runtime.close()
    assert np.array_equal(before.log_odds, kept)  # results outlive the runtime
    for use in (lambda: runtime.predict(crops), lambda: runtime.explain(before, [0], before.states, before.states)):
        with pytest.raises(UserError, match="This runtime is closed"):
            use()


def test_closing_is_safe_immediately(bundle_of: Callable[[str], Bundle]) -> None:
    """OpenVINO is then still compiling the captions on another thread."""
    for name in ("openvino", "onnxruntime"):
        open_runtime(bundle_of("small"), name, prove=False).close()


def test_a_bundle_without_sentences_runs_and_explains_nothing(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "plain", captions=False)
    for name in ("openvino", "onnxruntime"):
        with open_runtime(bundle, name) as opened:
            made = opened.predict(bundle.selftest()["crops"])
            (said,) = opened.explain(made, [0], made.states[:1], made.states[:1])
            assert (said.text, said.why) == ("", {})


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_an_encoder_without_captions_need_not_give_the_memory(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name)
    bundle = small_bundle(tmp_path / "plain", captions=False)
    model = encoder()
    del model.graph.output[1:]
    onnx.save(model, bundle.folder / "encoder.onnx")
    write_manifest(bundle.folder, bundle.manifest)
    open_runtime(open_bundle(bundle.folder), name).close()


# ---- what must be refused


def test_a_change_of_any_file_is_refused(tmp_path: Path) -> None:
    bundle = with_int8(small_bundle(tmp_path / "bundle"))
    assert set(bundle.manifest.files) == {"encoder.onnx", "encoder.int8.onnx", "caption.onnx", "selftest.npz"}
    for name in bundle.manifest.files:
        path = bundle.folder / name
        whole = path.read_bytes()
        body = bytearray(whole)
        body[len(body) // 2] ^= 1
        path.write_bytes(bytes(body))
        with pytest.raises(UserError, match=rf"{re.escape(name)} has sha256"):
            open_bundle(bundle.folder)
        path.write_bytes(whole)
    assert open_bundle(bundle.folder).checksum == bundle.checksum


def test_crops_of_another_alignment_are_refused_and_a_manifest_without_one_opens(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    eyes_apart = ((0.3, 0.36), (0.7, 0.36), *bundle.manifest.template[2:])
    for name, value in (("template", eyes_apart), ("template", eyes_apart[:2]), ("template_weights", (1.0,) * 5)):
        write_manifest(bundle.folder, replace(bundle.manifest, **{name: value}))  # type: ignore[arg-type]
        with pytest.raises(UserError, match=rf"crops with the {name} .* this version aligns .* export it again"):
            open_bundle(bundle.folder)
    write_manifest(bundle.folder, bundle.manifest)
    path = bundle.folder / "manifest.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    del table["template"], table["template_weights"]
    path.write_text(json.dumps(table), encoding="utf-8")
    assert open_bundle(bundle.folder).manifest == bundle.manifest


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_another_network_with_a_valid_checksum_fails_the_selftest(tmp_path: Path, name: str) -> None:
    if name == "torch":
        pytest.importorskip("torch")
        from tiny_bundle import tiny_weights

        bundle, other = tiny_weights(tmp_path / "bundle"), tiny_weights(tmp_path / "other", seed=2)
        shutil.copy(other.folder / "weights.safetensors", bundle.folder)
    else:
        bundle = small_bundle(tmp_path / "bundle")
        onnx.save(encoder(seed=9), bundle.folder / "encoder.onnx")
    write_manifest(bundle.folder, bundle.manifest)
    with pytest.raises(UserError, match=r"Self-test of .* failed"):
        open_runtime(open_bundle(bundle.folder), name)


def test_a_network_that_ignores_its_input_fails_the_selftest(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    model = encoder()
    blind = onnx.helper.make_node("Mul", ["pixels", "nothing"], ["dark"], name="blind")
    model.graph.node.insert(1, blind)
    model.graph.node[2].input[0] = "dark"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    onnx.save(model, bundle.folder / "encoder.onnx")
    stored = bundle.selftest()
    from small_bundle import reference

    stored["log_odds"] = reference(model, None, stored["crops"])["log_odds"]  # passes the first check
    np.savez(bundle.folder / "selftest.npz", **stored)  # type: ignore[arg-type]
    write_manifest(bundle.folder, bundle.manifest)
    with pytest.raises(UserError, match="another image gives the same answer"):
        open_runtime(open_bundle(bundle.folder), "openvino")


def test_requests_that_cannot_be_met_are_refused_with_a_remedy(bundle_of: Callable[[str], Bundle]) -> None:
    bundle = bundle_of("small")
    requests: list[tuple[dict[str, Any], str]] = [
        ({"runtime": "openvno"}, "Did you mean 'openvino'"),
        ({"runtime": "openvino", "precision": "fp12"}, "Unknown precision"),
        ({"runtime": "openvino", "precision": "int8"}, "vlfau-calibrate int8"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "written in fp32"),
        ({"runtime": "openvino", "device": "NPU9"}, "no device 'NPU9'"),
        ({"runtime": "onnxruntime", "device": "TPU"}, "no device 'TPU'"),
        ({"runtime": "openvino", "threads": 0}, "at least 1 thread"),
    ]
    for arguments, message in requests:
        with pytest.raises(UserError, match=message):
            open_runtime(bundle, **arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(gpu_count() > 0, reason="this machine has a GPU")
def test_gpu_runtimes_report_that_there_is_no_gpu(bundle_of: Callable[[str], Bundle]) -> None:
    bundle = bundle_of("small")
    for arguments, message in [
        ({"runtime": "tensorrt"}, "needs an NVIDIA GPU"),
        ({"runtime": "torch-tensorrt"}, "torch-tensorrt cannot be used"),
        ({"runtime": "onnxruntime", "device": "cuda:0"}, "has no CUDAExecutionProvider"),
    ]:
        with pytest.raises(UserError, match=message):
            open_runtime(bundle, **arguments)  # type: ignore[arg-type]


def test_the_cpu_runtimes_import_no_torch(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from vlfau.models.bundle import open_bundle\nfrom vlfau.models.runtimes import open_runtime\n"
        f"bundle = open_bundle({str(bundle.folder)!r})\n"
        "for name in ('openvino', 'onnxruntime', 'auto'): open_runtime(bundle, name).close()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# ---- caches and the choice


def test_compiled_graphs_are_kept_per_bundle(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    stored = bundle.selftest()
    with open_runtime(bundle, "openvino") as opened:
        memory = opened.predict(stored["crops"]).memory
        opened.executor.caption(memory, stored["active"], np.array([[0, 0]]))  # closing sooner stops the compilation
    folder = tmp_path / "cache" / "openvino" / bundle.checksum
    files = {path.name for path in folder.iterdir()}
    assert len(files) == 3  # encoder, captions of one face, captions of any number
    open_runtime(bundle, "openvino").close()
    assert {path.name for path in folder.iterdir()} == files
    other = small_bundle(tmp_path / "other", seed=5)
    assert other.checksum != bundle.checksum


def test_a_damaged_compiled_graph_is_compiled_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = small_bundle(tmp_path / "bundle", captions=False)
    open_runtime(bundle, "openvino", precision="fp32").close()
    (compiled,) = (tmp_path / "cache" / "openvino" / bundle.checksum).iterdir()
    body = bytearray(compiled.read_bytes())
    (weights,) = (w for w in encoder().graph.initializer if w.name == "w5")
    place = body.index(weights.raw_data[:64])
    body[place : place + 64] = bytes(byte ^ 0x55 for byte in body[place : place + 64])
    compiled.write_bytes(body)
    for precision in ("fp32", "fp32"):
        with open_runtime(bundle, "openvino", precision=precision) as opened:
            assert opened.prove() < 1e-3
        assert compiled.read_bytes() != body
    assert capsys.readouterr().err == ""


def test_no_cache_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFAU_CACHE", "")
    open_runtime(small_bundle(tmp_path / "bundle"), "openvino").close()
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("VLFAU_CACHE", str(blocked / "below"))
    open_runtime(small_bundle(tmp_path / "bundle"), "openvino").close()


def outcome_of(
    seconds: dict[str, float], failed: dict[str, str] | None = None, disturbed: bool = False
) -> choosing.TrialOutcome:
    """With one percent of noise, or with rounds three times longer than the best."""
    shape = np.array([1.0, 1.01, 1.0, 1.02, 1.0]) if not disturbed else np.array([1.0, 3.0, 3.1, 2.9, 3.0])
    took = {name: value * shape for name, value in seconds.items()}
    return choosing.TrialOutcome(Rounds(took), dict.fromkeys(seconds, "fp32"), failed or {})


@pytest.mark.skipif(find_spec("onnxruntime") is None or gpu_count() > 0, reason="other candidates here")
def test_auto_takes_the_fastest_with_reasons_and_remembers_it(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    tried: list[str] = []
    seconds = {"openvino": 0.004, "onnxruntime": 0.002}

    def trial(names: Sequence[str]) -> choosing.TrialOutcome:
        tried.extend(names)
        return outcome_of(seconds)

    said: list[str] = []
    first = choosing.choose(bundle, trial=trial, say=said.append)
    assert first.runtime == "onnxruntime"
    assert first.reasons[0] == "runtime onnxruntime fp32 takes 2.00 ms a face"
    assert first.reasons[1] == "  not openvino fp32 takes 4.00 ms a face"
    for name in ("tensorrt", "torch-tensorrt", "torch"):
        assert any(f"not {name}: " in reason for reason in first.reasons)  # a reason against each of the others
    seconds["onnxruntime"] = 1.0
    assert choosing.choose(bundle, trial=trial, say=said.append).runtime == "onnxruntime"
    assert sorted(tried) == ["onnxruntime", "openvino"]  # the second time nothing was measured
    assert "measured earlier" in said[1]
    assert choosing.choose(bundle, threads=2, trial=trial, say=said.append).runtime == "openvino"  # another question
    path = tmp_path / "cache" / "choices.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    entries: list[Any] = [
        None,
        5,
        [],
        {},
        {"runtime": "no"},
        {"reasons": 7},
        {"sure": "x"},
        {"precision": "x"},
        {"device": []},
    ]
    one = next(iter(whole.values()))
    damaged = [dict.fromkeys(whole, {**one, **e} if isinstance(e, dict) and e else e) for e in entries]
    for text in ("{broken", "null", "[1]", "[[1, 2]]", "[" * 100_000, "\x00", *map(json.dumps, damaged)):
        path.write_text(text, encoding="utf-8")
        tried.clear()
        assert choosing.choose(bundle, trial=trial, say=said.append).runtime == "openvino"
        assert tried, text
        assert json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.skipif(find_spec("onnxruntime") is None or gpu_count() > 0, reason="other candidates here")
def test_auto_keeps_the_default_within_the_noise_and_soon_repeats_a_trial_on_a_busy_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    near = choosing.choose(bundle, trial=lambda _: outcome_of({"openvino": 0.0021, "onnxruntime": 0.0020}), say=_ignore)
    assert near.runtime == "openvino"
    assert near.reasons[1].endswith("2.00 ms a face, not clearly faster than the default openvino")
    said: list[str] = []
    seconds = {"openvino": 0.004, "onnxruntime": 0.002}
    now = time.time()
    for passed_s, expected in ((0.0, "again in an hour"), (1800.0, "measured earlier"), (3601.0, "again in an hour")):
        monkeypatch.setattr(time, "time", lambda at=now + passed_s: at)
        busy = choosing.choose(bundle, threads=2, trial=lambda _: outcome_of(seconds, disturbed=True), say=said.append)
        assert busy.runtime == "onnxruntime"
        assert expected in said[-1]


def test_auto_skips_a_runtime_that_fails(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    if gpu_count() == 0:
        outcome = outcome_of({"onnxruntime": 0.1}, {"openvino": "its self-test failed"})
        choice = choosing.choose(bundle, trial=lambda _: outcome, say=_ignore)
        assert choice.runtime == "onnxruntime"
        assert any("not openvino: its self-test failed" in reason for reason in choice.reasons)
    with pytest.raises(UserError, match="No runtime passed"):
        choosing.choose(bundle, threads=3, trial=lambda _: outcome_of({}, {"openvino": "broken"}), say=_ignore)


def _ignore(_: str) -> None:
    """The lines about the choice are not tested."""


def test_a_race_is_decided_by_the_runners_and_not_by_other_load() -> None:
    """With a simulated clock: 2 and 3 ms, and other load that takes 5 ms now and then, mostly from the faster one."""
    now = [0.0]
    rng = np.random.default_rng(0)

    def runner(own: float, share: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += own + (0.005 if rng.random() < share else 0.0)

        return run

    def outcome(quick: float, slow: float) -> Rounds:
        return race({"quick": runner(0.002, quick), "slow": runner(0.003, slow)}, 0.5, lambda: now[0])

    for shares in ((0.0, 0.0), (0.4, 0.2)):
        found = outcome(*shares)
        assert found.seconds("quick") == pytest.approx(0.002)
        assert found.seconds("slow") == pytest.approx(0.003)
        assert found.clearly_faster("quick", "slow")
        assert not found.clearly_faster("slow", "quick")
    assert not outcome(0.0, 0.0).disturbed
    wild = outcome(0.97, 0.97)
    assert wild.disturbed
    assert not wild.clearly_faster("slow", "quick")
    alike = race({"a": runner(0.002, 0.0), "b": runner(0.0019, 0.0)}, 0.1, lambda: now[0])
    assert not alike.clearly_faster("b", "a")  # five percent are not enough
    assert len(alike.took["a"]) >= 12


def test_the_engine_can_open_auto_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    with open_runtime(bundle) as opened:
        assert opened.prove() < 1e-3
    said = capsys.readouterr().err
    assert "ms a face" in said or "only one that can run" in said


# ---- int8 beside fp32


def test_int8_is_taken_where_it_was_calibrated(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    made = with_int8(bundle)
    exact = bundle.selftest()["log_odds"]
    for name, asked in (("openvino", None), ("onnxruntime", "int8")):  # the default only if it is faster
        with open_runtime(made, name, precision=asked) as opened, open_runtime(made, name, precision="fp32") as plain:
            assert (opened.executor.precision, plain.executor.precision) == ("int8", "fp32")
            found = opened.predict(bundle.selftest()["crops"]).log_odds
            assert 1e-3 < np.abs(found - exact).max() < 0.8
            assert np.abs(plain.predict(bundle.selftest()["crops"]).log_odds - exact).max() < 1e-3


def test_a_default_precision_that_fails_falls_back_to_that_of_the_bundle_and_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_int8(small_bundle(tmp_path / "bundle"))
    onnx.save(encoder(seed=9), made.folder / "encoder.int8.onnx")  # another network with a valid checksum
    write_manifest(made.folder, made.manifest)
    wrong = open_bundle(made.folder)
    with open_runtime(wrong, "openvino") as opened:
        assert opened.executor.precision == "fp32"
    assert "Continuing in fp32" in capsys.readouterr().err
    with pytest.raises(UserError, match="Self-test"):
        open_runtime(wrong, "openvino", precision="int8")
    precisions: list[str | None] = []
    monkeypatch.setattr(runtimes, "open_executor", partial(_noting, precisions, runtimes.open_executor))
    open_runtime(wrong, "openvino").close()  # the next start does not try it again, and says nothing
    assert precisions == ["fp32"]
    assert capsys.readouterr().err == ""
    (tmp_path / "cache" / "failed-precisions.json").write_text("null", encoding="utf-8")
    open_runtime(wrong, "openvino").close()
    assert precisions == ["fp32", None, None, "fp32"]  # int8 as it was compiled before, then compiled again
    assert "Continuing in fp32" in capsys.readouterr().err


def _noting(precisions: list[str | None], open_executor: Callable[..., Any], *arguments: Any) -> Any:
    precisions.append(arguments[3])
    return open_executor(*arguments)


class Answering(Executor):
    """Its log-odds are what a function makes of the crops."""

    name, device, precision, max_batch = "stand-in", "CPU", "fp32", 16

    def __init__(self, answer: Callable[[NDArray[np.uint8]], Any]) -> None:
        self._answer = answer

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        return {"log_odds": self._answer(crops)}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        raise AssertionError("the self-test needs no sentences")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda crops: np.full((len(crops), 5), np.nan, np.float32), "log-odds differ by nan"),
        (lambda crops: np.full((len(crops), 5), np.inf, np.float32), "log-odds differ by inf"),
        (lambda crops: np.zeros((len(crops), 1), np.float32), r"log-odds have the shape \(3, 1\), expected \(3, 5\)"),
        (lambda crops: np.zeros((len(crops), 4), np.float32), "stopped with ValueError"),
        (lambda crops: json.loads("{}")["log_odds"], "stopped with KeyError: 'log_odds'"),
    ],
)
def test_a_runtime_that_answers_nonsense_fails_the_selftest(
    tmp_path: Path, answer: Callable[[NDArray[np.uint8]], Any], message: str
) -> None:
    with pytest.raises(SelfTestFailed, match=message):
        Runtime(small_bundle(tmp_path / "bundle", captions=False), Answering(answer)).prove()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"KeyError: 'units'"),
        ({"units": None}, "TypeError"),
        ({"units": [], "stem_options": "x"}, "ValueError"),
        ({"units": UNITS, "hidden": 7}, "RuntimeError"),
    ],
)
def test_a_network_that_does_not_fit_its_weights_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    pytest.importorskip("torch")
    from tiny_bundle import tiny_weights

    bundle = tiny_weights(tmp_path / "bundle")
    network = {key: value for key, value in bundle.manifest.network.items() if key != "units"} | change
    write_manifest(bundle.folder, replace(bundle.manifest, network=network))
    with pytest.raises(UserError, match=rf"cannot be built or does not fit the weights \({message}"):
        open_runtime(open_bundle(bundle.folder), "torch")


def speak(bundle: Bundle, name: str) -> None:
    with open_runtime(bundle, name) as opened:
        memory = opened.predict(bundle.selftest()["crops"]).memory
        opened.executor.caption(memory, bundle.selftest()["active"], np.array([[0, 0]]))


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("damage", ["exchanged", "nonsense", "empty", "cut"])
def test_graphs_that_are_none_or_are_exchanged_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    pytest.importorskip(name)
    bundle = small_bundle(tmp_path / "bundle")
    paths = [bundle.folder / file for file in ("encoder.onnx", "caption.onnx")]
    whole = [path.read_bytes() for path in paths]
    bodies = {"exchanged": whole[::-1], "nonsense": [b"nonsense"] * 2, "empty": [b""] * 2}
    for broken in ([0, 1], [1]):
        for index in broken:
            paths[index].write_bytes(bodies.get(damage, [body[: len(body) // 2] for body in whole])[index])
        write_manifest(bundle.folder, bundle.manifest)
        with pytest.raises(UserError, match=r"^[^\n]{20,400}\.$"):
            speak(open_bundle(bundle.folder), name)
        for path, body in zip(paths, whole):
            path.write_bytes(body)


# ---- batch buckets and captured steps, as far as a CPU goes


def test_buckets_pad_cut_and_keep() -> None:
    torch = pytest.importorskip("torch")
    from vlfau.models.runtimes.cuda_buckets import Buckets, bucket

    assert [bucket(count, (1, 2, 4, 8)) for count in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]
    seen: list[int] = []

    def run(given: dict[str, Any]) -> dict[str, Any]:
        x = given["x"].float()
        seen.append(len(x))
        return {"sum": x.sum(1), "rows": x.repeat_interleave(3, 0)}

    buckets = Buckets(run, lambda size: {"x": ((size, 5), torch.uint8)}, torch.device("cpu"), sizes=(1, 2, 4, 8))
    rng = np.random.default_rng(0)
    kept_before = None
    for count in (3, 1, 8, 5):
        x = rng.integers(0, 255, (count, 5)).astype(np.uint8)
        host, kept = buckets({"x": x, "unused": x}, count, ["sum"], ["rows"])
        assert np.array_equal(host["sum"], x.sum(1))
        assert np.array_equal(kept["rows"].numpy(), x.repeat(3, 0))  # several rows per face are cut by their share
        if kept_before is not None:
            assert np.array_equal(kept_before[0].numpy(), kept_before[1])
        kept_before = kept["rows"], x.repeat(3, 0)
    assert seen == [4, 1, 8, 8]


def test_chunked_steps_give_the_tokens_of_the_whole_loop(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tiny_bundle import tiny_weights

    from vlfau.models.runtimes.on_torch import load_network
    from vlfau.models.runtimes.speaking import CHUNK, ChunkedDecoder

    bundle = tiny_weights(tmp_path / "bundle")
    decoder: Any = load_network(bundle, torch.device("cpu"), torch.float32).describe_unit
    torch.manual_seed(0)
    places = torch.randn(9, 16, 32)
    told = torch.randn(9, 48)
    steps: list[int] = []
    whole = decoder.step

    def counted(*given: Any) -> tuple[Any, ...]:
        steps.append(1)
        return tuple(whole(*given))

    with torch.inference_mode():
        expected = decoder.speak(places, told)[0].numpy()
        decoder.step = counted
        found = ChunkedDecoder(decoder, graphs=False)(places, told)
        assert np.array_equal(found, expected)
        assert len(steps) == -(-decoder.words // CHUNK) * CHUNK
        decoder.output.bias[END] += 100  # all rows end at the first word: there is no second chunk
        steps.clear()
        short = ChunkedDecoder(decoder, graphs=False)(places, told)
    assert len(steps) == CHUNK
    assert (short[:, 0] == END).all()
    assert not short[:, 1:].any()


def test_a_network_whose_decoders_have_no_steps_speaks_by_its_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tiny_bundle import tiny_weights

    from vlfau.models.networks.vlfau import VLFAU

    monkeypatch.setattr(VLFAU, "speakers", lambda *_: {})
    bundle = tiny_weights(tmp_path / "bundle")
    stored = bundle.selftest()
    with open_runtime(bundle, "torch", device="cpu") as opened:
        memory = opened.predict(stored["crops"]).memory
        rows = np.argwhere(np.ones_like(stored["active"])).astype(np.int64)
        answer = opened.executor.caption(memory, stored["active"], rows)
    for name in ("local_tokens", "global_tokens"):
        assert np.array_equal(answer[name], stored[name])


@pytest.mark.slow
def test_torch_compile_is_optional_and_changes_no_answer(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    from tiny_bundle import tiny_weights

    from vlfau.models.runtimes.torch_eager import Torch

    bundle = tiny_weights(tmp_path / "bundle")
    with Runtime(bundle, Torch(bundle, device="cpu", compiled=True)) as opened:
        assert opened.prove() < 1e-3
        stored = bundle.selftest()
        assert np.abs(opened.predict(stored["crops"][:3]).log_odds - stored["log_odds"][:3]).max() < 1e-3


def test_the_stand_in_has_the_size_the_tests_assume(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    assert bundle.selftest()["crops"].shape == (3, SIDE, SIDE, 3)
    tokens = bundle.selftest()["local_tokens"]
    assert len({int((row == PAD).sum()) for row in tokens}) > 1  # sentences of different lengths
    shutil.rmtree(bundle.folder)
