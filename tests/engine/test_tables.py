"""Tables: OpenFace's columns, kills, full disks, and scripts written for other tools."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from neighbours import slowness
from reports import UNITS, make_face, make_report
from shared_files import HELPERS

from vlfau.engine import wire
from vlfau.engine.packets import Origin
from vlfau.engine.settings import FileSettings, OutputSettings, PublishSettings, ScreenSettings
from vlfau.engine.sinks import open_sinks
from vlfau.engine.sinks.base import Sink
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.openface import columns
from vlfau.engine.sinks.parquet import ParquetTable
from vlfau.engine.sinks.tables import CsvTable, JsonLines
from vlfau.models.errors import UserError


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_openfaces_in_their_order() -> None:
    names = columns(UNITS)
    openface = ["frame", "face_id", "timestamp", "confidence", "success", "pose_Rx", "pose_Ry", "pose_Rz"]
    assert names[: len(openface)] == openface
    first, second = names.index("AU01_r"), names.index("AU01_c")
    assert names[first : first + 17] == [f"{unit}_r" for unit in UNITS]
    assert names[second : second + 17] == [f"{unit}_c" for unit in UNITS]
    assert names.index("stream") > second + 16, "our own columns come last"
    assert len(set(names)) == len(names)


def test_a_row_holds_the_values_of_its_report(tmp_path: Path) -> None:
    report = make_report(7, faces=2)
    with CsvTable(tmp_path / "out.csv", UNITS) as table:
        table.write(report)
    rows = read(tmp_path / "out.csv")
    assert [row["face_id"] for row in rows] == ["0", "1"]
    for row, face in zip(rows, report.faces):
        assert (row["frame"], row["success"], row["stream"], row["text"]) == ("7", "1", "cam", face.text)
        assert float(row["timestamp"]) == pytest.approx(report.pts)
        for unit in UNITS:
            assert float(row[f"{unit}_r"]) == pytest.approx(5 * face.aus[unit].p, abs=1e-3)
            assert row[f"{unit}_c"] == str(int(face.aus[unit].on))
        assert (float(row["x_30"]), float(row["y_30"])) == face.landmarks[2]
        assert face.pose is not None
        assert float(row["pose_Rx"]) == pytest.approx(-math.radians(face.pose.pitch), abs=1e-3)
        assert float(row["pose_Ry"]) == pytest.approx(-math.radians(face.pose.yaw), abs=1e-3)
        assert float(row["pose_Rz"]) == pytest.approx(math.radians(face.pose.roll), abs=1e-3)


def test_frames_without_valid_faces_are_rows_without_invented_units(tmp_path: Path) -> None:
    with CsvTable(tmp_path / "out.csv", UNITS) as table:
        table.write(make_report(0, faces=0))
        table.write(make_report(1, valid=False))
    absent, unjudged = read(tmp_path / "out.csv")
    assert (absent["success"], absent["confidence"], absent["AU01_r"], absent["stream"]) == ("0", "0.0", "", "cam")
    assert (unjudged["success"], unjudged["AU12_c"], unjudged["pose_Rx"]) == ("0", "", "")
    assert unjudged["confidence"] == "0.97"


def test_text_with_commas_and_quotes_survives(tmp_path: Path) -> None:
    words = 'raised, "dimpled"\ncheeks'
    face = make_face()
    spoken = wire.Face(**{name: getattr(face, name) for name in face.__struct_fields__} | {"text": words})
    report = make_report()
    with CsvTable(tmp_path / "out.csv", UNITS) as table:
        table.write(
            wire.Report(**{name: getattr(report, name) for name in report.__struct_fields__} | {"faces": [spoken]})
        )
    assert read(tmp_path / "out.csv")[0]["text"] == words


def test_json_lines_are_the_payloads(tmp_path: Path) -> None:
    reports = [make_report(frame, faces=frame % 3) for frame in range(9)]
    with JsonLines(tmp_path / "out.jsonl") as lines:
        for report in reports:
            lines.write(report)
            assert (tmp_path / "out.jsonl").read_bytes().endswith(wire.line(report)), "there when write returns"
    stored = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [wire.decode_payload("au", payload) for payload in stored] == reports


def test_parquet_holds_the_rows_of_the_csv(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with (
        ParquetTable(tmp_path / "out.parquet", UNITS, part_rows=4) as table,
        CsvTable(tmp_path / "o.csv", UNITS) as twin,
    ):
        for frame in range(10):
            for sink in (table, twin):
                sink.write(make_report(frame, faces=frame % 3, valid=frame != 5))
    stored = parquet.read_table(tmp_path / "out.parquet")
    assert stored.column_names == columns(UNITS)
    for row, expected in zip(stored.to_pylist(), read(tmp_path / "o.csv")):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == expected
    assert stored.num_rows == len(read(tmp_path / "o.csv")) == 13
    assert [path.name for path in tmp_path.glob("out.parquet*")] == ["out.parquet"], "no other file is left"


def test_an_empty_run_leaves_an_empty_parquet_file(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with ParquetTable(tmp_path / "out.parquet", UNITS):
        pass
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from reports import UNITS, make_report
from vlfau.engine.settings import FileSettings, OutputSettings, PublishSettings, ScreenSettings
from vlfau.engine.sinks import Origin, open_sinks
import vlfau.engine.sinks.parquet as parquet
parquet.ParquetTable.__init__.__kwdefaults__["part_rows"] = 20
here = Path(sys.argv[2])
files = FileSettings(csv=here / "o.csv", jsonl=here / "o.jsonl", parquet=here / "o.parquet", subtitles=here / "o.vtt")
settings = OutputSettings(PublishSettings(bind="none"), files, ScreenSettings(quiet=True))
with open_sinks(settings, UNITS, [Origin("cam")]) as sinks:
    for frame in range(110):
        sinks.write(make_report(frame, sentence=frame // 10))
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_kill_leaves_every_finished_row(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(HELPERS), str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert [int(row["frame"]) for row in read(tmp_path / "o.csv")] == list(range(110))
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert [wire.decode_payload("au", payload).seq for payload in lines] == list(range(110))
    parts = parquet.read_table(tmp_path / "o.parquet.parts")
    assert sorted(parts["frame"].to_pylist()) == list(range(100)), "every finished part, readable as one table"
    assert (tmp_path / "o.vtt").read_text(encoding="utf-8").count("-->") == 10
    with ParquetTable(tmp_path / "o.parquet", UNITS) as table:
        table.write(make_report(110))
    assert parquet.read_table(tmp_path / "o.parquet")["frame"].to_pylist() == [*range(100), 110]


@pytest.mark.parametrize("kind", [CsvTable, JsonLines])
def test_a_full_disk_names_the_file(tmp_path: Path, kind: type) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    path = tmp_path / "rows"
    path.symlink_to("/dev/full")
    table = JsonLines(path) if kind is JsonLines else CsvTable(path, UNITS)
    with pytest.raises(UserError, match=r"The disk is full: .*rows cannot grow"):
        write_one(table)


def write_one(sink: Sink) -> None:
    with sink:
        sink.write(make_report())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB that can really fill up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # a reader may still hold a file


def test_a_disk_that_fills_up_keeps_whole_rows(small_disk: Path) -> None:
    files = FileSettings(csv=small_disk / "o.csv", jsonl=small_disk / "o.jsonl")
    settings = OutputSettings(PublishSettings(bind="none"), files, ScreenSettings(quiet=True))
    with pytest.raises(UserError, match=r"The disk is full: .*o\.(csv|jsonl)"):
        fill(open_sinks(settings, UNITS, [Origin("cam")]))
    assert (small_disk / "o.csv").read_bytes().endswith(b"\n")
    assert (small_disk / "o.jsonl").read_bytes().endswith(b"\n")
    rows = [int(row["frame"]) for row in read(small_disk / "o.csv")]
    assert rows == list(range(len(rows)))
    assert len(rows) > 20
    for payload in (small_disk / "o.jsonl").read_bytes().splitlines():
        wire.decode_payload("au", payload)


@pytest.mark.parametrize("group", [50, 10**6])
def test_a_disk_that_fills_up_keeps_the_parts(small_disk: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """Whether it fills up while a part or the single file is written."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("vlfau.engine.sinks.parquet.GROUP_ROWS", group)
    with pytest.raises(UserError, match=r"The disk is full: .*o\.parquet cannot grow"):
        fill(Sinks([ParquetTable(small_disk / "o.parquet", UNITS, part_rows=20)]))
    assert not (small_disk / "o.parquet").exists(), "no file that lacks rows"
    frames = parquet.read_table(small_disk / "o.parquet.parts")["frame"].to_pylist()
    assert frames == list(range(len(frames)))
    assert len(frames) >= 40


