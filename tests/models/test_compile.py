"""`vlfau-compile` and the building of TensorRT engines, which RTX does without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from shared_files import ROOT
from small_bundle import captioner, encoder, small_bundle

from vlfau.models.bundle import open_bundle, write_manifest
from vlfau.models.compilation.agreement import agreement
from vlfau.models.compilation.command import main
from vlfau.models.errors import UserError
from vlfau.models.runtimes import open_runtime, tensorrt, tensorrt_engines
from vlfau.models.runtimes.rewriting import in_half


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFAU_CACHE", str(tmp_path / "cache"))


def test_it_verifies_times_and_ends_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    assert main([str(bundle.folder), "--runtime", "openvino", "--precision", "fp32", "--batch", "3,1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = json.loads(lines[-1])
    assert (facts["runtime"], facts["precision"], facts["equal_tokens"]) == ("openvino", "fp32", 1.0)
    assert facts["largest_difference"] < 1e-4
    assert set(facts["ms"]) == {"1", "3"}
    assert sum(line.startswith("| AU") for line in lines) == 1 + len(bundle.manifest.units)
    assert any("Negative control" in line for line in lines)


def test_agreement_refuses_another_network(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    onnx.save(encoder(seed=4), bundle.folder / "encoder.onnx")
    write_manifest(bundle.folder, bundle.manifest)
    changed = open_bundle(bundle.folder)
    with open_runtime(changed, "openvino", prove=False) as runtime, pytest.raises(UserError, match="does not agree"):
        agreement(changed, runtime)


def test_errors_are_sentences_and_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    for arguments, message in [
        ([str(tmp_path / "none")], "No bundle in"),
        ([str(bundle.folder), "--precision", "int8"], "vlfau-calibrate int8"),
        ([str(bundle.folder), "--output", str(tmp_path)], "Leave out --output"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    if tensorrt_engines.gpu_count() == 0:
        assert main([str(bundle.folder), "--runtime", "tensorrt"]) == 2
        assert "--capability" in capsys.readouterr().err


def test_engines_are_named_by_all_they_depend_on(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")

    class Module:
        __version__ = "10.15.1"

    usual = tensorrt_engines.Flavour(Module, "tensorrt")
    other = tensorrt_engines.Flavour(type("Module", (), {"__version__": "11.0.0"}), "tensorrt")
    changed = small_bundle(tmp_path / "changed", seed=3)
    names = {
        tensorrt_engines.engine_path(*asked).name
        for asked in [
            (bundle, "encoder", usual, "sm90", "fp16", 4),
            (bundle, "caption", usual, "sm90", "fp16", 4),
            (bundle, "encoder", other, "sm90", "fp16", 4),
            (bundle, "encoder", usual, "sm89", "fp16", 4),
            (bundle, "encoder", usual, "sm90", "fp32", 4),
            (bundle, "encoder", usual, "sm90", "fp16", 8),
            (changed, "encoder", usual, "sm90", "fp16", 4),
        ]
    }
    assert len(names) == 7
    assert "encoder-tensorrt-10.15.1-sm90-fp16-b4-" + bundle.checksum + ".engine" in names


def test_symbolic_axes_get_their_numbers() -> None:
    fixed = onnx.load_from_string(tensorrt_engines._fixed(captioner().SerializeToString(), {"n": 2, "R": 10}))
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in fixed.graph.input}
    assert shapes["rows"] == [10, 2]
    assert shapes["active"][0] == shapes["visual"][0] == 2
    with pytest.raises(UserError, match="unknown axes"):
        tensorrt_engines._fixed(captioner().SerializeToString(), {"n": 2})


def test_fp16_is_written_into_the_graph_and_loops_stay(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    half = onnx.load_from_string(tensorrt_engines.graph_bytes(bundle, "encoder", "fp16"))
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in half.graph.initializer)
    assert tensorrt_engines.graph_bytes(bundle, "encoder", "fp32") == bundle.path("encoder.onnx").read_bytes()
    assert tensorrt_engines.graph_bytes(bundle, "caption", "fp16") == bundle.path("caption.onnx").read_bytes()
    with pytest.raises(UserError, match="vlfau-calibrate int8"):
        tensorrt_engines.graph_bytes(bundle, "encoder", "int8")
    written = in_half(bundle, tmp_path / "half")
    assert (written.manifest.precision, set(written.manifest.files)) == ("fp16", set(bundle.manifest.files))
    assert in_half(written, tmp_path / "none") is written
    wide = onnx.load_from_string(tensorrt_engines.graph_bytes(written, "encoder", "fp32"))
    assert not any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in wide.graph.initializer)
    with pytest.raises(UserError, match="Unknown precision of a graph 'bf16'"):
        tensorrt_engines.graph_bytes(bundle, "encoder", "bf16")


def test_the_bundle_inside_the_package_is_compiled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlfau.models.compilation.run.milliseconds", lambda runtime, batch: 1.0)
    assert main(["embedded", "--runtime", "onnxruntime", "--batch", "1"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["precision"] == open_bundle("embedded").manifest.precision
    assert facts["largest_difference"] < 0.02


# ---- with TensorRT-RTX


def test_rtx_builds_encoder_and_captions_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = small_bundle(tmp_path / "bundle")
    output = tmp_path / "engines"
    arguments = [str(bundle.folder), "--runtime", "tensorrt", "--capability", "sm89", "--batch", "1,4"]
    assert main([*arguments, "--output", str(output)]) == 0
    said, shown = capsys.readouterr()
    assert "Built, not run" in said
    assert all(f"| {unit} |" in said for unit in bundle.manifest.units)  # the FP16 graph's agreement with FP32
    assert "Negative control" in said
    facts = json.loads(said.splitlines()[-1])
    assert 0 < facts["largest_difference"] < 0.05
    assert set(facts["build_s"]) == {"encoder-1", "encoder-4", "caption-1", "caption-4"}
    assert "building the engine" in shown  # to stderr
    files = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    assert len(files) == 4
    assert main([*arguments, "--output", str(output)]) == 0  # found, not built again
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == files


def test_rtx_builds_one_engine_for_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle, used = small_bundle(tmp_path / "bundle"), tensorrt_engines.flavour("tensorrt_rtx")
    made = [
        tensorrt_engines.compile_part(
            bundle, "encoder", used, "sm89", "fp16", 8, folder=tmp_path, elsewhere=True, shapes=shapes
        )
        for shapes in tensorrt.SHAPES
    ]
    assert ["-b8-" in made[0].name, "-b1to8-" in made[1].name] == [True, True]
    assert all(path.stat().st_size > 10_000 for path in made)
    with pytest.raises(UserError, match=r"cannot read this graph|could not build|unknown axes"):
        tensorrt_engines.build_engine(
            used, encoder().SerializeToString(), {}, capability="sm89"
        )  # an open batch without bounds


def test_rtx_reports_what_it_cannot_build(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    used = tensorrt_engines.flavour("tensorrt_rtx")
    graph = encoder().SerializeToString()
    with pytest.raises(UserError, match=r"cannot build for sm1\b"):
        tensorrt_engines.build_engine(used, graph, {"N": 1}, capability="sm1")
    broken = encoder()
    broken.graph.node[3].op_type = "NoSuchNode"
    with pytest.raises(UserError, match="cannot read this graph"):
        tensorrt_engines.build_engine(used, broken.SerializeToString(), {"N": 1}, capability="sm89")


def test_building_reports_its_progress() -> None:
    pytest.importorskip("tensorrt_rtx")
    said: list[str] = []
    used = tensorrt_engines.flavour("tensorrt_rtx")
    tensorrt_engines.build_engine(
        used, encoder().SerializeToString(), {"N": 1}, capability="sm89", progress=said.append
    )
    assert said


def test_a_missing_tensorrt_is_explained() -> None:
    with pytest.raises(UserError, match=r"no_such_tensorrt: .*pip install"):
        tensorrt_engines.flavour("no_such_tensorrt")


def test_rtx_builds_both_networks_in_fp16_and_says_in_how_many_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by the exporter that takes seconds for them; `python bench/engines.py` uses the usual one."""
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.setattr("vlfau.models.export.tracing.find_spec", lambda _: None)
    import engines

    assert engines.main(["--parts", "encoder"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["size"] for row in rows] == ["paper", "compact"]
    assert all(0 < row["build_s"] < 600 and row["engine_mb"] > 3 for row in rows)
    assert rows[0]["onnx_mb"] == pytest.approx(2 * 92, rel=0.1)  # two bytes for each of 92 million parameters
    assert engines.main(["--sizes", "tiny", "--capability", "sm1"]) == 2
    assert "cannot build for sm1" in capsys.readouterr().err
