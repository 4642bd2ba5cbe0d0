"""Small synthetic data sets in every layout that `open_layout` reads: drawn faces that show their labels.

`truth()` holds the labels; every maker writes the same ones in the format of another project.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from vlfau.models.data.datasets import DATASETS, TESTED
from vlfau.models.faces import align

UNITS = {name: dataset.units for name, dataset in DATASETS.items()}

# Two subjects of every published part.
SUBJECTS = {
    "BP4D": {1: ("F001", "M007"), 2: ("M011", "F003"), 3: ("F007", "F015")},
    "DISFA": {1: ("SN002", "SN010"), 2: ("SN013", "SN018"), 3: ("SN003", "SN029")},
}
RENDERED = tuple(f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43))
SIDE = 96  # of the drawn pictures
POINTS = (align.TEMPLATE * SIDE).astype(np.float32)  # where a drawn face has its five points

# Flags of `vlfau-train` for a training that takes a moment on them.
MOMENT = ("--no-pretrained", "--batch", "4", "--workers", "0", "--device", "cpu")

Key = tuple[str, str, int]  # subject, task, frame (BP4D as coded; DISFA from 0)
Truth = dict[Key, list[int]]


def truth(dataset: str, frames: int = 4, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    units = len(UNITS[dataset])
    tasks = ("T1", "T2") if dataset == "BP4D" else ("",)
    first = 9 if dataset == "BP4D" else 0  # so that names have one and two digits
    return {
        (subject, task, first + frame): (rng.random(units) < 0.35).astype(int).tolist()
        for part in (1, 2, 3)
        for subject in SUBJECTS[dataset][part]
        for task in tasks
        for frame in range(frames)
    }


def draw(labels: Iterable[int], subject: str, side: int = SIDE) -> NDArray[np.uint8]:
    """(side, side, 3) RGB: an oval of the subject's own colour, and one bright bar for every active unit."""
    values = list(labels)
    rng = np.random.default_rng(list(subject.encode()))
    picture = np.full((side, side, 3), 40, np.uint8)
    colour = tuple(int(value) for value in rng.integers(90, 150, 3))
    cv2.ellipse(picture, (side // 2, side // 2), (int(side * 0.36), int(side * 0.46)), 0, 0, 360, colour, -1)
    columns = 4
    for i, value in enumerate(values):
        x, y = 0.3 + 0.12 * (i % columns), 0.2 + 0.13 * (i // columns)
        start = int(x * side), int(y * side)
        end = int((x + 0.09) * side), int((y + 0.09) * side)
        cv2.rectangle(picture, start, end, (255, 255, 255) if value == 1 else (20, 20, 20), -1)
    return picture


def find_points(picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Stands in for a detector: the face of a drawn image is in a fixed place; a black image has none."""
    return POINTS * (picture.shape[0] / SIDE) if picture.max() > 30 else None


def write_picture(path: Path, labels: Iterable[int], subject: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), draw(labels, subject)[:, :, ::-1])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def part_of(dataset: str, subject: str) -> int:
    return next(part for part, names in SUBJECTS[dataset].items() if subject in names)


def _spaced(labels: list[int]) -> str:
    return " ".join(map(str, labels))


def make_graphau(root: Path, dataset: str, seed: int = 0, style: str = "graphau") -> Truth:
    coded = truth(dataset, seed=seed)
    names: dict[Key, str] = {}
    for (subject, task, frame), labels in coded.items():
        if dataset == "BP4D":
            name = f"{subject}/{task}/{frame}.jpg"
        else:
            name = f"{subject}/{subject}_{frame}.png" if style == "mdhr" else f"{subject}/{frame}.png"
        names[subject, task, frame] = name
        write_picture(root / "img" / name, labels, subject)
    for fold, tested in enumerate(TESTED, 1):
        for side in ("train", "test"):
            keys = [key for key in coded if (part_of(dataset, key[0]) == tested) == (side == "test")]
            write_lines(root / "list" / f"{dataset}_{side}_img_path_fold{fold}.txt", (names[key] for key in keys))
            write_lines(root / "list" / f"{dataset}_{side}_label_fold{fold}.txt", (_spaced(coded[key]) for key in keys))
        write_lines(root / "list" / f"{dataset}_weight_fold{fold}.txt", ["1 " * len(UNITS[dataset])])
    return coded


def make_mdhr(root: Path, dataset: str, seed: int = 0) -> Truth:
    return make_graphau(root, dataset, seed, "mdhr")


def make_jaanet(root: Path, dataset: str, seed: int = 0) -> Truth:
    coded = truth(dataset, seed=seed)
    names = {
        (subject, task, frame): f"BP4D/{subject}/{task}/{frame:04d}.jpg" if task else f"DISFA/{subject}/{frame}.jpg"
        for subject, task, frame in coded
    }
    for key, labels in coded.items():
        write_picture(root / "imgs" / names[key], labels, key[0])
    for tested in (1, 2, 3):
        others = [part for part in (1, 2, 3) if part != tested]
        for stem, parts in ((f"part{tested}", [tested]), ("combine_{}_{}".format(*others), others)):
            keys = [key for part in parts for key in coded if part_of(dataset, key[0]) == part]
            write_lines(root / "list" / f"{dataset}_{stem}_path.txt", (names[key] for key in keys))
            write_lines(root / "list" / f"{dataset}_{stem}_AUoccur.txt", (_spaced(coded[key]) for key in keys))
    return coded


def make_aunet(root: Path, dataset: str, seed: int = 0) -> Truth:
    coded = truth(dataset, seed=seed)
    names, listed = {}, {}
    for key in coded:
        subject, task, frame = key
        names[key] = f"{subject}/{task}/{frame:04d}.jpg" if task else f"LeftVideo{subject}_comp_{frame:08d}.jpg"
        listed[key] = f"{subject}_{task}_{frame:04d}.jpg" if task else f"DISFA/{subject}/{frame}.jpg"
        write_picture(root / ("BP4D-small" if task else "DISFA_frames") / names[key], coded[key], subject)
    annotation = root / f"{dataset}_retina_anno"
    write_lines(annotation / f"{dataset}_names_label.txt", names.values())
    np.savetxt(annotation / "au_labels.txt", np.array(list(coded.values())))
    for fold, tested in enumerate(TESTED, 1):
        test = [listed[key] for key in coded if part_of(dataset, key[0]) == tested]
        train = [listed[key] for key in coded if part_of(dataset, key[0]) != tested]
        if dataset == "BP4D":
            write_lines(root / "splits" / f"BP4D_tr{fold}_path.txt", train)
            write_lines(root / "splits" / f"BP4D_ts{fold}_path.txt", test)
        else:
            write_lines(root / "splits" / f"DISFA_part{tested}_path.txt", test)
    return coded


def make_fgnet(root: Path, dataset: str, seed: int = 0) -> Truth:
    coded = truth(dataset, seed=seed)
    shift = 1 if dataset == "DISFA" else 0  # FG-Net counts DISFA's frames from 1
    names = {
        (subject, task, frame): "/".join(
            filter(None, (dataset, "aligned_images", subject, task, f"{frame + shift:05d}.jpg"))
        )
        for subject, task, frame in coded
    }
    for key, labels in coded.items():
        write_picture(root / names[key], labels, key[0])
    for number in range(3):  # fold k tests part k + 1: not the order of the others
        for file, test in (("train", False), ("train_2", False), ("test", True)):
            path = root / dataset / "labels" / str(number) / f"{file}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            keys = [key for key in coded if (part_of(dataset, key[0]) == number + 1) == test]
            with path.open("w", newline="") as opened:
                writer = csv.writer(opened)
                writer.writerow(["image_path", *(f"au{int(unit[2:])}" for unit in UNITS[dataset])])
                writer.writerows([names[key], *coded[key]] for key in (keys[:2] if file == "train_2" else keys))
    return coded


BP4D_VIDEOS = ("{subject}/{task}.avi", "{subject}_{task}.avi", "{subject}/{task}/camera.avi")


def make_raw_bp4d(root: Path, seed: int = 0, video: str = "") -> Truth:
    """With further units, an uncoded one (9), intensities of AU12, and a coded frame without an image.

    Images lie next to meshes as in the release; with `video`, a pattern of names, there are videos instead.
    """
    coded = truth("BP4D", seed=seed)
    for subject, task in sorted({key[:2] for key in coded}):
        frames = [key for key in coded if key[:2] == (subject, task)]
        lines = ["0," + ",".join(str(int(unit[2:])) for unit in UNITS["BP4D"]) + ",5"]
        for key in frames:
            lines.append(f"{key[2]}," + ",".join(map(str, coded[key])) + ",9")
        lines.append("5000," + ",".join(["0"] * 12) + ",9")
        base = root / "VIDEOS" / "2D+3D"
        if video:
            before = [draw([0] * 12, "no subject")] * frames[0][2]  # the coded part is in the middle of a recording
            path = base / video.format(subject=subject, task=task)
            write_video(path, [*before, *(draw(coded[key], subject) for key in frames), *before])
        else:
            for key in frames:
                write_picture(base / subject / task / f"{key[2]:04d}.jpg", coded[key], subject)
                write_lines(base / subject / task / f"{key[2]:04d}.obj", ["v 0 0 0"])
        write_lines(root / "AUCoding" / "AU_OCC" / f"{subject}_{task}.csv", lines)
        column = UNITS["BP4D"].index("AU12")
        levels = (f"{key[2]},{3 if coded[key][column] else 1}" for key in frames)
        write_lines(root / "AUCoding" / "AU_INT" / "AU12" / f"{subject}_{task}_AU12.csv", levels)
    return coded


def make_raw_disfa(root: Path, seed: int = 0, videos: bool = True) -> Truth:
    """Intensities 3 and 1 for present and absent, all twelve units coded, one video or folder of frames per subject."""
    coded = truth("DISFA", seed=seed)
    for subject in sorted({key[0] for key in coded}):
        keys = [key for key in coded if key[0] == subject]
        for number in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26):
            unit = f"AU{number:02d}"
            column = UNITS["DISFA"].index(unit) if unit in UNITS["DISFA"] else None
            levels = (f"{key[2] + 1},{0 if column is None else 3 if coded[key][column] else 1}" for key in keys)
            write_lines(root / "ActionUnit_Labels" / subject / f"{subject}_au{number}.txt", levels)
        pictures = [draw(coded[key], subject) for key in keys]
        if videos:
            write_video(root / "Videos_LeftCamera" / f"LeftVideo{subject}_comp.avi", pictures)
        else:
            for key, picture in zip(keys, pictures):
                path = root / "Frames" / subject / f"{key[2]}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture[:, :, ::-1])
    return coded


def write_video(path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def make_csv(root: Path, seed: int = 0) -> Truth:
    """Any other data: subjects with other names, and empty cells."""
    coded = {(f"p{key[0]}", key[1], key[2]): labels for key, labels in truth("BP4D", seed=seed).items()}
    root.mkdir(parents=True, exist_ok=True)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "subject", *(f"AU{int(unit[2:])}" for unit in UNITS["BP4D"])])
        for i, (key, labels) in enumerate(coded.items()):
            name = f"pictures/{key[0]}_{key[1]}_{key[2]}.png"
            write_picture(root / name, labels, key[0])
            if i % 5 == 0:
                labels[i % 12] = -1
            writer.writerow([name, key[0], *("" if label < 0 else label for label in labels)])
    return coded


def make_shards(root: Path, count: int = 24, files: int = 2, seed: int = 0, people: int = 8) -> None:
    """Stand-ins for renders: drawn faces in a loose view; some labels are unknown, every ninth image has no face."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    template = (30 + 100 * align.TEMPLATE).astype(np.float32)
    for number in range(files):
        presence = (rng.random((count, len(RENDERED))) < 0.3).astype(np.int8)
        presence[rng.random(presence.shape) < 0.05] = -1
        face = (np.arange(count) % 9 != 8).astype(np.uint8)
        presence[face == 0] = -1
        identity = rng.integers(0, people, count).astype(np.int32)
        images = np.full((count, 160, 160, 3), 60, np.uint8)
        for i in np.flatnonzero(face):
            images[i, 30:130, 30:130] = draw(presence[i], f"{identity[i]}", 100)
        points = np.full((count, 68, 2), 80, np.float32)
        for first, last, five in zip((36, 42, 30, 48, 54), (42, 48, 31, 49, 55), template):
            points[:, first:last] = five
        intensity = rng.uniform(0.0, 1.0, (count, len(RENDERED), 2)).astype(np.float16)
        tensors = {
            "images": images,
            "intensity": intensity,
            "presence": presence,
            "points": points,
            "pose": np.zeros((count, 3), np.float32),
            "box": np.tile(np.array([30, 30, 130, 130], np.float32), (count, 1)),
            "identity": identity,
            "face": face,
            "head": np.zeros(count, np.uint8),
        }
        metadata = {"schema": "1", "units": " ".join(RENDERED), "seed": str(seed), "recipe": "drawn"}
        save_file(tensors, root / f"shard-{number:05d}.safetensors", metadata)
        write_lines(root / f"shard-{number:05d}.jsonl", ['{"text": "the face is at rest"}'] * count)


LISTS: dict[str, Callable[[Path, str], Truth]] = {
    "graphau": make_graphau,
    "mdhr": make_mdhr,
    "jaanet": make_jaanet,
    "aunet": make_aunet,
    "fgnet": make_fgnet,
}
