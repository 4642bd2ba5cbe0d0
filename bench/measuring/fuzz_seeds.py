"""What the fuzzer damages: short clips in many containers and codecs, and a bundle of a few kilobytes.

    PYTHONPATH=bench python -m measuring.fuzz_seeds FOLDER

A separate process makes them, because encoders leave threads behind.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vlfau.models.bundle import Manifest, write_manifest

CLIPS: dict[str, tuple[str, str, Mapping[str, str]]] = {  # file -> codec, pixel format, options
    "h264.mp4": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264.mov": ("libx264", "yuv422p10le", {"preset": "veryfast", "threads": "1"}),
    "h264.mkv": ("libx264", "yuv444p", {"preset": "veryfast", "threads": "1"}),
    "h264.avi": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264.ts": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264-sound.ts": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264-sound.mp4": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264.flv": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264.3gp": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "h264.h264": ("libx264", "yuv420p", {"preset": "veryfast", "threads": "1"}),
    "hevc.mp4": ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"}),
    "hevc.mkv": ("libx265", "yuv420p10le", {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"bf": "2"}),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mjpeg.mov": ("mjpeg", "yuvj422p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {"deadline": "good", "cpu-used": "5", "threads": "1"}),
    "vp8.ogv": ("libvpx", "yuv420p", {"deadline": "good", "cpu-used": "5", "threads": "1"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9.mp4": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", "yuv420p", {"preset": "12", "svtav1-params": "lp=1"}),
    "av1.mkv": ("libsvtav1", "yuv420p", {"preset": "12", "svtav1-params": "lp=1"}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {"slicecrc": "1", "level": "3"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"bf": "2"}),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {}),
    "mpeg1.mpg": ("mpeg1video", "yuv420p", {}),
    "wmv2.wmv": ("wmv2", "yuv420p", {}),
    "wmv1.avi": ("wmv1", "yuv420p", {}),
    "flv1.flv": ("flv", "yuv420p", {}),
    "gif.gif": ("gif", "rgb8", {}),
    "png.mov": ("png", "rgba", {}),
    "apng.apng": ("apng", "rgb24", {}),
    "huffyuv.avi": ("huffyuv", "yuv422p", {}),
    "raw.mkv": ("rawvideo", "yuv420p", {}),
    "raw.nut": ("rawvideo", "gray", {}),
}
SHORT = "short.mp4"  # six frames, for those cases in which the clip is not what is damaged
FRAMES, FPS, WIDTH, HEIGHT = 24, 25, 128, 96
BUNDLE = "bundle"
UNITS, WORDS = ("AU01", "AU04", "AU06", "AU12", "AU25"), 6
SIDE = 32
VOCABULARY = ("<pad>", "<start>", "<end>", "the", "brow", "is", "raised")
TOKENS = (3, 4, 5, 6, 2, 0)
# Log-odds of a crop are linear in its mean colour, so that numpy answers as the graph does.
WEIGHTS = np.linspace(-0.03, 0.03, 3 * len(UNITS), dtype=np.float32).reshape(3, len(UNITS))


def log_odds(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(crops.astype(np.float32).mean((1, 2)) @ WEIGHTS, np.float32)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLIPS:
        write_clip(folder / name, name, FRAMES)
    write_clip(folder / SHORT, "h264.mp4", 6)
    write_bundle(folder / BUNDLE)


def write_clip(path: Path, kind: str, frames: int) -> None:
    codec, pixels, options = CLIPS[kind]
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as output:
        stream: Any = output.add_stream(codec, rate=FPS, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.gop_size = 8
        sound: Any = output.add_stream("aac", rate=16000, layout="mono") if "sound" in kind else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(_picture(index), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
            if sound is not None:
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), "fltp", "mono")
                tone.sample_rate, tone.pts, tone.time_base = 16000, 640 * index, Fraction(1, 16000)
                output.mux(sound.encode(tone))
        for one in filter(None, (stream, sound)):
            output.mux(one.encode())


def _picture(index: int) -> NDArray[np.uint8]:
    """A pattern that moves, so that there are vectors and residuals to damage."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = (x * 2 + index * 9, y * 3 - index * 5, (x + y + index * 13) // 8 * 40)
    return np.stack([plane % 256 for plane in planes], -1).astype(np.uint8)


