"""Servers of video on 127.0.0.1, which do what a test says."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from media import numbered, write_clip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def transport_stream(first: int, count: int) -> bytes:
    buffer = io.BytesIO()
    write_clip(buffer, (numbered(i) for i in range(first, first + count)), container="mpegts")
    return buffer.getvalue()


@contextmanager
def http_server(
    answer: Callable[[BaseHTTPRequestHandler, int], None], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """`answer` gets the handler and the number of the connection, and writes the response."""
    connections = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal connections
            connections += 1
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(self, connections - 1)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def start(handler: BaseHTTPRequestHandler, length: int | None = None) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.send_header("Content-Type", "video/mp2t")
    handler.end_headers()


@cache
def segments(count: int) -> list[bytes]:
    """A recording in segments of one second, as served by HTTP Live Streaming."""
    with TemporaryDirectory() as folder:
        options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_filename": f"{folder}/%d.ts"}
        with av.open(f"{folder}/list.m3u8", "w", format="hls", options=options) as output:
            stream: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "25"})
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            for i in range(25 * count):
                frame = av.VideoFrame.from_ndarray(numbered(i), "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        return [(Path(folder) / f"{k}.ts").read_bytes() for k in range(count)]


def hls(handler: BaseHTTPRequestHandler, first: int, there: int, over: bool) -> None:
    """Serves a segment, or the list of available segments from `first` on."""
    name = handler.path.rpartition("/")[2]
    if name.endswith(".ts"):
        body = segments(8)[int(name[:-3])]
    else:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        lines += [line for k in range(first, there) for line in ("#EXTINF:1.0,", f"{k}.ts")]
        body = "\n".join([*lines, *(["#EXT-X-ENDLIST"] if over else []), ""]).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp2t" if name.endswith(".ts") else "application/vnd.apple.mpegurl")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
