"""The documentation builds without a warning, and every code block in it and in the README is run, or says why not.

`pytest tests/project/test_docs.py` ends with the number of blocks, those that were not run, and a line of JSON. Shell
blocks run in a folder per page that stands in for the reader's, with a clip cut from the package's; Python, Node and
C++ subscribe to the reports of one run of the demo, published again.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from doc_blocks import (
    ADDRESS,
    Block,
    all_blocks,
    blocks_of,
    commands_of,
    parse,
    perform,
    replayed,
    scripts,
    tree_paths,
    working_in,
    workspace,
)
from metric_names import known_metrics, metrics_in
from packaging.requirements import Requirement
from shared_files import ROOT

from vlfau.engine import settings, wire
from vlfau.engine.settings import PublishSettings
from vlfau.engine.sinks.prometheus import CONNECTION_S, CONNECTIONS
from vlfau.models.bundle import open_bundle
from vlfau.models.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("torch", reason="the pages train networks; torch is not installed")

from vlfau.models import networks
from vlfau.models.training import command as train_command

BLOCKS = all_blocks()
OUTCOMES: dict[Block, str] = {}  # ran, checked: REASON, skipped: REASON or failed


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    OUTCOMES[block] = "failed"
    try:
        OUTCOMES[block] = RUNNERS[block.language](block)
    except pytest.skip.Exception as skipped:
        OUTCOMES[block] = f"skipped: {skipped}"
        raise


def run_shell_block(block: Block) -> str:
    for command in commands_of(block.code):
        perform(command, block)
    words = {command.split()[0] for command in commands_of(block.code)}
    if block.parsed_only:
        return f"checked: {block.parsed_only}"
    return "ran" if words - {"pip", "make"} else "checked: it installs, or runs these tests"


def run_python_block(block: Block) -> str:
    if ADDRESS not in block.code:
        _execute(block, block.code)
        return "ran"
    with replayed(publishing(block)) as address:
        _execute(block, block.code.replace(ADDRESS, address))
    return "ran"


def _execute(block: Block, code: str) -> None:
    with working_in(workspace(block.page)):
        exec(compile(code, str(block), "exec"), {"__name__": "__main__"})


def publishing(block: Block) -> PublishSettings:
    folder = workspace(block.page)
    if block.marker != "encrypted":
        return PublishSettings(bind="tcp://127.0.0.1:*", wait_subscribers=1)
    secret, allow = folder / "engine.key_secret", folder / "subscribers"  # made by the blocks before
    return PublishSettings(bind="tcp://127.0.0.1:*", wait_subscribers=1, curve_secret=secret, allow=allow)


def run_node_block(block: Block) -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    script = workspace(block.page) / "listen.js"
    script.write_text(block.code)
    subprocess.run([node, "--check", str(script)], check=True, timeout=60)
    if subprocess.run([node, "-e", 'require("zeromq")'], capture_output=True, check=False, timeout=60).returncode:
        return "checked: by node --check only; Node finds no zeromq (npm install zeromq, and set NODE_PATH)"
    with replayed(publishing(block)) as address:
        script.write_text(block.code.replace(ADDRESS, address))
        assert_heard([node, str(script)])
    return "ran"


def run_cpp_block(block: Block) -> str:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    source = workspace(block.page) / "listen.cpp"
    headers = "".join(line + "\n" for line in block.code.splitlines() if line.startswith("#include"))
    source.write_text(headers)
    quickly = [compiler, "-std=c++17", "-O0", "-fsyntax-only", str(source)]
    if subprocess.run(quickly, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("headers of cppzmq or nlohmann-json are missing (apt install cppzmq-dev nlohmann-json3-dev)")
    program = source.with_suffix("")
    with replayed(publishing(block)) as address:
        source.write_text(block.code.replace(ADDRESS, address))
        build = [compiler, "-std=c++17", "-O0", "-Wall", "-Werror", str(source), "-lzmq", "-o", str(program)]
        subprocess.run(build, check=True, timeout=120)
        assert_heard([str(program)])
    return "ran"


def assert_heard(command: list[str]) -> None:
    """A subscriber in another language prints a line per face, with its active units, and ends with the stream."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 20
    assert "AU" in done.stdout


