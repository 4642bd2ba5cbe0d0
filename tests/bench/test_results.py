"""bench/RESULTS.md: the README quotes no other figures, and the page holds only what the benches printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench_modules import bench_module
from shared_files import ROOT

RESULTS = ROOT / "bench" / "RESULTS.md"
NUMBER = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)*(?![\w])")  # not a part of p95, AU12, 720p30 or INT8


def results_section(readme: str) -> str:
    """The text under a heading with the word Results, up to the next heading of that level."""
    found = re.search(r"^(#+) [^\n]*Results[^\n]*\n(.*?)(?=^#{1,2} |\Z)", readme, re.MULTILINE | re.DOTALL)
    return found[2] if found else ""


def figures(markdown: str) -> set[str]:
    """Numbers in prose and tables, but not in commands, link targets and comments."""
    text = re.sub(r"```.*?```|`[^`\n]*`|<!--.*?-->|\]\([^)]*\)|<[^>\n]*>", " ", markdown, flags=re.DOTALL)
    return {number.rstrip(".,") for number in NUMBER.findall(text)}


def printed(markdown: str) -> set[str]:
    """All numbers of the results page."""
    return {number.rstrip(".,") for number in NUMBER.findall(markdown)}


def invented(readme: str, results: str) -> set[str]:
    return figures(results_section(readme)) - printed(results)


bench = bench_module("results")


def test_every_figure_of_the_readme_is_in_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = results_section(readme)
    assert section.strip(), "the README has a section of results"
    results = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    assert invented(readme, results) == set(), "make bench writes figures; quote those"


def test_an_invented_figure_is_noticed() -> None:
    results = "| case | fps | p95 |\n|---|---|---|\n| 1 face | 101.3 | 24.85 |\n2 cores, took 98 s, 1,024 frames\n"
    readme = "# A\n\n99.9\n\n## Results\n\n{} frames/s, p95 of 24.85 ms, 2 cores, AU12, INT8, 720p30.\n\n## B\n\n77\n"
    assert invented(readme.format("101.3"), results) == set()
    assert invented(readme.format("101.4"), results) == {"101.4"}
    assert invented(readme.format("101"), results) == {"101"}, "rounded is not quoted"
    assert invented(readme.format("1,024"), results) == set()
    assert invented(readme.format("`--seconds 55` [x](a/55.html) 98"), results) == set()
    assert invented("## Results\n\n| fps |\n|---|\n| 55 |\n", results) == {"55"}


def test_the_page_names_no_path_of_a_machine() -> None:
    if not RESULTS.exists():
        pytest.skip("make bench has not written bench/RESULTS.md yet")
    text = RESULTS.read_text(encoding="utf-8")
    assert text.startswith("# Results\n\nWritten by `make bench`")
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", text)
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (RESULTS.parent / picture).is_file()


def test_make_bench_is_this_script(bench: ModuleType) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^bench:\n\tpython bench/results\.py", makefile, re.MULTILINE)
    assert re.search(r"^\.PHONY:.*\bbench\b", makefile, re.MULTILINE), "there is a folder of that name"
    for one in bench.BENCHES:
        assert (ROOT / "bench" / one.command[0]).is_file()
    assert len({one.title for one in bench.BENCHES}) == len(bench.BENCHES)


def test_tables_pictures_and_lines(bench: ModuleType) -> None:
    lines = ["a device", "python 3", "", "| a | b |", "|---|---|", "| 1 | 2 |", "flat", "wrote bench/plots/x.png"]
    assert bench.prose(lines) == [
        *("a device  ", "python 3  ", "", "| a | b |", "|---|---|", "| 1 | 2 |", "", "flat  "),
        *("", "![x](plots/x.png)"),
    ]
    columns = ["head", "columns   1", "more      2", "", "# end"]
    assert bench.prose(columns) == ["head  ", "", "```text", "columns   1", "more      2", "```", "", "**end**"]
    assert bench.without_json('a\n\n{"x": 1}\n') == ["a"]
    assert bench.without_json('{"on the way": 1}\na\n{b}\n{"x": 1}') == ["a", "{b}"]


def page(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> tuple[int, str]:
    """main() with two small benches instead of the real ones."""
    one, two = folder / "one.py", folder / "two.py"
    one.write_text("import sys\nprint('| a | b |\\n|---|---|\\n| 1 | 2 |\\n' + sys.argv[1])\nprint('{\"x\": 1}')\n")
    two.write_text("import sys\nprint('so far')\nsys.exit('the disk fell off')\n")
    needs = bench.Bench("far", "Far", ("one.py", "SHARDS"))
    monkeypatch.setattr(
        bench,
        "BENCHES",
        (bench.Bench("one", "One", (str(one), str(folder / "shards"))), bench.Bench("two", "Two", (str(two),)), needs),
    )
    code = bench.main(["--output", str(folder / "out.md"), *arguments])
    return code, (folder / "out.md").read_text(encoding="utf-8")


def test_a_page_is_written_and_one_section_replaced(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VLFAU_SHARDS", raising=False)
    monkeypatch.chdir(tmp_path)
    code, text = page(bench, monkeypatch, tmp_path)
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, last["codes"]) == (1, {"one": 0, "two": 1})
    assert last["device"] in text
    sections = bench.sections_of(text)
    assert list(sections) == ["One", "Two", "Far"]
    assert "| 1 | 2 |" in sections["One"]
    assert '{"x"' not in text
    assert "**It exited with 1:** the disk fell off" in sections["Two"]
    assert "Not run: it needs --shards FOLDER." in sections["Far"]
    code, again = page(bench, monkeypatch, tmp_path, "--only", "one")
    assert code == 0
    assert bench.sections_of(again)["Two"] == sections["Two"], "the section that was not run again stays"


def test_no_path_of_this_machine_is_in_the_page(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    places = bench.existing_places(shards, None)
    assert places["SHARDS"] == shards.resolve()
    assert bench.hidden(f"{shards}/a {bench.ROOT}/b", places) == "SHARDS/a ./b"
    assert bench.stands_for("SHARDS/x", places) == f"{shards.resolve()}/x"
    assert bench.stands_for("bench/SHARDS", places) == "bench/SHARDS"
    monkeypatch.setenv("VLFAU_SHARED", str(tmp_path / "none"))
    assert set(bench.existing_places(None, None)) <= {"SHARDS"}
