"""Code blocks of the README and of docs/, and what it takes to run one: a folder per page, commands, a replayed engine.

A comment `<!-- test: ... -->` before a fence changes how it is tested. With `parse, REASON` the commands of a shell
block are only parsed; `small` trains for one step; `as NAME` is the file name of a TOML block; `encrypted` makes the
engine use CURVE. Everything else depends on the language only, see `test_docs.py`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import synthetic_layouts
from reports import make_end
from shared_files import ROOT

from vlfau.engine import wire
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.group import Sinks
from vlfau.engine.sinks.zeromq import Publisher

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ADDRESS = "tcp://127.0.0.1:5556"  # in the pages; replaced by a free one
FRAMES = 12  # of the clip that stands in for the reader's video.mp4
FENCE = re.compile(
    r"(?:^<!-- test: (?P<marker>.+?) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S
)
ALIGNED = ["--no-align", "--cache", "cache"]  # detectors do not find the drawn faces
TINY = ["--size", "tiny-refined", "--steps", "1", *synthetic_layouts.MOMENT]
SMALL = {  # flags added to those of a block marked `small`
    "vlfau-train": [*TINY, *ALIGNED, "--test-images", "8"],
    "vlfau-evaluate": ["--no-plots", "--images", "8", "--caption-images", "1"],
    "vlfau-calibrate": [*ALIGNED, "--count", "48"],
}
DATA: dict[str, Callable[[Path], Any]] = {
    "BP4D": synthetic_layouts.make_raw_bp4d,
    "DISFA": synthetic_layouts.make_raw_disfa,
    "people": synthetic_layouts.make_csv,
}


@dataclass(frozen=True)
class Block:
    page: str  # path from the root of the repository
    line: int  # of its first line of code
    language: str
    code: str
    marker: str

    @property
    def parsed_only(self) -> str:
        """The reason, or an empty string."""
        kind, _, reason = self.marker.partition(", ")
        return reason if kind == "parse" else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(text: str, page: str) -> list[Block]:
    blocks = [
        Block(page, text.count("\n", 0, one.start("code")) + 1, one["language"], one["code"], one["marker"] or "")
        for one in FENCE.finditer(text)
    ]
    fences, markers = len(re.findall(r"^\s*(?:```|~~~)", text, re.M)), text.count("<!-- test:")
    if fences != 2 * len(blocks) or markers != sum(bool(one.marker) for one in blocks):
        raise AssertionError(f"{page}: {fences} fence lines and {markers} markers, but {len(blocks)} blocks were read")
    for one in blocks:
        if one.marker and not re.fullmatch(r"parse, \w.*|small|encrypted|as [\w.-]+", one.marker):
            raise AssertionError(f"{one}: unknown marker '{one.marker}'")
    return blocks


@cache
def all_blocks() -> list[Block]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [one for page in pages for one in blocks_of(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))]


@cache
def scripts() -> dict[str, str]:
    table: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return table


def tree_paths(code: str) -> list[str]:
    """The folders of a tree that is drawn by indentation: `engine/`, then `  sinks/`, gives engine and engine/sinks."""
    paths: list[str] = []
    above: list[tuple[int, str]] = []
    for line in filter(None, code.splitlines()):
        indent, name = len(line) - len(line.lstrip()), line.split()[0].rstrip("/")
        above = [(depth, path) for depth, path in above if depth < indent]
        paths.append(f"{above[-1][1]}/{name}" if above else name)
        above.append((indent, paths[-1]))
    return paths


def new_folder() -> Path:
    """Deleted when the tests end."""
    folder = mkdtemp(prefix="vlfau-docs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def workspace(page: str) -> Path:
    """The folder in which the blocks of a page run, one after the other: what the page's reader would have there."""
    folder = new_folder()
    for name in ("examples", "docs", "bench"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("pyproject.toml", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in ("video.mp4", "other.mp4"):
        shutil.copy(short_clip(), folder / name)
    for name, make in DATA.items():
        if f"--data {name}" in text:
            make(folder / name)
    if page.endswith("columns.md"):
        for name in ("table.csv", "table.jsonl"):
            shutil.copy(demo_run()[name], folder / name)
    return folder


@cache
def short_clip() -> Path:
    """The first frames of the package's clip."""
    import av

    from vlfau.models.bundle import demo_clip

    path = new_folder() / "short.mp4"
    with av.open(str(demo_clip())) as whole, av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=25)
        for number, frame in enumerate(whole.decode(video=0)):
            if number == FRAMES:
                break
            if number == 0:
                video.width, video.height, video.pix_fmt = frame.width, frame.height, "yuv420p"
            frame.pts = None
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
    return path


@cache
def demo_run() -> dict[str, Path]:
    """The README's first command, run once for all tests: its tables, and in "output" what it printed."""
    folder = new_folder()
    files = {name: folder / name for name in ("table.csv", "table.jsonl", "output")}
    outputs = ["--csv", str(files["table.csv"]), "--jsonl", str(files["table.jsonl"])]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run_here("vlfau-stream", ["--demo", "--bind", "none", "--runtime", "openvino", *outputs])
    files["output"].write_text(output.getvalue(), encoding="utf-8")
    return files


# Commands


def commands_of(code: str) -> list[str]:
    """One per line; a backslash at the end continues a line, and && separates commands."""
    joined = re.sub(r"\\\n\s*", "", code)
    lines = [line.strip() for line in joined.splitlines()]
    return [part.strip() for line in lines if line and not line.startswith("#") for part in line.split(" && ")]


def perform(command: str, block: Block) -> None:
    """Runs a command of a shell block as the page's reader would, or checks it as far as possible on this machine."""
    folder = workspace(block.page)
    if "$(" in command:
        run_shell(command, folder)
        return
    name, *arguments = shlex.split(command, comments=True)
    if name in scripts() and block.parsed_only:
        parse(name, arguments, folder)
    elif name in scripts():
        more = SMALL.get(name, []) if block.marker == "small" else []
        if name == "vlfau-stream":
            if arguments == ["--demo"]:
                assert "seen:" in demo_run()["output"].read_text(encoding="utf-8")
                return
            more = [*more, "--runtime", "openvino"]
            more += [] if "--bind" in arguments else ["--bind", f"ipc://{folder}/engine"]
        with working_in(folder), exporting_once():
            run_here(name, [*arguments, *more])
    elif name == "sudo":
        perform(shlex.join(arguments), block)
    elif checker := CHECKED.get(Path(name).name):
        checker(arguments, folder)
    elif name in ("python", "python3") and not block.parsed_only:
        run_shell(command, folder)
    elif name in ("python", "python3"):
        check_script(arguments, folder)
    elif name in ("cp", "mv", "mkdir"):
        run_shell(command, folder)
    else:
        raise AssertionError(f"{block}: no way to test '{name}' is known; add one to tests/helpers/doc_blocks.py")


def run_here(name: str, arguments: Sequence[str]) -> None:
    """A command of this package, in this process to save a start of Python. Its handler of SIGTERM is undone."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = main_of(name)(list(arguments))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 0, f"{name} {' '.join(arguments)} ended with {code}"


@contextmanager
def exporting_once() -> Iterator[None]:
    """Exporting is slow, so only the first block exports; the others get a copy of that bundle."""
    from vlfau.models.bundle import Bundle, open_bundle
    from vlfau.models.export import command as export_command

    command: Any = export_command
    real = command.export_run

    def copied(run: Path, output: Path, **options: Any) -> Bundle:
        if not EXPORTED:
            EXPORTED.append(real(run, output, **options).folder.resolve())
        else:
            assert run.is_dir()
            shutil.copytree(EXPORTED[0], output, dirs_exist_ok=True)
        return open_bundle(output)

    command.export_run = copied
    try:
        yield
    finally:
        command.export_run = real


EXPORTED: list[Path] = []


def main_of(name: str) -> Callable[[list[str]], int]:
    """The `main` of a command, also where the script is a function around it that ends the process."""
    from importlib import import_module

    main: Callable[[list[str]], int] = import_module(scripts()[name].partition(":")[0]).main
    return main


def run_shell(command: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


class Parsed(BaseException):
    """Carries the result of a command's parser, and skips everything that the command would do with it."""


def parse(name: str, arguments: Sequence[str], folder: Path) -> None:
    """Parses flags, settings and configuration file as the command does; opens and runs nothing."""
    from vlfau.engine.settings import read_engine
    from vlfau.models.training.command import configured

    whole = argparse.ArgumentParser.parse_args

    def and_stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        raise Parsed(whole(self, args, namespace))

    argparse.ArgumentParser.parse_args = and_stop  # type: ignore[method-assign]
    try:
        main_of(name)(list(arguments))
        raise AssertionError(f"{name} does not use argparse")
    except Parsed as parsed:
        (given,) = parsed.args
    finally:
        argparse.ArgumentParser.parse_args = whole  # type: ignore[method-assign]
    with working_in(folder):
        if name == "vlfau-train" and not given.describe:
            configured(given)
        if name == "vlfau-stream":
            read = read_engine(tuple(given.sources), given.config, given)
            assert read.sources or given.check


# Other programs: not run, but the files they name must exist


def check_pip(arguments: Sequence[str], folder: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert arguments[0] == "install"
    for word in arguments[1:]:
        if word == "-e":
            continue
        package = re.fullmatch(rf"(\.|{project['name']})(?:\[([\w,-]+)\])?", word)
        assert package, f"pip install {word} installs something else"
        for extra in (package[2] or "").split(","):
            assert not extra or extra in project["optional-dependencies"], f"there is no extra '{extra}'"


def check_make(arguments: Sequence[str], folder: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in arguments:
        assert re.search(rf"^{target}:", makefile, re.M), f"the Makefile has no target '{target}'"


def check_docker(arguments: Sequence[str], folder: Path) -> None:
    reader = argparse.ArgumentParser(exit_on_error=False)
    parts = reader.add_subparsers(dest="what", required=True)
    build, run = parts.add_parser("build"), parts.add_parser("run")
    build.add_argument("-f", type=Path)
    build.add_argument("-t")
    build.add_argument("context", type=Path)
    for flag in ("--rm", "--read-only"):
        run.add_argument(flag, action="store_true")
    for flag in ("-v", "-p", "--gpus", "--device", "--user", "--tmpfs", "--cap-drop", "--security-opt"):
        run.add_argument(flag)
    run.add_argument("image")
    run.add_argument("words", nargs=argparse.REMAINDER)
    given = reader.parse_args(list(arguments))
    if given.what == "build":
        assert (folder / given.f).is_file()
        assert (folder / given.context).is_dir()
    else:
        assert given.image.startswith("vlfau-stream")
        parse("vlfau-stream", given.words, folder)


def check_install(arguments: Sequence[str], folder: Path) -> None:
    *_, source, _ = arguments
    assert (folder / source).is_file(), f"{source} is not in the repository"


def check_unit(arguments: Sequence[str], folder: Path) -> None:
    unit = next(word for word in arguments if word.startswith("vlfau"))
    assert (folder / "docs/deploy" / f"{unit}.service").is_file()


def check_script(arguments: Sequence[str], folder: Path) -> None:
    """A script that cannot run here: it exists, it compiles, and it contains the flags."""
    if arguments[0] == "-m":
        return
    script = (folder / arguments[0]).read_text(encoding="utf-8")
    compile(script, arguments[0], "exec")
    for word in arguments[1:]:
        assert not word.startswith("--") or f'"{word}"' in script, f"{arguments[0]} does not know {word}"


def check_torchrun(arguments: Sequence[str], folder: Path) -> None:
    place = arguments.index("-m")
    assert arguments[place + 1] == scripts()["vlfau-train"].partition(":")[0]
    parse("vlfau-train", arguments[place + 2 :], folder)


CHECKED: dict[str, Callable[[Sequence[str], Path], None]] = {
    "pip": check_pip,
    "make": check_make,
    "docker": check_docker,
    "install": check_install,
    "systemctl": check_unit,
    "journalctl": check_unit,
    "torchrun": check_torchrun,
}


# An engine to subscribe to


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def replayed(settings: PublishSettings) -> Iterator[str]:
    """The demo's reports again, published to the first subscriber; ends with the `end/` message."""
    lines = demo_run()["table.jsonl"].read_bytes().splitlines()
    reports = [wire.decode_payload("au", line) for line in lines[:: len(lines) // 20]]
    over = threading.Event()

    def play(publisher: Publisher) -> None:
        sinks = Sinks([publisher], ["demo"])
        sinks.wait(over.is_set)
        for seq, report in enumerate(reports):
            sinks.write(msgspec.structs.replace(report, seq=seq))  # type: ignore[arg-type]
        sinks.end(make_end(stream="demo"))

    with Publisher(settings) as publisher:
        player = threading.Thread(target=play, args=[publisher])
        player.start()
        try:
            yield publisher.address
        finally:
            over.set()
            player.join()
