"""The settings of the engine: sources, faces, prediction and outputs, a section each, and how they are read."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfau.models.errors import UserError, unknown
from vlfau.models.faces import CHOICES as DETECTORS
from vlfau.models.settings import add_flags, load_toml, read, setting

RUNTIMES = ("auto", "openvino", "onnxruntime", "torch", "tensorrt", "torch-tensorrt")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where pictures come from and which of them are looked at."""

    name: tuple[str, ...] = setting((), "Names of the streams, in the order of the sources; derived if left out.")
    start: float = setting(0.0, "Begin this far into a file.", metavar="SECONDS")
    duration: float | None = setting(None, "Stop after this much video time.", metavar="SECONDS")
    every: int = setting(1, "Look at every Nth frame only.", metavar="N")
    max_fps: float | None = setting(None, "Look at no more frames a second of video than this.", metavar="FPS")
    realtime: bool = setting(False, "Play files at their own pace instead of as fast as possible.")
    live: bool | None = setting(
        None, "Treat an address as live (newest frame, reconnect) or not; default: by its form."
    )
    reconnect: int | None = setting(
        None, "How often in a row to try again when a live source fails; for ever if left out.", metavar="N"
    )
    open_timeout: float = setting(
        5.0, "Seconds until opening a source counts as failed; a stop meanwhile waits no longer.", metavar="SECONDS"
    )
    read_timeout: float = setting(
        5.0, "Seconds without data until a source counts as stalled (HLS: at least 20); a stop waits no longer.",
        metavar="SECONDS",
    )  # fmt: skip
    hwaccel: str = setting("auto", "Hardware decoding.", choices=("auto", "none", "cuda"))
    decode_threads: int | None = setting(None, "Threads of each decoder; by the machine if left out.", metavar="N")
    camera_size: str | None = setting(None, "Picture size asked of a webcam.", metavar="WIDTHxHEIGHT")
    camera_fps: float | None = setting(None, "Frame rate asked of a webcam.", metavar="FPS")
    sequence: bool = setting(False, "The pictures of a folder follow each other as in a video.")
    image_fps: float = setting(25.0, "Frame rate given to a folder of pictures.", metavar="FPS")

    def __post_init__(self) -> None:
        _positive(self, "every", "open_timeout", "read_timeout", "image_fps", "duration", "max_fps", "decode_threads")
        _positive(self, "camera_fps")
        _not_negative(self, "start", "reconnect")
        if self.camera_size is not None:
            width, x, height = self.camera_size.partition("x")
            if not (x and width.isdecimal() and height.isdecimal()):
                raise UserError(f"--camera-size needs WIDTHxHEIGHT, such as 1280x720, got '{self.camera_size}'.")


