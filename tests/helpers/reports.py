"""Synthetic messages for the tests of outputs, with invented numbers and the shapes of the wire format."""

from __future__ import annotations

import numpy as np

from vlfau.engine import wire

UNITS = tuple(f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43))
SENTENCES = (
    "The cheeks are raised and the lip corners are pulled up.",
    "The brows are lowered.",
    "The face is at rest.",
)


def make_face(frame: int = 0, track: int = 0, *, valid: bool = True, sentence: int = 0) -> wire.Face:
    random = np.random.default_rng((frame, track))
    p = random.random(len(UNITS))
    on = p > 0.5
    corner = np.array([60.0 + 200 * track, 80.0])
    return wire.Face(
        track=track,
        box=wire.box([*corner, *(corner + 120)]),
        score=0.97,
        landmarks=wire.points(corner + np.array([[38, 48], [82, 48], [60, 72], [42, 92], [78, 92]])),
        pose=wire.pose(12.0, -5.0, 3.0) if valid else None,
        valid=valid,
        aus=wire.units(UNITS, p, on) if valid else {},
        text_frame=frame if valid else None,
        text=SENTENCES[sentence % len(SENTENCES)] if valid else None,
        why={name: f"Reason for {name}." for name, state in zip(UNITS, on) if state} if valid else {},
    )


def make_report(
    frame: int = 0,
    stream: str = "cam",
    *,
    faces: int = 1,
    pts: float | None = None,
    sentence: int = 0,
    valid: bool = True,
) -> wire.Report:
    return wire.Report(
        seq=frame,
        stream=stream,
        frame=frame,
        pts=frame / 25 if pts is None else pts,
        captured_ns=1_700_000_000_000_000_000 + frame * 40_000_000,
        dropped=0,
        latency_ms=wire.milliseconds(decode=4.1, detect=1.2, align=0.4, predict=6.0, explain=0.0, total=12.3456),
        faces=[make_face(frame, track, sentence=sentence, valid=valid) for track in range(faces)],
    )


def make_status(seq: int = 0, stream: str = "cam", **changes: object) -> wire.Status:
    values: dict[str, object] = {
        "state": "playing",
        "sent_ns": 1_700_000_000_000_000_000 + seq * 10**9,
        "uptime_s": float(seq),
        "frame": 25 * seq,
        "pts": float(seq),
        "fps_in": 25.0,
        "fps_out": 24.9,
        "faces": 1,
        "queues": {"frames": 2, "crops": 0},
        "drops": {"late": 3},
        "latency_ms": {"total": wire.Quantiles(10.0, 14.0, 21.5), "predict": wire.Quantiles(5.0, 6.0, 9.0)},
        "runtime": "openvino",
        "device": "CPU",
        "tiers": {"AU12": "measured"},
        "duration_s": 40.0,
    }
    return wire.Status(seq, stream, **(values | changes))  # type: ignore[arg-type]


def make_end(seq: int = 0, stream: str = "cam", *, reason: str = "finished", left: int = 0) -> wire.End:
    return wire.End(
        seq,
        stream,
        reason=reason,
        sent_ns=1_700_000_100_000_000_000,
        elapsed_s=4.0,
        frames_in=103,
        frames_out=100,
        fps=25.0,
        dropped=3,
        drops={"late": 3},
        tracks=1,
        latency_ms={"total": wire.Quantiles(10.0, 14.0, 21.5)},
        left=left,
    )


def make_picture(height: int = 360, width: int = 640, shade: int = 90) -> np.ndarray:
    """(H, W, 3) RGB with gradients, so that a flipped or mirrored picture is noticed."""
    picture = np.full((height, width, 3), shade, np.uint8)
    picture[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    picture[..., 2] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return picture
