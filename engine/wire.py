"""The wire format, schema 1: what a message holds and how it becomes bytes.

Four kinds of message, each under its own topic `kind/stream`: `Report` (au), `Text`, `Status` and `End`. Fields without
a default are always present, in this order; fields with a default are left out while they hold it. Readers ignore
fields they do not know, so a new field needs no new schema number; a changed meaning does. `seq` counts from 0 per
topic, so a gap is a loss. `python -m vlfau.engine.wire` prints the JSON Schema that is stored next to this file.

Numbers are rounded on construction (`units`, `box`, `points`), so messages are short and encoding is cheap.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from vlfau.models.errors import UserError, unknown
from vlfau.models.terminal import CONTROLS, plain

SCHEMA: Final = 1
NAME_CHARACTERS: Final = 200  # of a stream
STAGES: Final = ("decode", "detect", "align", "predict", "explain", "total")


class Part(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A piece of a message."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="v", tag=SCHEMA):
    """A message of a topic. `v` is written first and checked on arrival."""

    v: ClassVar[int] = SCHEMA

    seq: int
    stream: str


class Unit(Part, frozen=True):
    """One action unit of one face."""

    p: float  # probability, calibrated by the bundle
    on: bool  # state after threshold, hysteresis and smoothing


class Pose(Part, frozen=True):
    """Degrees. Zero looks into the camera."""

    yaw: float  # > 0: the nose points to the picture's right
    pitch: float  # > 0: the nose points up
    roll: float  # > 0: the head leans clockwise as seen in the picture


class LatencyMs(Part, frozen=True):
    """Milliseconds in each stage for this frame, waiting included; total is capture to publish."""

    decode: float
    detect: float
    align: float
    predict: float
    explain: float
    total: float


class Face(Part, frozen=True):
    """One followed face in one frame. `valid` false: too small, blurred or turned; then `aus` and `why` are empty."""

    track: int
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in picture pixels
    score: float  # 0..1, in this frame: how sure the landmark network is that this is a face
    landmarks: tuple[tuple[float, float], ...]  # left eye, right eye, nose, mouth corners; left = smaller x; pixels
    pose: Pose | None
    valid: bool
    aus: dict[str, Unit]  # "AU01" -> probability and state
    text_frame: int | None  # the frame whose states the sentences describe
    text: str | None  # the whole face in a sentence
    why: dict[str, str]  # "AU01" -> its own sentence; active units only, unless --why all
    quality: float | None = None  # 0..1 from size, sharpness and pose
    baseline: bool = False  # the resting face of this track has been learned and is taken out of `aus`


class Report(Message, frozen=True):
    """Every frame, also without faces. Topic au/<stream>."""

    frame: int  # index in the stream; a gap is a dropped or skipped frame
    pts: float  # seconds, from the container
    captured_ns: int  # unix nanoseconds at which the decoder handed the frame over
    dropped: int  # frames of this stream dropped so far
    latency_ms: LatencyMs
    faces: list[Face]


class Text(Message, frozen=True):
    """When the sentence of a face changes. Topic text/<stream>."""

    frame: int
    pts: float
    captured_ns: int
    track: int
    text: str
    why: dict[str, str]
    again: bool = False  # repeated unchanged for subscribers that joined late


class Quantiles(Part, frozen=True):
    """Of the last seconds, in milliseconds."""

    p50: float
    p95: float
    p99: float


class Status(Message, frozen=True):
    """Every second. Topic status/<stream>."""

    state: str  # opening, playing, reconnecting, ended
    sent_ns: int  # unix nanoseconds
    uptime_s: float
    frame: int  # the last published index, -1 before the first
    pts: float
    fps_in: float  # frames a second out of the decoder
    fps_out: float  # reports a second
    faces: int  # in the last report
    queues: dict[str, int]  # channel -> items waiting
    drops: dict[str, int]  # cause -> frames
    latency_ms: dict[str, Quantiles]  # by stage, see STAGES
    runtime: str
    device: str
    model: str = ""
    detector: str = ""
    tiers: dict[str, str] = {}  # unit -> how well its accuracy was established, from the bundle
    width: int = 0  # picture pixels
    height: int = 0
    duration_s: float | None = None  # of a file, or of the part selected by --start and --duration
    reconnects: int = 0
    note: str = ""  # why it reconnects, what was skipped
    again: bool = False


class End(Message, frozen=True):
    """The last message of a stream. Topic end/<stream>."""

    reason: str  # finished, stopped, lost, error
    sent_ns: int
    elapsed_s: float
    frames_in: int
    frames_out: int
    fps: float  # frames_out / elapsed_s
    dropped: int
    drops: dict[str, int]
    tracks: int  # faces followed in all
    latency_ms: dict[str, Quantiles]
    error: str = ""
    reconnects: int = 0
    left: int = 0  # streams of this engine that are still running
    again: bool = False


AnyMessage = Report | Text | Status | End
KINDS: Final[dict[str, type[AnyMessage]]] = {"au": Report, "text": Text, "status": Status, "end": End}

SHOWN: Final = 300  # characters of an error in foreign data

_NAMES: Final = {kind: name for name, kind in KINDS.items()}
_JSON: Final = msgspec.json.Encoder()
_MSGPACK: Final = msgspec.msgpack.Encoder()
_JSON_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in KINDS.items()}
_MSGPACK_DECODERS: Final = {name: msgspec.msgpack.Decoder(kind) for name, kind in KINDS.items()}
ENCODINGS: Final = {"json": _JSON.encode, "msgpack": _MSGPACK.encode}


# Rounding


def units(names: Sequence[str], probabilities: ArrayLike, states: ArrayLike) -> dict[str, Unit]:
    """(A,) probabilities and (A,) states of one face, by name."""
    rounded = np.round(np.asarray(probabilities, np.float64), 4).tolist()
    return {name: Unit(p, on) for name, p, on in zip(names, rounded, np.asarray(states, bool).tolist())}


def box(corners: ArrayLike) -> tuple[float, float, float, float]:
    """(4,) corners in pixels, to two decimals."""
    x0, y0, x1, y1 = np.round(np.asarray(corners, np.float64), 2).tolist()
    return x0, y0, x1, y1


def points(landmarks: ArrayLike) -> tuple[tuple[float, float], ...]:
    """(5, 2) pixels, to two decimals."""
    return tuple((x, y) for x, y in np.round(np.asarray(landmarks, np.float64), 2).tolist())


def pose(yaw: float, pitch: float, roll: float) -> Pose | None:
    """Degrees, to one decimal; None where there is no solution."""
    if not (math.isfinite(yaw) and math.isfinite(pitch) and math.isfinite(roll)):
        return None
    return Pose(round(float(yaw), 1), round(float(pitch), 1), round(float(roll), 1))


def milliseconds(
    *, decode: float, detect: float, align: float, predict: float, explain: float, total: float
) -> LatencyMs:
    return LatencyMs(
        round(decode, 3), round(detect, 3), round(align, 3), round(predict, 3), round(explain, 3), round(total, 3)
    )


def quantiles(values_ms: Sequence[float]) -> Quantiles | None:
    """None without values."""
    if not len(values_ms):
        return None
    p50, p95, p99 = np.round(np.quantile(np.asarray(values_ms, np.float64), (0.5, 0.95, 0.99)), 3).tolist()
    return Quantiles(p50, p95, p99)


def stream_name(text: str) -> str:
    """A name that is valid in a topic: no space, no slash, no control character, and short enough to subscribe to."""
    return re.sub(rf"[\s/{CONTROLS}]+", "-", text.strip())[:NAME_CHARACTERS].strip("-") or "stream"


# Encoding


def topic(message: AnyMessage) -> str:
    return f"{_NAMES[type(message)]}/{message.stream}"


def encode(message: AnyMessage, encoding: str = "json") -> bytes:
    """`topic payload` in one part: the topic, one space, the message."""
    return topic(message).encode() + b" " + ENCODINGS[encoding](message)


def line(message: AnyMessage) -> bytes:
    """The message alone, as a line of JSON."""
    return _JSON.encode(message) + b"\n"


def decode(message: bytes) -> AnyMessage:
    """The reverse of `encode`, for either encoding: a JSON object opens with a brace, a msgpack map never does."""
    subject, space, payload = message.partition(b" ")
    kind = plain(subject.partition(b"/")[0].decode(errors="replace"))
    if not space or kind not in KINDS:
        raise unknown("kind of message", kind[:40], KINDS)
    return decode_payload(kind, payload)


def decode_payload(kind: str, payload: bytes) -> AnyMessage:
    decoders: dict[str, Any] = _JSON_DECODERS if payload[:1] == b"{" else _MSGPACK_DECODERS
    try:
        message: AnyMessage = decoders[kind].decode(payload)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"A message of kind '{kind}' is not of schema {SCHEMA}: {plain(error)[:SHOWN]}. "
            "Is the sender another version?"
        ) from None
    return message


def now_ns() -> int:
    """Unix nanoseconds, as `captured_ns` and `sent_ns` hold them."""
    return time.time_ns()


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12; `$defs` holds Report, Text, Status and End and their parts."""
    messages, parts = msgspec.json.schema_components(list(KINDS.values()), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"VL-FAU Stream messages, schema {SCHEMA}",
        "description": "Topic au/<stream>: Report. text/<stream>: Text. status/<stream>: Status. end/<stream>: End.",
        "anyOf": list(messages),
        "$defs": dict(sorted(parts.items())),
    }


def main(arguments: Iterable[str] | None = None) -> None:
    print(json.dumps(json_schema(), indent=2))


if __name__ == "__main__":
    main()
