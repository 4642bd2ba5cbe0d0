"""Video with the reports drawn in (see `drawing.py`): H.264, the timestamps of the source, and the sound of a file.

MP4 files are written in fragments of half a second, so that a kill leaves all that came before playable, and become
plain ones on close; the next run keeps what a kill left under a dated name. The sound of live sources is not recorded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np

from vlfau.models.errors import UserError

from ..packets import Origin
from ..sources.decoding import METADATA
from ..wire import Report
from .base import Pixels, Sink
from .drawing import draw
from .files import Say, file_error, file_errors, per_stream, silent
from .outputs import expanded
from .unfinished import Marker, note_kept, set_aside

if TYPE_CHECKING:
    from typing_extensions import Self

TICKS = 90_000  # per second; represents every common frame rate exactly
CODECS = ("libx264", "libopenh264", "mpeg4")  # the first one that this build of PyAV has
KEYFRAME_EVERY = 50  # frames
FRAGMENTS = {"movflags": "frag_keyframe+hybrid_fragmented", "frag_duration": "500000"}  # microseconds
CLUSTERS = {"cluster_time_limit": "500"}  # milliseconds: the same for Matroska
QUALITY = {"libx264": {"preset": "veryfast", "crf": "20"}}
PLAYED = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")  # sound that players support in such files
BITS_PER_PIXEL = 4  # and second, for encoders without a quality scale
START_KEPT_S = 1.0  # a source that starts later (live, --start) is shifted to zero, because players do not wait
JUMP_S = 1.0  # a clock that jumps back further than this was reset
SOUND_STEP_S = 1e-3  # the least time between packets of sound


class Render(Sink):
    """One video per stream, opened with its first frame."""

    needs_pixels = True

    def __init__(self, path: Path, origins: Sequence[Origin], say: Say = silent) -> None:
        if path.suffix.lower() not in (".mp4", ".mov", ".mkv"):
            raise UserError(f"Cannot render to {path.name}. Use a name that ends in .mp4, .mov or .mkv.")
        self._path = path
        self._say = say
        self._origins = {origin.stream: origin for origin in origins}
        self._films: dict[str, Film] = {}
        self._pipes: list[int] = []

    def __enter__(self) -> Self:
        for path in expanded(self._path, list(self._origins)):
            with file_errors(path):
                if path.is_fifo():  # wait for its reader here, where Ctrl-C is noticed
                    self._pipes.append(os.open(path, os.O_WRONLY))
                elif Marker(path).left():
                    self._say(note_kept(path, set_aside(path)))
        return self

    def write(self, report: Report, pixels: Pixels | None = None) -> None:
        if pixels is None:
            raise ValueError("Render needs the pixels of every report.")
        film = self._films.get(report.stream)
        if film is None:
            origin = self._origins.get(report.stream, Origin(report.stream))
            path = per_stream(self._path, report.stream, list(self._origins))
            film = self._films[report.stream] = Film(path, pixels.shape[:2], report.pts, origin.file, self._say)
        film.add(draw(pixels, report), report.pts)

    def close(self) -> None:
        first: UserError | None = None
        for film in self._films.values():
            try:
                film.close(complete=not self.incomplete)
            except UserError as error:
                first = first or error
        for pipe in self._pipes:
            os.close(pipe)
        if first is not None:
            raise first


class Film:
    """One output file."""

    def __init__(
        self, path: Path, size: tuple[int, int], first_pts: float, sound: Path | None, say: Say = silent
    ) -> None:
        self.path = path
        self.height, self.width = (side + side % 2 for side in size)  # H.264 in 4:2:0 needs even sides
        self._origin = first_pts if first_pts > START_KEPT_S else 0.0
        self._last = -1
        self._failed = False
        self._sound = _Sound(sound, first_pts) if sound is not None else None
        if self._sound is not None and self._sound.unknown:
            say(f"{path} has no sound, because this FFmpeg cannot decode the sound of {sound}.")
        options = CLUSTERS if path.suffix.lower() == ".mkv" else FRAGMENTS
        self._marker = Marker(path)
        self._marker.set()
        try:
            self._container: Any = av.open(local(path), "w", options=options | {"flush_packets": "1"})
            self._video: Any = self._add_video()
            if self._sound is not None:
                self._sound.join(self._container)
        except (OSError, av.FFmpegError) as error:
            self._marker.release(complete=True)
            raise file_error(path, _as_os_error(error)) from error

    def add(self, picture: Pixels, pts: float) -> None:
        if self._last >= 0 and pts - self._origin < self._last / TICKS - JUMP_S:
            self._origin = pts - (self._last + TICKS // 30) / TICKS
        tick = max(round((pts - self._origin) * TICKS), self._last + 1)
        self._last = tick
        frame = av.VideoFrame.from_ndarray(self._fitted(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self._matrix, dst_color_range="MPEG")
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        self._mux(self._video.encode(frame))
        if self._sound is not None:
            self._mux(self._sound.until(pts, self._origin))

    def close(self, *, complete: bool = True) -> None:
        """Finishes the file; after a failure only closes it."""
        try:
            if not self._failed:
                self._mux(self._video.encode(None))
                if self._sound is not None:
                    self._mux(self._sound.rest())
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            if not self._failed:
                self._failed = True
                raise self._error(error) from error
        finally:
            self._marker.release(complete=complete and not self._failed)
            if self._sound is not None:
                self._sound.close()

    def _add_video(self) -> Any:
        name = next((name for name in CODECS if name in av.codecs_available), None)
        if name is None:
            raise UserError("This PyAV has no encoder for video. Install the one from PyPI: pip install --force av")
        video = self._container.add_stream(name, rate=30, options=QUALITY.get(name, {}))
        video.width, video.height, video.pix_fmt = self.width, self.height, "yuv420p"
        context = video.codec_context
        context.time_base = video.time_base = Fraction(1, TICKS)
        context.gop_size = KEYFRAME_EVERY
        context.max_b_frames = 0  # they would delay the start of a fragmented file
        high = self.height >= 720  # the rule by which players guess the matrix; it is also stored in the file
        self._matrix = "ITU709" if high else "ITU601"
        context.colorspace, context.color_range = (1 if high else 6), 1
        if name not in QUALITY:
            video.bit_rate = BITS_PER_PIXEL * self.width * self.height
        return video

    def _fitted(self, picture: Pixels) -> Pixels:
        """The picture in the size of the video: odd sides get one more line, other sizes are scaled and centred."""
        height, width = picture.shape[:2]
        if (height, width) == (self.height, self.width):
            return picture
        if 0 <= self.height - height <= 1 and 0 <= self.width - width <= 1:
            edges = (0, self.height - height, 0, self.width - width)
            return np.asarray(cv2.copyMakeBorder(picture, *edges, cv2.BORDER_REPLICATE), np.uint8)
        factor = min(self.height / height, self.width / width)
        small = cv2.resize(picture, (max(int(width * factor), 1), max(int(height * factor), 1)))
        fitted = np.zeros((self.height, self.width, 3), np.uint8)
        top, left = (self.height - small.shape[0]) // 2, (self.width - small.shape[1]) // 2
        fitted[top : top + small.shape[0], left : left + small.shape[1]] = small
        return fitted

    def _mux(self, packets: Any) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
        except (OSError, av.FFmpegError) as error:
            self._failed = True
            raise self._error(error) from error

    def _error(self, error: Exception) -> UserError:
        return file_error(self.path, _as_os_error(error), kept=self._last > 0)


class _Sound:
    """The sound of a file: its packets as they are if the container supports the codec, otherwise AAC."""

    def __init__(self, path: Path, start: float) -> None:
        self._input: Any = None
        self._start, self._origin, self._heard = start, 0.0, start
        self._begin, self._last = 0.0, -math.inf
        self._stream: Any = None
        self.unknown = False  # there is sound, in codecs that FFmpeg does not know
        try:
            self._input = av.open(local(path), **METADATA)
            streams = self._input.streams.audio
            self._stream = next((stream for stream in streams if stream.codec_context is not None), None)
            self.unknown = bool(streams) and self._stream is None
            self._begin = (self._input.start_time or 0) / av.time_base
        except Exception:  # damage shows as almost anything: the video goes on without sound
            pass
        self._output: Any = None
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None

    def join(self, container: Any) -> None:
        """Adds a sound stream to the output, before anything is written to it."""
        if self._stream is None:
            return
        if self._start > START_KEPT_S:
            self._input.seek(max(int((self._start - 1 + self._begin) * av.time_base), 0))
        name = self._stream.codec_context.name
        if name in PLAYED and name in container.supported_codecs:
            self._output = container.add_stream_from_template(self._stream)
            self._packets = self._copied()
        else:
            self._output = container.add_stream("aac", rate=self._stream.codec_context.sample_rate)
            self._packets = self._encoded()

    def until(self, pts: float, origin: float) -> Iterator[Any]:
        """Packets up to that time of the source, shifted by the origin of the video."""
        self._origin, self._heard = origin, pts
        while True:
            if self._waiting is None:
                self._waiting = next(self._packets, None)
            if self._waiting is None or self._seconds(self._waiting) > pts - origin:
                return
            packet, self._waiting = self._waiting, None
            yield packet

    def rest(self) -> Iterator[Any]:
        """The packets that belong to the last frame."""
        yield from self.until(self._heard + 0.04, self._origin)

    def close(self) -> None:
        if self._input is not None:
            self._input.close()

    @staticmethod
    def _seconds(packet: Any) -> float:
        return float((packet.pts if packet.pts is not None else 0) * packet.time_base)

    def _placed(self, sound: Any, duration: float) -> bool:
        """Sets its time in the output. False for what comes before the start, or is not after what came last.

        Times count from the beginning of the file, and go on where its clock starts again, as those of pictures do.
        """
        if sound.pts is None:
            return False
        seconds = float(sound.pts * sound.time_base) - self._begin
        if seconds < self._last - JUMP_S:
            self._begin += seconds - self._last - duration
            seconds = self._last + duration
        if seconds < self._last + SOUND_STEP_S:
            return False
        self._last = seconds
        sound.pts -= round((self._origin + self._begin) / sound.time_base)
        return seconds >= self._start - 0.1

    def _copied(self) -> Iterator[Any]:
        try:
            for packet in self._input.demux(self._stream):
                if self._placed(packet, float((packet.duration or 0) * packet.time_base)):
                    packet.dts = packet.pts
                    packet.stream = self._output
                    yield packet
        except (OSError, av.FFmpegError):  # damaged sound ends here; the video goes on
            return

    def _encoded(self) -> Iterator[Any]:
        try:
            for frame in self._input.decode(self._stream):
                if self._placed(frame, frame.samples / frame.sample_rate):
                    yield from self._output.encode(frame)
        except (OSError, av.FFmpegError):
            pass
        yield from self._output.encode(None)


def local(path: Path) -> str:
    """For FFmpeg, which would take a name such as tcp:x.mp4 for an address."""
    return f"file:{path}"


def _as_os_error(error: BaseException) -> OSError:
    if isinstance(error, OSError):
        return error
    return OSError(getattr(error, "errno", 0) or 0, str(error))
