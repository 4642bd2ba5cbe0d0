"""The settings of the engine: sources, faces, prediction and outputs, a section each, and how they are read."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfau.models.errors import UserError, unknown
from vlfau.models.faces import CHOICES as DETECTORS
from vlfau.models.runtimes import PRECISIONS, RUNTIMES
from vlfau.models.settings import add_flags, load_toml, read, setting

LONGEST_S = 1e9  # 31 years; FFmpeg counts the times of a container in microseconds, in 64 bits
MOST_THREADS = 128  # of a decoder
MOST_FPS = 1000


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where frames come from and which of them are analysed."""

    name: tuple[str, ...] = setting(
        (), "Names of the streams, in the order of the sources; derived from the sources if left out."
    )
    start: float = setting(0.0, "Begin this far into a file.", metavar="SECONDS")
    duration: float | None = setting(None, "Stop after this much video time.", metavar="SECONDS")
    every: int = setting(1, "Analyse only every Nth frame.", metavar="N")
    max_fps: float | None = setting(None, "Analyse at most this many frames per second of video.", metavar="FPS")
    realtime: bool = setting(False, "Play files at their own pace instead of as fast as possible.")
    live: bool | None = setting(
        None, "Treat an address as live (newest frame, reconnect) or not; by the form of the address if left out."
    )
    reconnect: int | None = setting(
        None, "Consecutive attempts to reopen a live source that failed; unlimited if left out.", metavar="N"
    )
    open_timeout: float = setting(5.0, "Seconds until opening a source counts as failed.", metavar="SECONDS")
    read_timeout: float = setting(
        5.0, "Seconds without data until a source counts as stalled (HLS: at least 20).", metavar="SECONDS"
    )
    hwaccel: str = setting("auto", "Hardware decoding.", choices=("auto", "none", "cuda"))
    decode_threads: int | None = setting(
        None, "Threads of each decoder; chosen for the machine if left out.", metavar="N"
    )
    camera_size: str | None = setting(None, "Frame size to request from a webcam.", metavar="WIDTHxHEIGHT")
    camera_fps: float | None = setting(None, "Frame rate to request from a webcam.", metavar="FPS")
    sequence: bool = setting(False, "Treat the images of a folder as consecutive frames of a video.")
    image_fps: float = setting(25.0, "Frame rate to assume for a folder of images.", metavar="FPS")

    def __post_init__(self) -> None:
        _positive(self, "every", "open_timeout", "read_timeout", "image_fps", "duration", "max_fps", "decode_threads")
        _positive(self, "camera_fps")
        _not_negative(self, "start", "reconnect")
        _at_most(self, LONGEST_S, "start")
        _at_most(self, MOST_THREADS, "decode_threads")
        _at_most(self, MOST_FPS, "image_fps")
        if self.camera_size is not None:
            width, x, height = self.camera_size.partition("x")
            if not (x and width.isdecimal() and height.isdecimal()):
                raise UserError(f"--camera-size needs WIDTHxHEIGHT, such as 1280x720, got '{self.camera_size}'.")


