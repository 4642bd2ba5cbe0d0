"""Two cameras, one engine: says when somebody in front of each smiles at the same time.

python examples/two_cameras.py 0 1      (or two files, or two rtsp:// addresses)
"""

import sys

from vlfau.engine import open_engine


def together(first: str, second: str, **settings: object) -> list[float]:
    """The moments (seconds of the second source) at which both sides began to smile together."""
    smiling, moments, both_before = {"left": False, "right": False}, [], False
    with open_engine(first, second, name=("left", "right"), explain="never", **settings) as reports:
        for report in reports:  # of both, in the order in which they are ready
            smiling[report.stream] = any(face.valid and face.aus["AU12"].on for face in report.faces)
            both = all(smiling.values())
            if both and not both_before:
                moments.append(report.pts)
                print(f"{report.pts:7.2f} s  both smile", flush=True)
            both_before = both
    return moments


if __name__ == "__main__":
    together(*sys.argv[1:3])