def check_csharp_block(block: Block) -> str:
    """Without Unity: the names it reads must be those of the wire format."""
    names = {name for part in wire.json_schema()["$defs"].values() for name in part["properties"]}
    read = set(re.findall(r'\["(\w+)"\]', block.code))
    assert read - names - {"AU12"} == set()
    assert "p" in read
    assert block.code.count("{") == block.code.count("}")
    assert block.code.count("(") == block.code.count(")")
    return "checked: Unity is not installed; the fields it reads are those of the schema"


def check_toml_block(block: Block) -> str:
    """The command it is for reads it, under the name that its page uses."""
    folder, name = workspace(block.page), block.marker.removeprefix("as ") or "settings.toml"
    (folder / name).write_text(block.code)
    trains = re.search(r"^\[training\]", block.code, re.M) is not None
    parse("vlfau-train" if trains else "vlfau-stream", ["--config", name], folder)
    return "ran"


def check_json_block(block: Block) -> str:
    jsonschema = pytest.importorskip("jsonschema")
    message = json.loads(block.code)
    jsonschema.validate(message, wire.json_schema())
    return "ran"


def check_text_block(block: Block) -> str:
    """A table that can be read, or a tree of folders that exist."""
    folder = workspace(block.page)
    if block.code.startswith("path,"):
        from vlfau.models.data.layouts import read_csv

        (folder / "labels.csv").write_text(block.code)
        assert len(read_csv(folder / "labels.csv")) == len(list(csv.reader(block.code.splitlines()))) - 1
        return "ran"
    paths = tree_paths(block.code)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
    return "ran"


def check_promql_block(block: Block) -> str:
    for line in block.code.splitlines():
        assert metrics_in(line), line
        assert metrics_in(line) <= known_metrics(), line
    return "checked: Prometheus is not installed; the metrics are those of the engine"


RUNNERS = {
    "sh": run_shell_block,
    "python": run_python_block,
    "js": run_node_block,
    "cpp": run_cpp_block,
    "csharp": check_csharp_block,
    "toml": check_toml_block,
    "json": check_json_block,
    "text": check_text_block,
    "promql": check_promql_block,
}


def test_broken_blocks_are_noticed(tmp_path: Path) -> None:
    """The controls of the tests above."""

    def block(language: str, code: str, marker: str = "") -> Block:
        return Block("docs/index.md", 1, language, code, marker)

    for wrong in ("vlfau-stream 0 --colour blue", "docker build -f nowhere.Dockerfile ."):
        with pytest.raises((SystemExit, AssertionError)):
            run_shell_block(block("sh", wrong, "parse, control"))
    for wrong in ("pip install '.[gold]'", "make gold", "ffmpeg -i video.mp4", "cp nothing.mp4 nowhere"):
        with pytest.raises(AssertionError):
            run_shell_block(block("sh", wrong))
    with pytest.raises(AssertionError):
        run_shell_block(block("sh", "vlfau-stream missing.mp4"))
    with pytest.raises(UserError, match="Unknown"):
        check_toml_block(block("toml", "[predict]\nexplian = 'change'\n"))
    with pytest.raises(AssertionError):
        check_csharp_block(block("csharp", 'x["aus"]["p"]["colour"]'))
    with pytest.raises(AssertionError):
        check_promql_block(block("promql", "vlfau_gold > 1"))
    with pytest.raises(ImportError):
        run_python_block(block("python", "from vlfau.engine import gold\n"))
    fence = "```sh\nls\n```\n"
    for page in (fence[:-4], f"<!-- test: sometimes -->\n{fence}", f"<!-- test: small -->\n\n{fence}", f"  {fence}"):
        with pytest.raises(AssertionError):
            blocks_of(page, "page")


def test_every_language_of_a_fence_is_known() -> None:
    assert {block.language for block in BLOCKS} - set(RUNNERS) == set()


