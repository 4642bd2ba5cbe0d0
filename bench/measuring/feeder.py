"""A camera for the soak bench: a clip in a loop as MPEG-TS over HTTP, in real time or a multiple of it.

    PYTHONPATH=bench python -m measuring.feeder CLIP PORT [--speed 2]

Nothing is re-encoded: the clip's packets are sent with rising timestamps. Every connection gets a separate stream that
begins at a key frame. It runs as a process so that it can be killed.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av

LATE_S = 1.0  # a sender that falls behind this far does not catch up, because a camera does not either


class Pipe(io.RawIOBase):
    """Passes on what PyAV writes; not seekable."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.target.write(data)
        return len(data)


def packets(clip: Path) -> Iterator[tuple[Any, float, float]]:
    """The clip's packets in an endless loop: (packet, decode time, presentation time) in seconds that keep rising."""
    shift = 0.0
    while True:
        with av.open(str(clip)) as container:
            video = container.streams.video[0]
            frame = 1 / float(video.average_rate or 30)
            last = 0.0
            for packet in container.demux(video):
                if packet.dts is None or packet.pts is None:
                    continue
                base = float(packet.time_base)
                last = max(last, packet.pts * base)
                yield packet, packet.dts * base + shift, packet.pts * base + shift
        shift += last + frame


def send(clip: Path, target: Any, speed: float) -> None:
    """Sends until the receiver disconnects."""
    with av.open(str(clip)) as template, av.open(Pipe(target), "w", format="mpegts") as output:
        stream = output.add_stream_from_template(template.streams.video[0])
        clock = Fraction(1, 90_000)
        began: float | None = None
        for packet, decoded, shown in packets(clip):
            now = time.monotonic()
            if began is None or now - began - decoded / speed > LATE_S:
                began = now - decoded / speed
            if (early := began + decoded / speed - now) > 0:
                time.sleep(early)
            # frames sent twice as fast also carry timestamps half as far apart
            packet.stream, packet.time_base = stream, clock
            packet.dts, packet.pts = round((decoded + 1) / speed / clock), round((shown + 1) / speed / clock)
            output.mux(packet)


def serve(clip: Path, port: int, speed: float) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            try:
                send(clip, self.wfile, speed)
            except (OSError, av.error.FFmpegError):  # the client has disconnected
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None: ...

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--speed", type=float, default=1.0)
    options = parser.parse_args()
    with serve(options.clip, options.port, options.speed) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