def test_hours_of_rows_are_finished_quickly(tmp_path: Path) -> None:
    """A stop may take two seconds, so the work left at the end must not grow with the length of the run."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = ParquetTable(tmp_path / "o.parquet", UNITS, part_rows=300)
    report = make_report()
    with table:
        for frame in range(30_000):
            table.write(msgspec.structs.replace(report, frame=frame))
        began = time.monotonic()
        before = table._group_rows + len(table._rows)
    assert time.monotonic() - began < 0.5 * slowness()
    assert before < 10_000, "rows that are not in the file yet"
    stored = parquet.ParquetFile(tmp_path / "o.parquet")
    assert stored.read()["frame"].to_pylist() == list(range(30_000))
    assert stored.num_row_groups < 10


def fill(sinks: Sinks) -> None:
    with sinks:
        for frame in range(10_000):
            sinks.write(make_report(frame))


def test_the_first_error_is_raised_and_all_sinks_are_closed() -> None:
    closed: list[str] = []

    class Faulty(Sink):
        def __init__(self, name: str) -> None:
            self.name = name

        def write(self, report: wire.Report, pixels: object = None) -> None:
            if self.name == "second":
                raise UserError("the second cannot")

        def close(self) -> None:
            closed.append(self.name)
            raise UserError(f"{self.name} did not close")

    sinks = Sinks([Faulty("first"), Faulty("second"), Faulty("third")])
    with pytest.raises(UserError, match="the second cannot"):
        write_one(sinks)  # type: ignore[arg-type]
    assert sorted(closed) == ["first", "second", "third"]


@pytest.mark.parametrize(("name", "message"), [("no/such/o.csv", "does not exist"), ("", "is a folder")])
def test_places_that_cannot_be_written_are_named_before_the_run(tmp_path: Path, name: str, message: str) -> None:
    settings = OutputSettings(PublishSettings(bind="none"), FileSettings(csv=tmp_path / name))
    with pytest.raises(UserError, match=message):
        open_sinks(settings, UNITS, [])


def test_existing_files_are_kept_with_no_overwrite(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("mine")
    settings = OutputSettings(PublishSettings(bind="none"), FileSettings(csv=tmp_path / "o.csv", overwrite=False))
    with pytest.raises(UserError, match="exists"):
        open_sinks(settings, UNITS, [])
    assert (tmp_path / "o.csv").read_text(encoding="utf-8") == "mine"


def test_a_script_written_for_openface_runs(tmp_path: Path) -> None:
    """Such scripts strip the names, keep successes above a confidence, and average intensities and states."""
    with CsvTable(tmp_path / "out.csv", UNITS) as table:
        for frame in range(20):
            table.write(make_report(frame, valid=frame % 4 != 0))
    rows = [{name.strip(): value for name, value in row.items()} for row in read(tmp_path / "out.csv")]
    valid = [row for row in rows if int(row["success"]) == 1 and float(row["confidence"]) >= 0.8]
    intensities = {
        name: sum(float(row[name]) for row in valid) / len(valid) for name in valid[0] if name.endswith("_r")
    }
    shares = {
        name: sum(float(row[name]) == 1 for row in valid) / len(valid) for name in valid[0] if name.endswith("_c")
    }
    assert len(valid) == 15
    assert len(intensities) == len(shares) == 17
    assert all(0 <= mean <= 5 for mean in intensities.values())
