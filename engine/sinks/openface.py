"""A report as rows under OpenFace's column names, for the tables.

Scripts written for OpenFace (and py-feat's reader of its files) keep working.
Deliberate differences: `AU01_r` is 5 * probability, not a measured intensity; there is no gaze; `frame` counts from 0,
as everywhere here; `face_id` is the track; a frame without faces has one row with success 0, and a face that is too
small, blurred or turned has success 0 and empty units instead of invented ones. `confidence` is the score of the
landmark network. `pose_Rx`, `pose_Ry`, `pose_Rz` are radians with OpenFace's signs: positive is down, to the frame's
left, and clockwise in the frame. `x_30`, `x_48`, `x_54` are nose tip and mouth corners under their OpenFace numbers.
Columns that OpenFace does not have come last: stream, both eye centres, the box, and the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..wire import Face, Report

Cell = float | int | str | None

INTENSITY_SCALE = 5  # OpenFace's intensities run from 0 to 5
HEAD = ("frame", "face_id", "timestamp", "confidence", "success", "pose_Rx", "pose_Ry", "pose_Rz")
POINTS = ("x_30", "x_48", "x_54", "y_30", "y_48", "y_54")
TAIL = (
    *("stream", "left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y"),
    *("box_x0", "box_y0", "box_x1", "box_y1", "text_frame", "text"),
)


def columns(units: Sequence[str]) -> list[str]:
    intensities, states = [f"{unit}_r" for unit in units], [f"{unit}_c" for unit in units]
    return [*HEAD, *POINTS, *intensities, *states, *TAIL]


def rows(report: Report, units: Sequence[str]) -> Iterator[list[Cell]]:
    """One row per face, or a single one for a frame without faces."""
    timestamp = round(report.pts, 6)
    if not report.faces:
        units_and_points: list[Cell] = [None] * (len(POINTS) + 2 * len(units))
        yield [report.frame, 0, timestamp, 0.0, 0, None, None, None, *units_and_points, report.stream, *[None] * 10]
        return
    for face in report.faces:
        head: list[Cell] = [report.frame, face.track, timestamp, face.score, int(face.valid), *_radians(face)]
        left_eye, right_eye, *lower = face.landmarks
        yield [
            *head,
            *(x for x, _ in lower),
            *(y for _, y in lower),
            *(round(INTENSITY_SCALE * face.aus[unit].p, 4) if unit in face.aus else None for unit in units),
            *(int(face.aus[unit].on) if unit in face.aus else None for unit in units),
            *(report.stream, *left_eye, *right_eye, *face.box, face.text_frame, face.text),
        ]


def _radians(face: Face) -> tuple[float | None, float | None, float | None]:
    pose = face.pose
    if pose is None:
        return None, None, None
    return round(math.radians(-pose.pitch), 4), round(math.radians(-pose.yaw), 4), round(math.radians(pose.roll), 4)
