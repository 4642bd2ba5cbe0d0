"""Output files: what they may replace, and what becomes of files that a killed or failed run left."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from reports import UNITS, make_end, make_picture, make_report
from shared_files import HELPERS

from vlfau.engine.packets import Origin, StreamFailed
from vlfau.engine.settings import FileSettings, OutputSettings, PublishSettings, ScreenSettings
from vlfau.engine.sinks import open_sinks
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.openface import columns
from vlfau.engine.sinks.parquet import ParquetTable
from vlfau.engine.sinks.tables import CsvTable, JsonLines
from vlfau.models.errors import UserError

FLAGS = {"csv": "x.csv", "jsonl": "x.jsonl", "parquet": "x.parquet", "render": "x.mp4", "subtitles": "x.vtt"}
FOLDERS = (str(HELPERS), str(Path(__file__).parent))
TORN = b'{"torn":'


def open_files(
    origins: list[Origin] | None = None, inputs: list[Path] | None = None, *, quiet: bool = True, **files: Any
) -> Sinks:
    settings = OutputSettings(
        PublishSettings(bind="none"),
        FileSettings(**files),
        ScreenSettings(quiet=quiet),
    )
    return open_sinks(settings, UNITS, origins or [Origin("cam")], inputs or [])


def paths(folder: Path, *flags: str) -> dict[str, Any]:
    return {flag: folder / FLAGS[flag] for flag in flags or FLAGS}


def run(sinks: Sinks, frames: range = range(3), failure: BaseException | None = None) -> None:
    with sinks:
        for frame in frames:
            sinks.write(make_report(frame), make_picture(96, 128))
        if failure is not None:
            raise failure


def csv_frames(path: Path) -> list[int]:
    with open(path, encoding="utf-8", newline="") as file:
        return [int(row["frame"]) for row in csv.DictReader(file)]


def json_frames(path: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What may be replaced


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("link", ["same", "symlink", "hard link", "other spelling"])
def test_an_input_is_never_written_over(tmp_path: Path, flag: str, link: str) -> None:
    """The file is the last picture of the second source."""
    suffix = Path(FLAGS[flag]).suffix
    (tmp_path / "sub").mkdir()
    source = tmp_path / f"source{suffix}"
    source.write_bytes(b"mine")
    output = tmp_path / f"output{suffix}"
    if link == "symlink":
        output.symlink_to(source)
    elif link == "hard link":
        output.hardlink_to(source)
    else:
        output = source if link == "same" else tmp_path / "sub" / ".." / source.name
    origins = [Origin("cam", files=(tmp_path / "a.png", source))]
    with pytest.raises(UserError, match=rf"--{flag} would write over .*source{suffix}, which this run reads"):
        open_files(origins, **dict[str, Any]({flag: output}))
    assert source.read_bytes() == b"mine"


@pytest.mark.parametrize("flag", ["render", "subtitles"])
def test_names_per_stream_are_compared_with_the_inputs_too(tmp_path: Path, flag: str) -> None:
    output = tmp_path / FLAGS[flag]
    source = output.with_name(f"x.b{output.suffix}")
    source.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"--{flag} would write over"):
        open_files([Origin("a", files=(source,)), Origin("b")], **dict[str, Any]({flag: output}))


def test_the_files_of_a_folder_that_is_read_are_kept(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys" / "friend.key"
    key.write_text("key")
    with pytest.raises(UserError, match="--csv would write over"):
        open_files(inputs=[tmp_path / "keys"], csv=key)
    settings = OutputSettings(PublishSettings(allow=tmp_path / "keys"), FileSettings(jsonl=key))
    with pytest.raises(UserError, match="--jsonl would write over"):
        open_sinks(settings, UNITS, [])


@pytest.mark.parametrize("spelling", ["same", "symlink to nothing", "hard link"])
def test_two_outputs_are_never_one_file(tmp_path: Path, spelling: str) -> None:
    first = second = tmp_path / "x"
    if spelling != "same":
        second = tmp_path / "y"
    if spelling == "symlink to nothing":
        second.symlink_to(first)
    elif spelling == "hard link":
        first.write_text("mine")
        second.hardlink_to(first)
    with pytest.raises(UserError, match="--jsonl and --csv both write to"):
        open_files(csv=first, jsonl=second)


def test_two_streams_are_never_one_file_with_another_output(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--csv and --subtitles both write to"):
        open_files([Origin("a"), Origin("b")], csv=tmp_path / "x.a.vtt", subtitles=tmp_path / "x.vtt")


def test_the_null_device_takes_two_outputs() -> None:
    run(open_files(csv=Path(os.devnull), jsonl=Path(os.devnull)))


@pytest.mark.parametrize("flag", FLAGS)
def test_no_overwrite_holds_for_every_output(tmp_path: Path, flag: str) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / FLAGS[flag]
    path.write_text("mine")
    with pytest.raises(UserError, match="exists"):
        open_files(overwrite=False, **dict[str, Any]({flag: path}))
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("flag", ["render", "subtitles"])
def test_no_overwrite_holds_for_names_per_stream(tmp_path: Path, flag: str) -> None:
    path = tmp_path / FLAGS[flag]
    path.with_name(f"x.b{path.suffix}").write_text("mine")
    with pytest.raises(UserError, match=r"x\.b\..* exists"):
        open_files([Origin("a"), Origin("b")], overwrite=False, **dict[str, Any]({flag: path}))


def test_a_run_without_a_report_costs_no_old_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    files = paths(tmp_path)
    for path in files.values():
        path.write_text("yesterday's")
    with pytest.raises(UserError, match="unreadable"):
        run(open_files(**files), range(0), UserError("unreadable"))
    run(open_files(**files), range(0))
    assert {path.read_text(encoding="utf-8") for path in files.values()} == {"yesterday's"}
    assert names(tmp_path) == sorted(FLAGS.values())


def test_a_place_that_cannot_be_written_is_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match=r"Cannot write .*o\.csv: nothing can be created"):
        open_files(csv=tmp_path / "o.csv")


def test_places_where_no_file_can_be_are_named_first(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("circle", "x" * 300):
        with pytest.raises(UserError, match="Cannot write"):
            run(open_files(csv=tmp_path / name))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused_before_the_run(tmp_path: Path, flag: str, name: str) -> None:
    with pytest.raises(UserError, match="Cannot write"):
        open_files(**dict[str, Any]({flag: (tmp_path / name).with_suffix(Path(FLAGS[flag]).suffix)}))


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_continued_where_it_is(tmp_path: Path, name: str) -> None:
    """Also if it is a file: what others wrote to it before and after stays."""
    if not Path(name).exists():
        pytest.skip(f"this system has no {name}")
    script = PREPARE + "run(open_files(jsonl=Path(sys.argv[3])), range(3))"
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        print("first", file=log, flush=True)
        subprocess.run(
            [sys.executable, "-c", script, str(HELPERS), str(Path(__file__).parent), name], stdout=log, check=True
        )
        print("last", file=log, flush=True)
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("first", "last", 5)
    assert names(tmp_path) == ["log"]


def test_a_pipe_gets_the_rows_and_no_marker(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    run(open_files(csv=pipe, overwrite=False))
    reader.join()
    assert received[0].count(b"\n") == 4
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("flag", ["csv", "subtitles", "render"])
def test_the_wait_for_the_reader_of_a_pipe_can_be_stopped(tmp_path: Path, flag: str) -> None:
    path = tmp_path / FLAGS[flag]
    os.mkfifo(path)
    script = PREPARE + f"print('opens', flush=True)\nrun(open_files({flag}=Path(sys.argv[3])), range(3))"
    with subprocess.Popen(
        [sys.executable, "-c", script, *FOLDERS, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert b"KeyboardInterrupt" in errors


def test_a_video_can_go_to_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "x.mkv"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    run(open_files(render=pipe), range(30))
    reader.join()
    with av.open(io.BytesIO(received[0])) as film:
        assert sum(1 for _ in film.decode(video=0)) == 30


def test_parquet_needs_a_file() -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match="is a device or a pipe"):
        open_files(parquet=Path("/dev/stdout"))


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(open_files(render=Path("tcp:x.mp4")))
    assert names(tmp_path) == ["tcp:x.mp4"]


def test_such_a_name_is_a_table_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    path = Path("tcp:x.parquet")
    with pytest.raises(KeyError):
        run(open_files(parquet=path), range(2), KeyError())
    assert names(tmp_path) == [".tcp:x.parquet.unfinished", "tcp:x.parquet.parts"]
    run(open_files(parquet=path), range(2, 4))
    assert names(tmp_path) == ["tcp:x.parquet"]
    assert parquet.read_table(str(tmp_path / path)).column("frame").to_pylist() == [0, 1, 2, 3]


def test_a_table_needs_a_name_in_utf8(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match="needs a name in UTF-8"):
        open_files(parquet=tmp_path / "caf\udce9.parquet")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum"])
def test_no_name_is_a_formula_in_the_csv(tmp_path: Path, name: str) -> None:
    with CsvTable(tmp_path / "o.csv", UNITS) as table:
        table.write(make_report(0, name))
        table.write(make_report(0, name, pts=-1.0, faces=0))
    with open(tmp_path / "o.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stream"] for row in rows] == [f"'{name}"] * 2
    assert float(rows[1]["timestamp"]) == -1, "numbers stay numbers"


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_says_what_stays_only_if_something_does(tmp_path: Path, kept: bool) -> None:
    path = tmp_path / "o.jsonl"
    lines = JsonLines(path)
    with lines:
        lines.write(make_report()) if kept else lines.begin()
        assert lines._file is not None
        with open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), lines._file.fileno())
        with pytest.raises(UserError, match="The disk is full") as caught:
            lines.write(make_report())
    assert ("What was written stays" in str(caught.value)) == kept


# What a killed or failed run left

PREPARE = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_output_files import *
from vlfau.engine.sinks.render import Render
"""
WRITE = (
    PREPARE
    + """
import itertools, signal
import vlfau.engine.sinks.parquet as parquet
parquet.ParquetTable.__init__.__kwdefaults__["part_rows"] = 20
here = Path(sys.argv[3])
files = paths(here, *sys.argv[5:])
picture = make_picture(96, 128)
with open_files(quiet=False, **files) as sinks:
    for frame in itertools.count(int(sys.argv[4])):
        sinks.write(make_report(frame, sentence=frame // 10), picture)
        print(frame, flush=True)
"""
)


