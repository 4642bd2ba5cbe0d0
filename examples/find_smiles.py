"""Finds smiles in videos:  python examples/find_smiles.py holiday/*.mp4

A smile that reaches the eyes is lip corner puller (AU12) together with cheek raiser (AU06), held for half a second.
"""

import sys

from vlfau.engine import open_engine

HELD_S = 0.5


def smiles(video: str, **settings: object) -> list[tuple[int, float, float]]:
    """(track, start, end) of each smile, in seconds."""
    ended: list[tuple[int, float, float]] = []
    since: dict[int, float] = {}  # track -> start of its smile
    last = 0.0
    with open_engine(video, explain="never", **settings) as reports:
        for report in reports:
            smiling = {f.track for f in report.faces if f.valid and f.aus["AU12"].on and f.aus["AU06"].on}
            for track in set(since) - smiling:
                ended.append((track, since.pop(track), report.pts))
            for track in smiling - set(since):
                since[track] = report.pts
            last = report.pts
    ended += [(track, start, last) for track, start in since.items()]
    return [smile for smile in sorted(ended, key=lambda smile: smile[1]) if smile[2] - smile[1] >= HELD_S]


if __name__ == "__main__":
    for video in sys.argv[1:]:
        for track, start, end in smiles(video):
            print(f"{video}  {start:7.2f} s to {end:7.2f} s  face {track}")