@dataclass(frozen=True, slots=True)
class FaceSettings:
    """Finding and following faces."""

    detector: str = setting("auto", "Detector that finds new faces.", choices=DETECTORS)
    detector_model: Path | None = setting(None, "Model file or folder for insightface or yunet.", metavar="PATH")
    detector_size: int | None = setting(None, "Longer side of the picture that the detector gets.", metavar="PIXELS")
    detect_every: int = setting(
        0, "Run the detector every N frames; 0: while a face is missing, and once every --scan seconds.", metavar="N"
    )
    scan: float = setting(1.0, "Seconds between searches for new faces while no followed face is missing.")
    max_faces: int = setting(32, "Follow at most this many faces per stream.", metavar="N")
    min_face: float = setting(24.0, "Ignore faces whose box is smaller.", metavar="PIXELS")
    roi: tuple[float, ...] = setting(
        (), "Search only this region: x0 y0 x1 y1, as fractions of the frame up to 1, or in pixels."
    )
    memory: float = setting(5.0, "Seconds after which a lost face gets a new id when it returns.", metavar="SECONDS")
    min_quality: float = setting(0.2, "Faces of lower quality are marked as not valid and get no action units.")

    def __post_init__(self) -> None:
        _positive(self, "scan", "max_faces", "detector_size")
        _not_negative(self, "detect_every", "min_face", "memory", "min_quality")
        if self.roi and not (
            len(self.roi) == 4
            and all(map(math.isfinite, self.roi))
            and self.roi[0] < self.roi[2]
            and self.roi[1] < self.roi[3]
        ):
            raise UserError(f"--roi needs four numbers x0 y0 x1 y1 with x0 < x1 and y0 < y1, got {list(self.roi)}.")


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """From faces to action units and sentences."""

    model: str = setting("embedded", "Bundle: a folder written by vlfau-export, or 'embedded'.", metavar="BUNDLE")
    runtime: str = setting("auto", "Library that runs the network.", choices=RUNTIMES)
    device: str | None = setting(
        None, "Device of the runtime, such as cpu or cuda:0; chosen by the runtime if left out."
    )
    precision: str = setting("auto", "Number format of the network.", choices=PRECISIONS)
    threads: int | None = setting(None, "Threads of a CPU runtime; chosen by the runtime if left out.", metavar="N")
    explain: str = setting(
        "change", "When to generate sentences: change, every, never, or interval:SECONDS.", metavar="WHEN"
    )
    hysteresis: float = setting(
        0.1, "An active unit goes off only this share of its threshold below the threshold.", metavar="SHARE"
    )
    smooth: float = setting(0.0, "Time constant of smoothing, by which it also delays changes.", metavar="SECONDS")
    baseline: float | None = setting(
        None, "Learn each face at rest for this long and report relative to it; 0: off; from the bundle if left out.",
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
    allow_public: bool = setting(False, "Allow an address that other machines can reach.")
    encoding: str = setting("json", "Encoding of the messages.", choices=("json", "msgpack"))
    wait_subscribers: int = setting(0, "Start only when this many subscribers have joined.", metavar="N")
    send_queue: int = setting(1000, "Messages kept for a slow subscriber before it loses some.", metavar="MESSAGES")
    curve_secret: Path | None = setting(
        None,
        "Secret key file of vlfau-keys: encrypt, and admit only subscribers that know the public key.",
        metavar="FILE",
    )
    allow: Path | None = setting(
        None, "Folder of public key files (or one file): admit only these subscribers.", metavar="PATH"
    )
    why: str = setting("active", "Units that get their own sentence.", choices=("active", "all"))


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Files written while the engine runs, any number at once."""

    csv: Path | None = setting(None, "Table with the column names of OpenFace.", metavar="FILE")
    jsonl: Path | None = setting(None, "The messages of au/, one per line.", metavar="FILE")
    parquet: Path | None = setting(None, "The columns of --csv as Parquet (needs pyarrow).", metavar="FILE")
    render: Path | None = setting(None, "Video with boxes, unit bars and sentences drawn in.", metavar="FILE")
    subtitles: Path | None = setting(None, "The sentences as captions, .vtt or .srt.", metavar="FILE")
    overwrite: bool = setting(True, "Replace existing output files; with --no-overwrite they are an error.")


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """Displays on this machine, and metrics."""

    quiet: bool = setting(False, "Print only errors.")
    show: bool = setting(False, "Open a preview window.")
    demo: bool = setting(False, "Analyse the clip inside the package; print what it shows and what the engine sees.")
    metrics: str | None = setting(
        None, "Serve Prometheus metrics at [HOST]:PORT; HOST is 127.0.0.1 if left out.", metavar="ADDRESS"
    )


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """The three sections of outputs, as `open_sinks` takes them."""

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
    config: Path | None = None  # the file that the settings were read from


# section of the TOML file and title of the group of flags -> its settings
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
    """Defaults, overridden by the TOML file (its `sources` count only if none are given), overridden by flags."""
    table = load_toml(config) if config is not None else {}
    for key in table:
        if key not in (*SECTIONS, "sources"):
            raise unknown(f"section in {config}", key, (*SECTIONS, "sources"))
    for key, value in table.items():
        if not isinstance(value, list if key == "sources" else dict):
            raise UserError(f"'{key}' in {config} needs {'a list of sources' if key == 'sources' else 'a section'}.")
    parts = {name: read(part, table.get(name), flags) for name, part in SECTIONS.items()}
    sources = sources or tuple(str(source) for source in table.get("sources", ()))
    return dataclasses.replace(_engine(sources, parts), config=config)


def for_python(sources: tuple[str, ...], values: Mapping[str, Any]) -> EngineSettings:
    """The settings for `open_engine`, from its keyword arguments. Nothing is published or printed by default."""
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
        raise UserError(f"--demo has its own source, but '{sources[0]}' was given too. Leave one of them out.")
    from vlfau.models.bundle import demo_clip

    return (str(demo_clip()),)


def explain_interval(explain: str) -> float | None:
    """The seconds of `interval:SECONDS`; None for the other choices."""
    kind, colon, seconds = explain.partition(":")
    if kind == "interval":
        try:
            if colon and 0 < float(seconds) < math.inf:
                return float(seconds)
        except ValueError:
            pass
        raise UserError(f"--explain interval needs seconds above 0, such as interval:2, got '{explain}'.")
    if explain not in ("change", "every", "never"):
        raise unknown("choice for --explain", explain, ("change", "every", "never", "interval:SECONDS"))
    return None


def _positive(part: Any, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) is not None and not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} needs a number above 0, got {value}.")


def _not_negative(part: Any, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) is not None and not 0 <= value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} needs a number of at least 0, got {value}.")


def _at_most(part: Any, limit: float, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) is not None and value > limit:
            raise UserError(f"--{name.replace('_', '-')} needs a number of at most {limit:,.0f}, got {value}.")