def written_until_a_kill(folder: Path, first: int, frames: int, *flags: str) -> tuple[int, str]:
    """The number after the last frame that was written, and what was printed."""
    arguments = [*FOLDERS, str(folder), str(first), *flags]
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(frames):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split("\n")
        errors = process.stderr.read()
    return first + frames + len(rest) - 1, errors


def check_tables(folder: Path, starts: list[int]) -> None:
    """Every printed frame is there, in order. The last of a run may have been written but not printed."""
    for found in (csv_frames(folder / "x.csv"), json_frames(folder / "x.jsonl")):
        position = 0
        for first, last in pairwise(starts):
            expected = list(range(first, last))
            assert found[position : position + len(expected)] == expected
            position += len(expected)
            if position < len(found) and found[position] == last and found[position + 1 : position + 2] == [last]:
                position += 1
        assert len(found) - position <= 1


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_no_row_is_lost_however_often_a_run_is_killed(tmp_path: Path, kills: int) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    chance = random.Random(kills)
    starts, flushed = [0], []
    for kill in range(kills):
        last, errors = written_until_a_kill(tmp_path, starts[-1], chance.randrange(1, 300), "csv", "jsonl", "parquet")
        assert errors.count("was left unfinished by an earlier run and is continued") == (3 if kill else 0), errors
        flushed += list(range(starts[-1], starts[-1] + (last - starts[-1]) // 20 * 20))
        starts.append(last)
        with open(tmp_path / "x.jsonl", "ab") as lines, open(tmp_path / "x.csv", "ab") as table:
            lines.write(TORN)  # as a power failure can leave it
            table.write(b"7,0,0.2")
    files = paths(tmp_path, "csv", "jsonl", "parquet")
    run(open_files(**files), range(starts[-1], starts[-1] + 1))
    check_tables(tmp_path, [*starts, starts[-1] + 1])
    stored = parquet.read_table(tmp_path / "x.parquet")["frame"].to_pylist()
    assert set(stored) >= {*flushed, starts[-1]}
    assert names(tmp_path) == ["x.csv", "x.jsonl", "x.parquet"]


def test_video_and_captions_of_a_killed_run_are_kept(tmp_path: Path) -> None:
    """With --no-overwrite, too: nothing is overwritten."""
    written_until_a_kill(tmp_path, 0, 60, "render", "subtitles")
    assert names(tmp_path) == [".x.mp4.unfinished", ".x.vtt.unfinished", "x.mp4", "x.vtt"]
    sizes = {(tmp_path / name).stat().st_size for name in ("x.mp4", "x.vtt")}
    files = paths(tmp_path, "render", "subtitles")
    run(open_files(overwrite=False, **files))
    kept = [name for name in names(tmp_path) if re.fullmatch(r"x\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.(mp4|vtt)", name)]
    assert {(tmp_path / name).stat().st_size for name in kept} == sizes
    assert names(tmp_path) == sorted([*kept, "x.mp4", "x.vtt"])


def test_the_dated_name_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "x.vtt", b"WEBVTT\n\n")
    with open_files(subtitles=tmp_path / "x.vtt", quiet=False):
        pass
    assert re.search(
        r"x\.vtt was left unfinished by an earlier run and is kept as x\.20[\dT-]+\.vtt\.\n", capsys.readouterr().err
    )


def leave(path: Path, content: bytes) -> None:
    """As a killed run does."""
    path.write_bytes(content)
    path.with_name(f".{path.name}.unfinished").touch()


def test_a_table_with_other_columns_is_kept(tmp_path: Path) -> None:
    leave(tmp_path / "x.csv", b"frame,other\n1,2\n")
    with CsvTable(tmp_path / "x.csv", UNITS) as table:
        table.write(make_report(5))
    assert csv_frames(tmp_path / "x.csv") == [5]
    kept = next(tmp_path.glob("x.20*.csv"))
    assert kept.read_bytes() == b"frame,other\n1,2\n"


@pytest.mark.parametrize("content", [b"", b"frame,fa", ",".join(columns(UNITS)).encode()])
def test_a_header_that_a_kill_cut_off_is_written_again(tmp_path: Path, content: bytes) -> None:
    leave(tmp_path / "x.csv", content)
    with CsvTable(tmp_path / "x.csv", UNITS) as table:
        table.write(make_report(5))
    assert csv_frames(tmp_path / "x.csv") == [5]
    assert names(tmp_path) == ["x.csv"]


def test_parts_with_other_columns_or_damage_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet.parts").mkdir()
    (tmp_path / "x.parquet.parts" / "00000.parquet").write_bytes(b"damaged")
    with ParquetTable(tmp_path / "x.parquet", UNITS) as table:
        table.write(make_report())
    kept = next(tmp_path.glob("x.parquet.20*.parts"))
    assert (kept / "00000.parquet").read_bytes() == b"damaged"
    assert names(tmp_path) == sorted([kept.name, "x.parquet"])


def test_a_kill_while_the_parts_are_removed_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("shutil.rmtree", lambda _: None)
    with ParquetTable(tmp_path / "x.parquet", UNITS, part_rows=2) as table:
        for frame in range(9):
            table.write(make_report(frame))
    monkeypatch.undo()
    assert len(names(tmp_path)) == 2
    run(open_files(parquet=tmp_path / "x.parquet"), range(0))
    assert parquet.read_table(tmp_path / "x.parquet").num_rows == 9
    assert names(tmp_path) == ["x.parquet"]


def test_a_finished_table_is_replaced_as_always(tmp_path: Path) -> None:
    for frames in (range(5), range(2)):
        run(open_files(csv=tmp_path / "x.csv", jsonl=tmp_path / "x.jsonl"), frames)
        assert csv_frames(tmp_path / "x.csv") == json_frames(tmp_path / "x.jsonl") == list(frames)
    assert names(tmp_path) == ["x.csv", "x.jsonl"]


@pytest.mark.parametrize(
    ("failure", "lost", "continued"),
    [
        (UserError("the disk is full"), False, True),
        (RuntimeError("device lost"), False, True),
        (StreamFailed("camera lost"), True, True),
        (StreamFailed("damaged file"), False, False),
        (KeyboardInterrupt(), False, False),
    ],
)
def test_a_failed_run_is_continued_and_an_ended_one_is_not(
    tmp_path: Path, failure: BaseException, lost: bool, continued: bool
) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = paths(tmp_path, "csv", "jsonl", "parquet")
    sinks = open_files(**files)
    if lost:
        sinks._lost = True
    with pytest.raises(type(failure)):
        run(sinks, range(3), failure)
    run(open_files(**files), range(3, 5))
    expected = [*(range(3) if continued else ()), 3, 4]
    assert csv_frames(files["csv"]) == json_frames(files["jsonl"]) == expected
    assert parquet.read_table(files["parquet"])["frame"].to_pylist() == expected
    assert names(tmp_path) == ["x.csv", "x.jsonl", "x.parquet"]


def test_a_stream_that_is_lost_is_noticed() -> None:
    with open_files() as sinks:
        sinks.end(make_end(reason="lost"))
        assert sinks._lost


def test_a_file_that_another_run_writes_is_refused(tmp_path: Path) -> None:
    with open_files(csv=tmp_path / "x.csv") as sinks:
        sinks.write(make_report())
        with pytest.raises(UserError, match="Another run is writing"):
            open_files(csv=tmp_path / "x.csv")
    run(open_files(csv=tmp_path / "x.csv"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_kill_costs_at_most_a_second_of_video(tmp_path: Path, suffix: str, kills: int) -> None:
    chance = random.Random(kills)
    for kill in range(kills):
        path = tmp_path / f"{kill}{suffix}"
        frames = chance.randrange(40, 200)
        with subprocess.Popen(
            [sys.executable, "-c", RENDER, *FOLDERS, str(path)],
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for _ in range(frames):
                process.stdout.readline()
            process.kill()
            frames += len(process.stdout.read().split("\n")) - 1
        with av.open(str(path)) as film:
            played = sum(1 for _ in film.decode(video=0))
        print(f"{suffix}: {frames} written, {frames - played} lost")
        assert 0 <= frames - played <= 25


RENDER = (
    PREPARE
    + """
with Render(Path(sys.argv[3]), [Origin("cam")]) as sink:
    for frame in range(1000):
        sink.write(make_report(frame), make_picture(96, 128))
        print(frame, flush=True)
"""
)
