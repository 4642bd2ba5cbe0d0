"""A dashboard of two cameras, side by side in the terminal, with the moments at which people in front of both smile.

python examples/two_cameras.py 0 1      (or two files, or two rtsp:// addresses)
"""

import sys
from collections import deque

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlfau.engine import open_engine
from vlfau.engine.wire import Report

SHOWN = 40  # frames in the curve of AU12
HEIGHTS = " ▁▂▃▄▅▆▇█"


class Dashboard:
    def __init__(self) -> None:
        self.newest: dict[str, Report] = {}
        self.curves: dict[str, deque[float]] = {}  # p of AU12
        self.smiling = {"left": False, "right": False}
        self.moments: list[float] = []

    def add(self, report: Report) -> None:
        units = [face.aus["AU12"] for face in report.faces if face.valid]
        self.newest[report.stream] = report
        curve = self.curves.setdefault(report.stream, deque(maxlen=SHOWN))
        curve.append(max((unit.p for unit in units), default=0.0))
        before = all(self.smiling.values())
        self.smiling[report.stream] = any(unit.on for unit in units)
        if all(self.smiling.values()) and not before:
            self.moments.append(report.pts)

    def __rich__(self) -> RenderableType:
        cameras = Table.grid(expand=True)
        cameras.add_row(*(self._camera(name) for name in self.smiling))
        together = ", ".join(f"{moment:.2f} s" for moment in self.moments[-8:]) or "not yet"
        return Group(cameras, Text(f"  Both smiled at: {together}", style="bold"))

    def _camera(self, name: str) -> Panel:
        report = self.newest.get(name)
        lines = [Text("waiting for the first frame", style="dim")]
        if report is not None:
            lines = [Text(f"{report.pts:7.2f} s   {len(report.faces)} faces   {report.dropped} dropped", style="dim")]
            for face in report.faces:
                active = " ".join(unit for unit, state in face.aus.items() if state.on) or "at rest"
                lines.append(Text(f"face {face.track}  " + (active if face.valid else "too small, blurred or turned")))
            curve = "".join(HEIGHTS[round(p * (len(HEIGHTS) - 1))] for p in self.curves[name])
            lines.append(Text(f"AU12 {curve}", style="cyan"))
        return Panel(Group(*lines), title=name, border_style="green" if self.smiling[name] else "dim")


def together(first: str, second: str, **settings: object) -> list[float]:
    """When both began to smile together, in seconds of the stream that joined in."""
    dashboard = Dashboard()
    engine = open_engine(first, second, name=("left", "right"), explain="never", **settings)
    with engine as reports, Live(dashboard, refresh_per_second=10):
        for report in reports:  # of both streams, as they become ready
            dashboard.add(report)
    return dashboard.moments


if __name__ == "__main__":
    together(*sys.argv[1:3])
