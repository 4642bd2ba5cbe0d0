"""Compressed video -> RGB pictures with their times, through PyAV. All arithmetic with PyAV's clocks is here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vlfau.models.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

SHORTEST_S = 1e-5  # between two pictures; times are published in microseconds
JUMP_S = 1.0  # a step back by more is a clock that starts again; a smaller one is a picture with the time of another
DAMAGED_IN_A_ROW = 500  # consecutive unreadable packets after which a file counts as unreadable
# Titles in a broken encoding do not matter here; PyAV reads them lazily since version 19.
METADATA = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
MICROSECONDS = 1e6  # FFmpeg's unit for the times of a whole container


class Damaged(Exception):
    """The rest of this source cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, upright, square pixels; rows may be padded
    pts: float  # seconds since the beginning of the container
    decode_ms: float  # from requesting it to having it, including waiting for data


class Decoder:
    """One open container. Used on one thread, while FFmpeg decodes on its own threads.

    `live` trades throughput for latency: threads share one picture instead of decoding several at once, which delays
    each.
    """

    def __init__(
        self,
        address: Any,
        *,
        live: bool = False,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        hwaccel: str = "none",
        threads: int | None = None,
    ) -> None:
        self.damaged = 0  # packets that could not be decoded
        self._live = live
        self._reformatter = VideoReformatter()
        acceleration = _acceleration(hwaccel)
        try:
            self._container = av.open(
                address,
                "r",
                format=format,
                options=dict(options or {}),
                timeout=(open_timeout_s, read_timeout_s),
                **acceleration,
                **METADATA,
            )
        except Exception as error:  # damage shows as almost anything, also as mistakes of PyAV itself
            raise Damaged(reason(error)) from error
        try:
            self._stream = _video_stream(self._container)
            context = self._stream.codec_context
            context.thread_type = "SLICE" if live else "AUTO"
            context.thread_count = threads or min(os.cpu_count() or 1, 4)
            if live:
                context.flags |= Flags.low_delay
        except BaseException:
            self._container.close()
            raise
        self._begin = (self._container.start_time or 0) / MICROSECONDS

    @property
    def duration_s(self) -> float | None:
        duration = self._container.duration
        return duration / MICROSECONDS if duration and duration > 0 else None

    @property
    def complete(self) -> bool:
        """Whether its end is final: it has a known length, or it is a playlist that was marked as complete."""
        return self.duration_s is not None or self._container.format.name == "hls"

    @property
    def fps(self) -> float:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate and 0 < float(rate) <= 1000 else 25.0

    @property
    def frames(self) -> int | None:
        return self._stream.frames or None

    def seek(self, seconds: float) -> None:
        """Go to the key frame before; the caller skips what is too early."""
        if seconds > 0:
            try:
                self._container.seek(round((seconds + self._begin) * MICROSECONDS))
            except (av.error.FFmpegError, OverflowError):  # not seekable: the caller skips from the beginning
                return

    def __iter__(self) -> Iterator[Picture]:
        clock = Clock(self)
        began = time.monotonic_ns()
        for frame in self._decoded():
            pts = clock.at(frame)
            try:
                pixels = self._pixels(frame)
            except Exception as error:
                raise Damaged(reason(error)) from error
            yield Picture(pixels, pts, (time.monotonic_ns() - began) / 1e6)
            began = time.monotonic_ns()

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        failed = 0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except Exception as error:  # the index is damaged, or no data arrived in time
                yield from self._held_back()
                changed = isinstance(error, IndexError)  # PyAV reads past the list of streams that it made at the start
                raise Damaged("its streams change in the middle" if changed else reason(error)) from error
            try:
                frames = packet.decode()
                failed = 0 if frames else failed
            except av.error.EOFError:
                return
            except Exception as error:
                self.damaged += 1
                failed += 1
                if failed > DAMAGED_IN_A_ROW:
                    raise Damaged(reason(error)) from error
                continue
            yield from frames

    def _held_back(self) -> list[Any]:
        """Pictures that the decoder's threads still hold."""
        try:
            return list(self._stream.codec_context.decode(None))
        except Exception:
            return []

    def _pixels(self, frame: Any) -> NDArray[np.uint8]:
        """A view into the memory of the converted frame; a copy only if it has to be rotated."""
        width, height = frame.width, frame.height
        aspect = self._stream.sample_aspect_ratio
        if aspect and float(aspect) > 0 and abs(float(aspect) - 1) > 0.01:
            width = max(1, min(16384, round(width * float(aspect))))
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            :height, : 3 * width
        ]
        pixels: NDArray[np.uint8] = rows.reshape(height, width, 3)
        turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4  # FFmpeg counts anticlockwise, as rot90 does
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Clock:
    """The times of frames, each above the one before.

    Only in a live stream they still jump back where the sender's clock does: the caller knows how much time has passed.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._period = 1 / decoder.fps
        rate = float(decoder._stream.average_rate or decoder.fps)
        self._step = max(SHORTEST_S, min(1 / rate, self._period))
        self._begin, self._live = decoder._begin, decoder._live
        self._base = decoder._stream.time_base
        self._in_decode_order = decoder._container.format.name == "avi"  # which stores no times of presentation
        self._delay: int | None = None  # of the decoder, in units of the time base
        self._shift = 0.0  # seconds
        self._last: float | None = None

    def at(self, frame: Any) -> float:
        units, last = self._units(frame), self._last
        if units is None:
            pts = 0.0 if last is None else last + self._period
        else:
            pts = units * float(frame.time_base or self._base) - self._begin + self._shift
        if last is not None and pts < last + SHORTEST_S / 2:  # also if they differ by rounding only
            jumped = pts < last - JUMP_S
            if jumped and self._live:
                self._last = pts
                return pts
            if jumped:
                self._shift += last + self._step - pts
            pts = last + self._step
        self._last = pts
        return pts

    def _units(self, frame: Any) -> int | None:
        if not self._in_decode_order or frame.pts is None:
            return frame.pts  # type: ignore[no-any-return]
        if self._delay is None:
            self._delay = 0 if frame.dts is None else frame.dts - frame.pts
        return None if frame.dts is None else frame.dts - self._delay


def has_length(address: str, open_timeout_s: float, read_timeout_s: float) -> bool:
    """Whether an address holds something of known length. If it does not answer, it may be a camera that is off."""
    try:
        with Decoder(address, open_timeout_s=open_timeout_s, read_timeout_s=read_timeout_s) as decoder:
            return decoder.duration_s is not None
    except Damaged:
        return False


def reason(error: BaseException) -> str:
    """FFmpeg's error message, without codes and addresses (which may hold passwords)."""
    if isinstance(error, av.error.ExitError):  # FFmpeg's wording for our timeout
        return "no data arrived in time"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _video_stream(container: Any) -> Any:
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise Damaged("it holds no video")
    if streams[0].codec_context is None:
        raise Damaged("this FFmpeg cannot decode its video codec")
    return streams[0]


def _is_cover(stream: Any) -> bool:
    """FFmpeg lists the cover of a song as a video stream of one picture."""
    disposition = getattr(stream, "disposition", None)
    return "attached_pic" in (getattr(disposition, "name", "") or "") and stream.frames <= 1


def _acceleration(choice: str) -> dict[str, Any]:
    """Arguments for av.open. `auto` silently falls back to software, `cuda` raises if it is not available."""
    why = "" if choice == "none" else _why_no_cuda()
    if choice == "cuda" and why:
        raise UserError(f"Hardware decoding with cuda is not possible here: {why}. Choose --hwaccel auto or none.")
    if choice == "none" or why:
        return {}
    from av.codec.hwaccel import HWAccel

    return {"hwaccel": HWAccel(device_type="cuda", allow_software_fallback=True)}


@cache
def _why_no_cuda() -> str:
    """Opens the device once, because a driver without its video part passes every other check."""
    from av.codec.hwaccel import HWAccel, hwdevices_available

    if "cuda" not in hwdevices_available():
        return "this build of PyAV has no cuda"
    try:
        HWAccel(device_type="cuda").create(av.Codec("h264", "r"))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError) as error:
        return reason(error)
    return ""