def test_the_readme_lists_every_command_and_links_to_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in scripts() if f"| `{name}` |" not in text] == []
    targets = [target for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
    rows = re.findall(r"^\| \*\*.*\|$", text, re.M)
    assert len(rows) == 5, "the table of the other systems"
    assert [row for row in rows if "](https://" not in row] == [], "a claim without a source"


def test_the_security_page_is_true_and_found() -> None:
    page = (ROOT / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")
    assert f"on {CONNECTIONS} connections of {CONNECTION_S:.0f} seconds at most" in page
    assert PublishSettings().bind.removeprefix("tcp://") in page
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "(docs/explanation/security.md)" in policy
    assert "@" not in policy + page, "reports go to the repository, not to an address"


def test_the_trainer_accepts_the_recipes() -> None:
    files = sorted((ROOT / "docs" / "recipes").glob("*.toml"))
    assert len(files) == 4
    for file in files:
        chosen = train_command.configured(train_command.parser().parse_args(["--config", str(file)]))
        units = chosen["data"].units
        assert tuple(units) == open_bundle("embedded").manifest.units
        networks.configure(chosen["network"], units, networks.corpus_of(chosen["network"], units), chosen["changes"])


# The site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def build(config: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Without --quiet, which hides warnings from --strict."""
    pytest.importorskip("material", reason="mkdocs-material is not installed (pip install '.[docs]')")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(output)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_the_site_is_complete_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {"index.html", "tutorial/index.html", "reference/commands/index.html", "reference/wire/index.html"} <= pages
    assert {"explanation/glossary/index.html", "explanation/code-layout/index.html"} <= pages
    assert (site / "pictures" / "network.svg").is_file()
    external = re.compile(r'<(?:script|link|img)[^>]*?(?:src|href)="?(https?:)?//', re.I)
    assert external.search('<script src="https://elsewhere/x.js">')
    for page in pages:
        text = (site / page).read_text(encoding="utf-8")
        assert [one for one in re.findall(r"<(?:script|link|img)[^>]*>", text) if external.search(one)] == [], page


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    """The control of the build."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[gone](nowhere.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: control\n")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode != 0


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_leaves_nothing_out() -> None:
    pytest.importorskip("mkdocs")
    reference = load("reference")
    commands = reference.commands()
    assert [name for name in scripts() if f"usage: {name}" not in commands] == []
    table = reference.settings()
    for part in settings.SECTIONS.values():
        assert [name for name in part.__dataclass_fields__ if f"| `{name}` |" not in table] == []
    pages = reference.wire_format()
    for part in wire.json_schema()["$defs"].values():
        assert f"## {part['title']}" in pages
        for field in part["properties"]:
            assert f"| `{field}` |" in pages
    assert [line for line in pages.splitlines() if line.startswith("| `") and line.endswith("|  |")] == [], "no meaning"
    python = reference.python()
    assert "open_engine(*sources: str, **settings: Any) -> Engine" in python
    assert "topics: str | Iterable[str] = 'au/'" in python


def test_every_runtime_dependency_has_a_licence() -> None:
    pytest.importorskip("mkdocs")
    page = load("reference").licences()
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [Requirement(line) for line in [*table["dependencies"], *table["optional-dependencies"]["parquet"]]]
    names = {one.name for one in required if one.marker is None or one.marker.evaluate()}
    licences = dict(re.findall(r"^\| `([\w.-]+)` \| [\w.+]+ \| (.+) \|$", page, re.M))
    assert names - set(licences) == set()
    assert {licences[name] for name in names} >= {"BSD-3-Clause", "Apache-2.0"}
    assert {name for name in names if licences[name].startswith("not")} == set()


def test_the_diagrams_are_what_their_script_draws() -> None:
    diagrams = load("diagrams")
    for name, draw in diagrams.DIAGRAMS.items():
        written = (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8")
        assert written == draw().text(), f"{name} is out of date: run python docs/diagrams.py"
        ElementTree.fromstring(written)


def test_every_block_was_run_checked_or_skipped(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Last in this file, because it lists the outcomes of the tests above."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    selected = {one.callspec.params["block"] for one in functions if one.originalname == "test_a_block"}
    count = Counter(outcome.partition(":")[0] for outcome in OUTCOMES.values())
    facts = {"blocks": len(BLOCKS), **{name: count[name] for name in ("ran", "checked", "skipped", "failed")}}
    with capsys.disabled():
        print(f"\n{len(BLOCKS)} code blocks in README.md and docs/, {len(OUTCOMES)} of them tested:")
        for block, outcome in OUTCOMES.items():
            if outcome != "ran":
                print(f"  {block} ({block.language}) {outcome}")
        print(json.dumps(facts))
    assert count["failed"] == 0
    if selected != set(BLOCKS):
        pytest.skip(f"{len(selected)} of {len(BLOCKS)} blocks were selected")
    if set(OUTCOMES) != selected and spread_over_workers(request.config):
        pytest.skip("the blocks are spread over several workers; --dist loadfile keeps them together")
    assert set(OUTCOMES) == set(BLOCKS)


def spread_over_workers(config: pytest.Config) -> bool:
    worker = getattr(config, "workerinput", None)  # of pytest-xdist
    return worker is not None and "loadfile" not in worker["mainargv"]
