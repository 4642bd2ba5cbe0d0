"""The bench of peers: what is installed runs, the rest has a stand-in or is listed with the reason."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from bench_modules import bench_module
from media import numbered, write_clip
from numpy.typing import NDArray

bench = bench_module("peers")
loops = bench_module("measuring.peer_loops")
sizes = bench_module("measuring.installed_size")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", [numbered(k) for k in range(20)])
    return tmp_path / "clip.mp4"


def test_a_loop_counts_frames_and_faces(loops: ModuleType, clip: Path) -> None:
    seen: list[NDArray[np.uint8]] = []

    def look(picture: NDArray[np.uint8], at_ms: int) -> int:
        seen.append(picture)
        return 2

    row = loops.loop(clip, look, began=0.0, limit_s=60)
    assert (row["frames"], row["faces"], len(seen)) == (20, 2, 20)
    assert row["peak_mb"] > 20 or not sys.platform.startswith("linux")
    assert 0 < row["p50_ms"] <= row["p95_ms"]
    assert loops.loop(clip, look, began=0.0, limit_s=-1)["frames"] == 2, "the limit ends it"


def test_the_crop_is_a_square_around_the_box(loops: ModuleType) -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[80:120, 130:170] = (255, 0, 0)  # blue, since OpenCV's pictures are BGR
    crop = loops.cut(picture, np.array([130.0, 80, 170, 120]))
    assert crop.shape == (224, 224, 3)
    assert crop[112, 112].tolist() == [0, 0, 255]  # RGB
    assert crop[:10].max() == 0
    edge = loops.cut(picture, np.array([-20.0, -20, 60, 60]))
    assert edge.shape == (224, 224, 3), "a face at the edge is a crop too"


def test_the_swin_loop_is_the_network_of_swin_base(loops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    graphau = pytest.importorskip("vlfau.models.networks.graphau")
    networks: list[Any] = []

    class Tiny(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self, units: tuple[str, ...], **options: Any) -> None:
            super().__init__()
            networks.append((units, options))

        def encode(self, crops: Any) -> Any:
            assert tuple(crops.shape[1:]) == (224, 224, 3)
            return type("Encoded", (), {"log_odds": torch.zeros(len(crops), 12)})

    import inspect

    default = inspect.signature(graphau.GraphAU.__init__).parameters["stem"].default
    assert default == "swin_base_patch4_window7_224"
    monkeypatch.setattr(graphau, "GraphAU", Tiny)
    picture = np.zeros((90, 90, 3), np.uint8)
    assert loops.swin(lambda _: [np.array([10.0, 10, 60, 60])] * 3)(picture, 0) == 3
    assert loops.swin(lambda _: [])(picture, 0) == 0
    assert (len(networks[0][0]), networks[0][1]) == (12, {})


def test_openface_is_timed_by_its_table(bench: ModuleType, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = clip.parent / "FeatureExtraction"
    program.write_text(
        f"#!{sys.executable}\nimport sys, time, cv2\na = sys.argv\nv = cv2.VideoCapture(a[2])\n"
        "n = 0\nwhile v.read()[0]: n += 1\ntime.sleep(0.3 + 0.1 * n)\n"
        "name = a[2].rpartition('/')[2].removesuffix('.mp4')\n"
        "open(f'{a[4]}/{name}.csv', 'w').write('frame, AU01_r\\n' + '1, 0.5\\n' * n)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(clip.parent), prepend=":")
    row = bench.openface(clip, 30)
    assert row["frames"] == 20
    assert row["start_s"] > 0.3
    assert 3 < row["fps"] < 20  # 10 on an idle machine
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(bench.Skipped, match="exited with 3"):
        bench.openface(clip, 30)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(bench.Skipped, match="no FeatureExtraction on the PATH"):
        bench.openface(clip, 30)


def test_a_library_that_cannot_run_is_skipped_with_the_reason(
    bench: ModuleType, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(bench.Skipped, match="no_such_module not installed"):
        bench.looped("py-feat", clip, 1, "no_such_module")
    (clip.parent / "feat.py").write_text(
        "class Detector:\n    def __init__(self, device): raise OSError('no models')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(clip.parent))
    with pytest.raises(bench.Skipped, match="no models"):
        bench.looped("py-feat", clip, 1)
    (clip.parent / "feat.py").write_text(
        "class Detector:\n    def __init__(self, device): pass\n    def detect_faces(self, p): return [[1]]\n"
        "    def detect_landmarks(self, p, f): return f\n    def detect_aus(self, p, l): return l\n"
    )
    assert bench.looped("py-feat", clip, 5)["faces"] == 1


def test_a_detector_of_insightface_runs(bench: ModuleType, clip: Path) -> None:
    from shared_files import shared

    if find_spec("insightface") is None:
        pytest.skip("insightface is not installed")
    model = shared("detectors/scrfd_500m_kps.onnx")
    row = bench.looped("insightface", clip, 5, "insightface", model=model)
    assert (row["frames"], row["faces"]) == (20, 0)
    assert row["start_s"] > 0


def test_missing_model_files_are_reported(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--only", "MediaPipe landmarker", "OpenFace", "--seconds", "0.2"]
    assert bench.main([*only, "--mediapipe-model", str(tmp_path / "none.task")]) == 2
    assert "none.task" in capsys.readouterr().err
    assert bench.main(only) == 0
    lines = capsys.readouterr().out.splitlines()
    last = json.loads(lines[-1])
    assert "--mediapipe-model FILE" in last["skipped"]["MediaPipe landmarker"]
    assert set(last["rows"]) <= {"OpenFace"}
    assert last["device"]
    assert last["commit"]


def test_installed_size_includes_dependencies(sizes: ModuleType) -> None:
    alone = sizes.needed(["vlfau-stream"])
    assert {"numpy", "openvino", "opencv-python", "av"} <= set(alone)
    assert "torch" not in alone
    assert sizes.installed_mb("numpy") > 10
    assert sizes.installed_mb("vlfau-stream") > sizes.installed_mb("numpy", "av", "openvino"), "its own files too"
    if find_spec("torch"):
        assert "torch" in sizes.needed(["vlfau-stream[train]"])
    with pytest.raises(Exception, match="no-such-distribution"):
        sizes.installed_mb("no-such-distribution")


def test_the_cascade_of_the_loop_finds_the_demo_face(loops: ModuleType) -> None:
    from vlfau.models.files import embedded

    demo = embedded() / "demo.mp4"
    if not demo.exists():
        pytest.skip("no demo clip")
    video = cv2.VideoCapture(str(demo))
    _, picture = video.read()
    video.release()
    assert len(loops.haar()(picture)) == 1
    assert len(loops.haar()(np.zeros_like(picture))) == 0
