"""The examples work: on scripted reports, and those that need the engine on a clip."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from reports import UNITS, make_end, make_picture, make_report
from shared_files import ROOT

from vlfau.engine import wire
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.tables import CsvTable
from vlfau.engine.sinks.zeromq import Publisher

EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_units(report: wire.Report, *on: str) -> wire.Report:
    aus = {name: wire.Unit(0.9 if name in on else 0.1, name in on) for name in UNITS}
    return msgspec.structs.replace(report, faces=[msgspec.structs.replace(face, aus=aus) for face in report.faces])


def test_subscribe_prints_the_reports_of_a_running_engine() -> None:
    settings = PublishSettings(bind="tcp://127.0.0.1:*", wait_subscribers=1)
    with Publisher(settings) as publisher:
        command = [sys.executable, str(EXAMPLES / "subscribe.py"), publisher.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            sinks = Sinks([publisher], ["cam"])
            sinks.wait(lambda: process.poll() is not None)
            for frame in range(3):
                sinks.write(with_units(make_report(frame), "AU12", "AU06"))
            sinks.end(make_end())
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = output.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("cam    0.04 s  face 0: AU06 AU12  The cheeks")
    assert lines[3] == "The engine has ended. 0 messages were lost."


def test_plot_aus_draws_the_face_that_was_seen_most(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table, picture = tmp_path / "talk.csv", tmp_path / "talk.png"
    with CsvTable(table, UNITS) as sink:
        for frame in range(40):
            sink.write(make_report(frame, faces=2 if frame < 10 else 1))
            sink.write(make_report(frame, valid=False))
    plot = load("plot_aus")
    plot.main(str(table), str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    with open(table, encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    table.write_text(",".join(header) + "\n")
    with pytest.raises(SystemExit, match="no rows with action units"):
        plot.main(str(table), str(picture))


def scripted(monkeypatch: pytest.MonkeyPatch, module: ModuleType, reports: list[wire.Report]) -> None:
    """Replaces the engine: the same `with`, and the reports that the test wants."""

    @contextmanager
    def engine(*sources: str, **settings: object) -> Iterator[list[wire.Report]]:
        yield reports

    monkeypatch.setattr(module, "open_engine", engine)


def test_find_smiles_finds_the_held_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("find_smiles")
    reports = []
    for frame in range(100):  # 25 a second: a held smile, a short one, a mouth without eyes, one at the end
        both = 10 <= frame < 30 or 40 <= frame < 45 or frame >= 80
        reports.append(with_units(make_report(frame), *(("AU06", "AU12") if both else ("AU12",))))
    reports[60] = make_report(60, valid=False)
    scripted(monkeypatch, module, reports)
    assert module.smiles("talk.mp4") == [(0, 10 / 25, 30 / 25), (0, 80 / 25, 99 / 25)]


def test_two_cameras_shows_when_both_smile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = load("two_cameras")
    reports = []
    for frame in range(60):
        left, right = 10 <= frame < 40, 20 <= frame < 30 or 35 <= frame < 50
        for stream, smiles in (("left", left), ("right", right)):
            reports.append(with_units(make_report(frame, stream), *(("AU12",) if smiles else ())))
    scripted(monkeypatch, module, reports)
    assert module.together("0", "1") == [20 / 25, 35 / 25]
    shown = capsys.readouterr().out
    assert "left" in shown
    assert "right" in shown
    assert "Both smiled at: 0.80 s, 1.40 s" in shown


@pytest.mark.slow
def test_the_engine_runs_the_examples_that_need_it(tmp_path: Path) -> None:
    """On a clip without faces they find nothing."""
    import av

    from vlfau.models import bundle

    if not Path(bundle.__file__).with_name("embedded").joinpath("manifest.json").exists():
        pytest.skip("this checkout has no embedded bundle yet")
    clip = tmp_path / "empty.mp4"
    with av.open(str(clip), "w") as film:
        video = film.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for _ in range(10):
            film.mux(video.encode(av.VideoFrame.from_ndarray(make_picture(240, 320), format="rgb24")))
        film.mux(video.encode(None))
    for name, sources in (("find_smiles", [clip]), ("two_cameras", [clip, clip])):
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert (done.stdout == "") if name == "find_smiles" else ("Both smiled at: not yet" in done.stdout)