@dataclass(frozen=True, slots=True)
class FaceSettings:
    """Finding and following faces."""

    detector: str = setting("auto", "Who finds new faces.", choices=DETECTORS)
    detector_model: Path | None = setting(None, "Model file or folder for insightface or yunet.", metavar="PATH")
    detector_size: int | None = setting(None, "Longer side of the picture the detector sees.", metavar="PIXELS")
    detect_every: int = setting(
        0, "Run the detector every N frames; 0: when a face is missing, and once every --scan seconds.", metavar="N"
    )
    scan: float = setting(1.0, "Seconds between looks for additional faces while all known ones hold.")
    max_faces: int = setting(32, "Follow at most this many faces per stream.", metavar="N")
    min_face: float = setting(24.0, "Ignore faces whose box is smaller.", metavar="PIXELS")
    roi: tuple[float, ...] = setting(
        (), "Only look here: x0 y0 x1 y1, as fractions of the picture up to 1, or in pixels."
    )
    memory: float = setting(5.0, "Seconds after which a face that is gone gets a new id.", metavar="SECONDS")
    min_quality: float = setting(0.2, "Below this quality a face is marked not valid and gets no action units.")

    def __post_init__(self) -> None:
        _positive(self, "scan", "max_faces", "detector_size")
        _not_negative(self, "detect_every", "min_face", "memory", "min_quality")
        if self.roi and (len(self.roi) != 4 or self.roi[0] >= self.roi[2] or self.roi[1] >= self.roi[3]):
            raise UserError(f"--roi needs four numbers x0 y0 x1 y1 with x0 < x1 and y0 < y1, got {list(self.roi)}.")


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """From a face to action units and sentences."""

    model: str = setting("embedded", "Bundle: a folder written by vlfau-export, or 'embedded'.", metavar="BUNDLE")
    runtime: str = setting("auto", "What executes the network.", choices=RUNTIMES)
    device: str | None = setting(None, "Device of the runtime, such as cpu or cuda:0; by the runtime if left out.")
    precision: str = setting(
        "auto", "Number format of the network.", choices=("auto", "fp32", "bf16", "fp16", "int8", "fp8")
    )
    threads: int | None = setting(None, "Threads of a CPU runtime; by the runtime if left out.", metavar="N")
    explain: str = setting(
        "change", "When sentences are made: change, every, never, or interval:SECONDS.", metavar="WHEN"
    )
    hysteresis: float = setting(
        0.1, "A unit that is on goes off only this share of its threshold below it.", metavar="SHARE"
    )
    smooth: float = setting(
        0.0, "Time constant of smoothing; delays what is reported by about as much.", metavar="SECONDS"
    )
    baseline: float | None = setting(
        None, "Learn each face at rest for this long and report relative to it; 0: off; default: the bundle's.",
        metavar="SECONDS",
    )  # fmt: skip

    def __post_init__(self) -> None:
        _positive(self, "threads")
        _not_negative(self, "hysteresis", "smooth", "baseline")
        explain_interval(self.explain)


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """Messages over ZeroMQ."""

    bind: str = setting(
        "tcp://127.0.0.1:5556", "Address to publish on: tcp://HOST:PORT, ipc://PATH, or none.", metavar="ADDRESS"
    )
    allow_public: bool = setting(False, "Bind to an address that other machines can reach.")
    encoding: str = setting("json", "Payload of the messages.", choices=("json", "msgpack"))
    wait_subscribers: int = setting(0, "Hold the input until this many subscribers have joined.", metavar="N")
    send_queue: int = setting(1000, "Messages kept for a slow subscriber before it loses some.", metavar="MESSAGES")
    curve_secret: Path | None = setting(
        None, "Secret key file of vlfau-keys: encrypt, and let only holders of the public key in.", metavar="FILE"
    )
    allow: Path | None = setting(
        None, "Folder of public key files (or one file): only these subscribers are let in.", metavar="PATH"
    )
    why: str = setting("active", "Units that get their own sentence.", choices=("active", "all"))


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Files written while the engine runs, any number at once."""

    csv: Path | None = setting(None, "Table with OpenFace's column names.", metavar="FILE")
    jsonl: Path | None = setting(None, "The messages of au/, one a line.", metavar="FILE")
    parquet: Path | None = setting(None, "The columns of --csv as Parquet (needs pyarrow).", metavar="FILE")
    render: Path | None = setting(None, "Video with boxes, unit bars and the sentence drawn in.", metavar="FILE")
    subtitles: Path | None = setting(None, "The sentences as captions, .vtt or .srt.", metavar="FILE")
    overwrite: bool = setting(True, "Replace output files that exist; with --no-overwrite they are an error.")


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """For the person beside the machine."""

    quiet: bool = setting(False, "Print nothing but errors.")
    show: bool = setting(False, "Open a preview window.")
    demo: bool = setting(False, "Look at the clip inside the package, and print what it shows and what is seen.")
    metrics: str | None = setting(
        None, "Serve Prometheus metrics at [HOST]:PORT; HOST is 127.0.0.1 if left out.", metavar="ADDRESS"
    )


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """The three parts together, as `open_sinks` takes them."""

    publish: PublishSettings = PublishSettings()
    files: FileSettings = FileSettings()
    screen: ScreenSettings = ScreenSettings()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    sources: tuple[str, ...] = ()
    source: SourceSettings = field(default_factory=SourceSettings)
    faces: FaceSettings = field(default_factory=FaceSettings)
    predict: PredictSettings = field(default_factory=PredictSettings)
    output: OutputSettings = field(default_factory=OutputSettings)


# section of the TOML file and title of the flag group -> its settings
SECTIONS: dict[str, type[Any]] = {
    "source": SourceSettings,
    "faces": FaceSettings,
    "predict": PredictSettings,
    "publish": PublishSettings,
    "files": FileSettings,
    "screen": ScreenSettings,
}


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    for title, part in SECTIONS.items():
        add_flags(parser, part, title=title)


def read_engine(sources: tuple[str, ...], config: Path | None, flags: argparse.Namespace) -> EngineSettings:
    """Defaults, then the TOML file (its `sources` only where none are given), then flags."""
    table = load_toml(config) if config is not None else {}
    for key in table:
        if key not in (*SECTIONS, "sources"):
            raise unknown(f"section in {config}", key, (*SECTIONS, "sources"))
    for key, value in table.items():
        if isinstance(value, dict) == (key == "sources"):
            raise UserError(f"'{key}' in {config} needs {'a list of sources' if key == 'sources' else 'a section'}.")
    parts = {name: read(part, table.get(name), flags) for name, part in SECTIONS.items()}
    return _engine(sources or tuple(str(source) for source in table.get("sources", ())), parts)


def for_python(sources: tuple[str, ...], values: Mapping[str, Any]) -> EngineSettings:
    """Keyword arguments of `open_engine`, sorted into their parts by name. Nothing is published unless asked."""
    left = {"bind": "none", "quiet": True} | dict(values)
    parts: dict[str, Any] = {}
    for name, part in SECTIONS.items():
        own = {key: left.pop(key) for key in _names(part) if key in left}
        parts[name] = part(**{key: tuple(v) if isinstance(v, list) else v for key, v in own.items()})
    if left:
        raise unknown("setting", next(iter(left)), [name for part in SECTIONS.values() for name in _names(part)])
    return _engine(sources, parts)


def _names(part: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]


def _engine(sources: tuple[str, ...], parts: Mapping[str, Any]) -> EngineSettings:
    output = OutputSettings(parts["publish"], parts["files"], parts["screen"])
    sources = _with_demo(sources, output.screen)
    return EngineSettings(sources, parts["source"], parts["faces"], parts["predict"], output)


def _with_demo(sources: tuple[str, ...], screen: ScreenSettings) -> tuple[str, ...]:
    if not screen.demo:
        return sources
    if sources:
        raise UserError(f"--demo brings its own source, but '{sources[0]}' was given too. Leave one of them out.")
    from vlfau.models.bundle import demo_clip

    return (str(demo_clip()),)


def explain_interval(explain: str) -> float | None:
    """The seconds of `interval:SECONDS`, None for the other choices."""
    kind, colon, seconds = explain.partition(":")
    if kind == "interval":
        try:
            if colon and float(seconds) > 0:
                return float(seconds)
        except ValueError:
            pass
        raise UserError(f"--explain interval needs seconds above 0, such as interval:2, got '{explain}'.")
    if explain not in ("change", "every", "never"):
        raise unknown("choice for --explain", explain, ("change", "every", "never", "interval:SECONDS"))
    return None


def _positive(part: Any, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} needs a number above 0, got {value}.")


def _not_negative(part: Any, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) is not None and value < 0:
            raise UserError(f"--{name.replace('_', '-')} needs a number of at least 0, got {value}.")
