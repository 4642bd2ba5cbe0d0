"""Finds the frames of original releases: numbered images in folders, or videos.

BP4D is published as `2D+3D/F001/T1/*.jpg` (next to meshes, which are ignored) and is also kept as one video per
subject and task; DISFA as one video per subject. Folders may have any name and lie a few levels deep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from ..errors import UserError
from ..files import PICTURES, VIDEOS
from .datasets import CODING_FOLDERS, SUBJECT, Dataset
from .table import IMAGE_FILE

DEPTH = 3  # folders between the root and the subjects' folders


@dataclass(frozen=True, slots=True)
class Place:
    source: str  # an image or a video
    frame: int  # from 0 within a video, or IMAGE_FILE


@dataclass(frozen=True, slots=True)
class Recording:
    """The frames of one recording, by the numbers that the coders used."""

    source: Path
    images: dict[int, str] | None = None
    first: int = 0  # number of a video's first frame
    length: int | None = None  # frames of the video; None if its header does not say

    def get(self, number: int) -> Place | None:
        if self.images is not None:
            return Place(self.images[number], IMAGE_FILE) if number in self.images else None
        frame = number - self.first
        return Place(str(self.source), frame) if frame >= 0 and (self.length is None or frame < self.length) else None

    def __contains__(self, number: int) -> bool:
        return self.get(number) is not None


class Frames:
    """All recordings below a root. A recording's name is (subject, task) in BP4D, (subject,) in DISFA."""

    def __init__(self, root: Path, files: Sequence[Path], dataset: Dataset) -> None:
        self.root, self.dataset = root, dataset
        self.notes: list[str] = []
        self.folders = _folders(root)
        self.videos = [path for path in files if path.suffix.lower() in VIDEOS]

    def check(self, names: Sequence[tuple[str, ...]]) -> None:
        """Raises if there is not a single recording."""
        if not any(self._folder(name) or self._video(name) for name in names):
            first = "/".join(names[0]) if names else "subjects"
            video = self.dataset.video_example.format(recording=first)
            raise UserError(
                f"No images or videos of {self.dataset.name} below {self.root}: looked for folders such as {first} and "
                f"for videos such as {video}. Put the frames or videos of the release next to its codings."
            )

    def of(self, name: tuple[str, ...], last: int) -> Recording:
        """One recording, coded up to frame number `last`."""
        # The form of the release comes first, converted copies second.
        video = self._video(name) if self.dataset.as_videos else None
        folder = self._folder(name) if video is None else None
        if folder is not None:
            images = _numbered(folder)
            # DISFA's codings count from 1, extracted images from 0 or from 1.
            shift = self.dataset.first_frame if 0 in images else 0
            return Recording(folder, {number + shift: path for number, path in images.items()})
        video = video or self._video(name)
        if video is None:
            return Recording(self.root.joinpath("/".join(name)), {})
        length, first = _length(video), self.dataset.first_frame
        if first == 0 and last == length:  # a video whose last coded number is its very length must count from 1
            first = 1
            self.notes.append(f"{video}: {length} frames and frame {last} is coded, so its frames are counted from 1.")
        return Recording(video, None, first, length)

    def _folder(self, name: tuple[str, ...]) -> Path | None:
        """The folder with this recording's images."""
        for base in self.folders:
            folder = base.joinpath(*name)
            if folder.is_dir() and any(path.suffix.lower() in PICTURES for path in folder.iterdir()):
                return folder
        return None

    def _video(self, name: tuple[str, ...]) -> Path | None:
        """`F001/T1.avi`, `F001/T1/anything.avi`, `F001_T1.avi`, `F001T1.avi`; `LeftVideoSN001_comp.avi`."""
        subject, *task = name
        pattern = re.compile(self.dataset.video.format(subject=subject, task="".join(task)), re.IGNORECASE)
        for path in self.videos:
            if pattern.fullmatch(path.stem):
                return path
        for base in self.folders:
            for path in _videos_in(base / subject):
                if pattern.fullmatch(path.stem) or [path.stem] == task:
                    return path
            inside = _videos_in(base.joinpath(*name)) if task else []
            if len(inside) > 1:
                listed = ", ".join(path.name for path in inside[:3])
                raise UserError(f"{inside[0].parent} holds {len(inside)} videos ({listed}). Leave only the 2-D one.")
            if inside:
                return inside[0]
        return None


def _folders(root: Path) -> list[Path]:
    """The root and the folders below it that may hold subjects' folders."""
    folders = level = [root]
    for _ in range(DEPTH):
        level = [path for folder in level for path in sorted(folder.iterdir()) if _may_hold_subjects(path)]
        folders = [*folders, *level]
    return folders


def _may_hold_subjects(path: Path) -> bool:
    return path.is_dir() and not SUBJECT.fullmatch(path.name) and path.name not in CODING_FOLDERS


def _videos_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEOS) if folder.is_dir() else []


def _numbered(folder: Path) -> dict[int, str]:
    """Frame number -> image, however many digits the names have."""
    matches = ((re.search(r"(\d+)$", path.stem), path) for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return {int(number[1]): str(path) for number, path in matches if number}


def _length(video: Path) -> int | None:
    """Frames of a video according to its header; None if the header does not say."""
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
