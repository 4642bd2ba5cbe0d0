"""The settings of everything that leaves the engine: messages, files, and what people look at. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlfau.models.settings import setting


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
