"""Subscribes to a running engine:  vlfau-stream 0  in one terminal,  python examples/subscribe.py  in another."""

import sys

from vlfau.engine import subscribe

address = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5556"
with subscribe(address, "au/") as reports:
    for report in reports:
        for face in report.faces:
            active = " ".join(name for name, unit in face.aus.items() if unit.on) or "at rest"
            print(f"{report.stream} {report.pts:7.2f} s  face {face.track}: {active}  {face.text or ''}", flush=True)
print(f"The engine has ended. {reports.lost_total} messages were lost.")