def write_bundle(folder: Path) -> None:
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_encoder(), folder / "encoder.onnx")
    onnx.save(_captioner(), folder / "caption.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (3, 1, 1, 3), np.uint8).repeat(SIDE, 1).repeat(SIDE, 2)
    odds = log_odds(crops)
    tokens = np.array(TOKENS, np.int64)
    np.savez(
        str(folder / "selftest.npz"),
        crops=crops,
        log_odds=odds,
        active=(odds >= 0).astype(np.float32),
        local_tokens=np.tile(tokens, (odds.size, 1)),
        global_tokens=np.tile(tokens, (len(odds), 1)),
    )
    manifest = Manifest(
        name="fuzz",
        units=UNITS,
        side=SIDE,
        network={"kind": "stand-in"},
        thresholds=(0.5,) * len(UNITS),
        temperatures=(1.0,) * len(UNITS),
        tiers=("unrated",) * len(UNITS),
        vocabulary=VOCABULARY,
        words=WORDS,
        files=dict.fromkeys(("encoder.onnx", "caption.onnx", "selftest.npz"), ""),
    )
    write_manifest(folder, manifest)


def _encoder() -> Any:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "over"], ["colour"], keepdims=0),  # (N, 3)
        helper.make_node("MatMul", ["colour", "weights"], ["log_odds"]),
        helper.make_node("Unsqueeze", ["colour", "last"], ["visual"]),  # (N, 3, 1)
        helper.make_node("Unsqueeze", ["log_odds", "last"], ["spatial"]),  # (N, A, 1)
        helper.make_node("Unsqueeze", ["colour", "middle"], ["row"]),
        helper.make_node("Mul", ["row", "ones"], ["channel"]),  # (N, A, 3)
    ]
    constants = {
        "over": np.array([1, 2]),
        "weights": WEIGHTS,
        "last": np.array([2]),
        "middle": np.array([1]),
        "ones": np.ones((1, len(UNITS), 3), np.float32),
    }
    inputs = [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", SIDE, SIDE, 3])]
    return _model(nodes, inputs, ["log_odds", "visual", "channel", "spatial"], constants)


def _captioner() -> Any:
    """The same sentence for every face, whatever it is given."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceSum", ["active", "one"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mul", ["whole", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "tokens"], ["global_tokens"]),
        helper.make_node("ReduceSum", ["rows", "one"], ["places"], keepdims=1),
        helper.make_node("Mul", ["places", "zero"], ["none"]),
        helper.make_node("Add", ["none", "tokens"], ["local_tokens"]),
        helper.make_node("Identity", ["active"], ["global_log_odds"]),
    ]
    constants = {"one": np.array([1]), "zero": np.array(0), "tokens": np.array([TOKENS], np.int64)}
    count = len(UNITS)
    shapes: dict[str, Sequence[int | str]] = {
        "visual": ("n", 3, 1),
        "channel": ("n", count, 3),
        "spatial": ("n", count, 1),
        "active": ("n", count),
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    inputs.append(helper.make_tensor_value_info("rows", TensorProto.INT64, ["R", 2]))
    return _model(nodes, inputs, ["local_tokens", "global_tokens", "global_log_odds"], constants)


def _model(nodes: list[Any], inputs: list[Any], outputs: Sequence[str], constants: Mapping[str, Any]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    kinds = {name: TensorProto.INT64 if name.endswith("tokens") else TensorProto.FLOAT for name in outputs}
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    graph = helper.make_graph(nodes, "fuzz", inputs, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
