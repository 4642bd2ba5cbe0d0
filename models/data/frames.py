"""Where the frames of the raw releases of BP4D and DISFA lie: numbered pictures in folders, or videos. Reads no labels.

BP4D is given out as `2D+3D/F001/T1/*.jpg` (beside meshes, which are passed over) and is also kept as one video per
subject and task; DISFA as one video per subject. Folders may be called anything and lie a few levels deep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from ..errors import UserError
from ..files import PICTURES, VIDEOS
from .table import PICTURE_FILE

SUBJECT = re.compile(r"[FM]\d{3}|SN\d{3}")
DEPTH = 3  # folders between the root and the subjects' folders


@dataclass(frozen=True, slots=True)
class Place:
    source: str  # a picture or a video
    frame: int  # from 0 within a video, or PICTURE_FILE


@dataclass(frozen=True, slots=True)
class Places:
    """The frames of one recording by the number under which the coders knew them."""

    source: Path
    pictures: dict[int, str] | None = None
    first: int = 0  # the number of a video's first frame
    length: int | None = None  # frames of the video; None when its header does not say

    def get(self, number: int) -> Place | None:
        if self.pictures is not None:
            return Place(self.pictures[number], PICTURE_FILE) if number in self.pictures else None
        frame = number - self.first
        return Place(str(self.source), frame) if frame >= 0 and (self.length is None or frame < self.length) else None

    def __contains__(self, number: int) -> bool:
        return self.get(number) is not None


class Frames:
    """All recordings below a root. A recording is named by (subject, task) in BP4D, by (subject,) in DISFA."""

    def __init__(self, root: Path, files: Sequence[Path], dataset: str) -> None:
        self.root, self.dataset = root, dataset
        self.notes: list[str] = []
        self.folders = _folders(root)
        self.videos = [path for path in files if path.suffix.lower() in VIDEOS]

    def check(self, names: Sequence[tuple[str, ...]]) -> None:
        """Refuses data of which not one recording is there."""
        if not any(self._folder(name) or self._video(name) for name in names):
            first = "/".join(names[0]) if names else "subjects"
            kept = "LeftVideo..._comp.avi" if self.dataset == "DISFA" else f"{first}.avi"
            raise UserError(
                f"No pictures or videos of {self.dataset} below {self.root}: looked for folders such as {first} and "
                f"for videos such as {kept}. Put the release's frames or videos beside its codings."
            )

    def of(self, name: tuple[str, ...], last: int) -> Places:
        """One recording, of which frames up to number `last` are coded."""
        # DISFA is given out as videos, BP4D as pictures: what somebody made of them comes second.
        video = self._video(name) if self.dataset == "DISFA" else None
        folder = self._folder(name) if video is None else None
        if folder is not None:
            pictures = _numbered(folder)
            # DISFA's codings count from 1, extracted pictures from 0 or from 1.
            shift = int(self.dataset == "DISFA" and 0 in pictures)
            return Places(folder, {number + shift: path for number, path in pictures.items()})
        video = video or self._video(name)
        if video is None:
            return Places(self.root.joinpath("/".join(name)), {})
        length = _length(video)
        if self.dataset == "DISFA":
            return Places(video, None, 1, length)
        # BP4D's frames count from 0. A video whose last coded number is its very length must count from 1.
        first = int(last == length)
        if first:
            self.notes.append(f"{video}: {length} frames and frame {last} is coded, so its frames are counted from 1.")
        return Places(video, None, first, length)

    def _folder(self, name: tuple[str, ...]) -> Path | None:
        """The folder with this recording's pictures."""
        for base in self.folders:
            folder = base.joinpath(*name)
            if folder.is_dir() and any(path.suffix.lower() in PICTURES for path in folder.iterdir()):
                return folder
        return None

    def _video(self, name: tuple[str, ...]) -> Path | None:
        """`F001/T1.avi`, `F001/T1/anything.avi`, `F001_T1.avi`, `F001T1.avi`; `LeftVideoSN001_comp.avi`."""
        subject, *task = name
        wanted = re.compile(
            rf"LeftVideo{subject}(?:_comp)?" if self.dataset == "DISFA" else rf"{subject}[-_ ]?{''.join(task)}",
            re.IGNORECASE,
        )
        for path in self.videos:
            if wanted.fullmatch(path.stem):
                return path
        for base in self.folders:
            for path in _videos_in(base / subject):
                if wanted.fullmatch(path.stem) or [path.stem] == task:
                    return path
            inside = _videos_in(base.joinpath(*name)) if task else []
            if len(inside) > 1:
                listed = ", ".join(path.name for path in inside[:3])
                raise UserError(f"{inside[0].parent} holds {len(inside)} videos ({listed}). Leave the 2-D one there.")
            if inside:
                return inside[0]
        return None


def _folders(root: Path) -> list[Path]:
    """The root and the folders below it that may hold subjects' folders."""
    found = level = [root]
    for _ in range(DEPTH):
        level = [path for folder in level for path in sorted(folder.iterdir()) if _may_hold_subjects(path)]
        found = [*found, *level]
    return found


def _may_hold_subjects(path: Path) -> bool:
    return path.is_dir() and not SUBJECT.fullmatch(path.name) and path.name not in ("ActionUnit_Labels", "AUCoding")


def _videos_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEOS) if folder.is_dir() else []


def _numbered(folder: Path) -> dict[int, str]:
    """Frame number -> picture, however many digits the names have."""
    found = ((re.search(r"(\d+)$", path.stem), path) for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return {int(number[1]): str(path) for number, path in found if number}


def _length(video: Path) -> int | None:
    """Frames of a video as its header says; None where it does not."""
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            if stream.frames:
                return int(stream.frames)
            if stream.duration and stream.average_rate and stream.time_base:
                return int(stream.duration * stream.time_base * stream.average_rate + 0.5)
            return None
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UserError(f"Video {video} cannot be opened: {error}. Copy it again.") from None
