"""The files of docs/deploy/: Dockerfiles, a systemd unit, Prometheus and Grafana.

Tests run without Docker, so a few rules of hadolint are checked here, with hadolint's numbers.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import parse
from metric_names import known_metrics, metrics_in, served
from shared_files import ROOT

DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILES = ("cpu.Dockerfile", "gpu.Dockerfile")
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"}


# Dockerfiles


def dockerfile_faults(text: str) -> list[str]:
    """What is wrong with a Dockerfile, with hadolint's number for it."""
    faults: list[str] = []
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    stage, stages, user = "", set(), "root"
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word not in INSTRUCTIONS:
            faults.append(f"unknown or unwanted instruction {word} (DL1000, DL3020)")
        if word == "FROM":
            image, _, stage = rest.partition(" AS ")
            stages.add(stage)
            user = "root"
            if image not in stages and not re.search(r":(?!latest)[\w.-]+$", image):
                faults.append(f"{image} has no version (DL3006, DL3007)")
        if word == "WORKDIR" and not rest.startswith("/"):
            faults.append("WORKDIR is not absolute (DL3000)")
        if word == "USER":
            user = rest
        if word in ("CMD", "ENTRYPOINT") and not rest.startswith("["):
            faults.append(f"{word} is not in JSON form (DL3025)")
        if word == "COPY":
            *sources, _ = [part for part in rest.split() if not part.startswith("--")]
            origin = re.search(r"--from=(\S+)", rest)
            if origin and origin[1] not in stages:
                faults.append(f"COPY from an unknown stage {origin[1]} (DL3022)")
            missing = [name for name in sources if not origin and not (ROOT / name).exists()]
            faults += [f"COPY of {name}, which is not in the repository" for name in missing]
        if word == "RUN":
            faults += _run_faults(rest)
    if not re.fullmatch(r"[1-9]\d*", user):
        faults.append(f"it runs as {user}: give the number of a user without rights (DL3002)")
    for instruction in ("ENTRYPOINT", "CMD"):
        if not re.search(rf"^{instruction} ", text, re.M):
            faults.append(f"{instruction} is missing")
    return faults


def _run_faults(command: str) -> list[str]:
    faults = []
    if "apt-get install" in command:
        if "--no-install-recommends" not in command:
            faults.append("recommended packages are installed (DL3015)")
        if "-y" not in command.split():
            faults.append("apt-get asks for confirmation (DL3014)")
        if "rm -rf /var/lib/apt/lists/*" not in command:
            faults.append("package lists stay in the image (DL3009)")
        if not command.startswith("apt-get update"):
            faults.append("package lists of another layer may be old (DL3009)")
    if re.search(r"\bpip install", command) and "--no-cache-dir" not in command:
        faults.append("pip's cache stays in the image (DL3042)")
    if re.search(r"\b(sudo|cd|apt) ", command):
        faults.append("sudo, cd or apt in RUN (DL3004, DL3003, DL3027)")
    if "|" in command.replace("||", ""):
        faults.append("a pipe without pipefail (DL4006)")
    return faults


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_follows_the_rules(name: str) -> None:
    assert dockerfile_faults((DEPLOY / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("python:3.12-slim-bookworm", "python", "DL3006"),
        ("python:3.12-slim-bookworm", "python:latest", "DL3007"),
        ("USER 1000\n", "", "DL3002"),
        ("USER 1000\n", "USER 0\n", "DL3002"),
        ("USER 1000\n", "USER vlfau\n", "DL3002"),
        (" --no-install-recommends", "", "DL3015"),
        ("--no-cache-dir ", "", "DL3042"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "DL3009"),
        ('CMD ["--check"]', "CMD --check", "DL3025"),
        ("COPY engine engine", "COPY motor motor", "not in the repository"),
        ("COPY --from=build", "COPY --from=built", "DL3022"),
        ("WORKDIR /data", "WORKDIR data", "DL3000"),
        ("EXPOSE 5556", "ADD x y", "DL3020"),
    ],
)
def test_a_fault_in_a_dockerfile_is_found(right: str, wrong: str, rule: str) -> None:
    text = (DEPLOY / "cpu.Dockerfile").read_text(encoding="utf-8")
    assert right in text
    assert any(rule in fault for fault in dockerfile_faults(text.replace(right, wrong)))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_gets_what_the_package_needs(name: str) -> None:
    """The ignore file lets through what is copied, and everything that the build reads is copied."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    copied = {part for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M) for part in line.split()}
    allowed = {
        line[1:]
        for line in (DEPLOY / f"{name}.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied == allowed
    assert {"pyproject.toml", "README.md", "LICENSE", "engine", "models", "calibration"} <= copied
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"\"\.\[([\w,-]+)\]\"", text)[0].split(","):
        assert f"\n{extra} = [" in project


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_agrees(name: str) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; the rules above stand in for it")
    ignored = [
        "--ignore",
        "DL3008",
    ]  # pinned Debian packages: the release is pinned instead, and it gets security fixes
    done = subprocess.run([hadolint, *ignored, str(DEPLOY / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# systemd


def verify(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    file = folder / "vlfau-stream.service"
    file.write_text(unit, encoding="utf-8")
    return subprocess.run([program, "verify", str(file)], capture_output=True, text=True, check=False, timeout=60)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "vlfau-stream.service").read_text(encoding="utf-8")
    here = unit.replace("/opt/vlfau/bin/vlfau-stream", shutil.which("true") or "/bin/true")
    assert here != unit
    done = verify(here, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = verify(here.replace("Restart=on-failure", "Restart=sometimes"), tmp_path)
    assert "restart specifier" in wrong.stderr, "the control"


def test_the_unit_gives_the_service_little(tmp_path: Path) -> None:
    """As systemd's own table of exposure counts, from 0 to 10."""
    unit = (DEPLOY / "vlfau-stream.service").read_text(encoding="utf-8")
    assert exposure(unit, tmp_path) <= 1.6
    assert exposure(unit.replace("SystemCallFilter", "# "), tmp_path) > 2, "the control"


def exposure(unit: str, folder: Path) -> float:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    file = folder / "vlfau-stream.service"
    file.write_text(unit, encoding="utf-8")
    command = [program, "security", "--no-pager", "--offline=true", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze judges running units only")
    match = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert match, done.stdout + done.stderr
    return float(match[1])


def run_confined(unit: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The demo, which can write to one folder only (as in a read-only container), with the filters of the unit."""
    if not (shutil.which("systemd-analyze") and ctypes.util.find_library("seccomp") and shutil.which("unshare")):
        pytest.skip("systemd-analyze, libseccomp and unshare are needed")
    read_only = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && cd "$1" && shift && exec "$@"'
    outside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", read_only, "sh", str(folder)]
    if subprocess.run([*outside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    outputs = [
        "--csv",
        "t.csv",
        "--render",
        "r.mp4",
        "--jsonl",
        "j.jsonl",
        "--metrics",
        ":0",
        "--bind",
        "tcp://127.0.0.1:*",
    ]
    demo = [
        sys.executable,
        "-m",
        "vlfau.engine.commands.stream",
        "--demo",
        "--quiet",
        "--runtime",
        "openvino",
        "--duration",
        "1",
        *outputs,
    ]
    confined = [sys.executable, str(ROOT / "tests" / "helpers" / "confined.py"), str(unit)]
    environment = {**os.environ, "VLFAU_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
    command = [*outside, *confined, *demo]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def test_the_engine_runs_with_what_the_unit_allows(tmp_path: Path) -> None:
    unit = DEPLOY / "vlfau-stream.service"
    done = run_confined(unit, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"t.csv", "r.mp4", "j.jsonl", "cache"} <= {path.name for path in tmp_path.iterdir()}
    strict = tmp_path / "strict.service"
    strict.write_text(unit.read_text(encoding="utf-8").replace(" AF_NETLINK", ""), encoding="utf-8")
    assert run_confined(strict, tmp_path).returncode == -signal.SIGABRT, "the control: ZeroMQ aborts"


def test_the_engine_accepts_the_configuration_of_the_service() -> None:
    unit = (DEPLOY / "vlfau-stream.service").read_text(encoding="utf-8")
    assert "--config ${CREDENTIALS_DIRECTORY}/stream.toml" in unit
    assert "LoadCredential=stream.toml:/etc/vlfau/stream.toml" in unit
    parse("vlfau-stream", ["--config", "stream.toml"], DEPLOY)


# Prometheus and Grafana


def expressions(board: dict[str, Any]) -> list[str]:
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return queries + [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]


@pytest.fixture
def board() -> dict[str, Any]:
    return dict(json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8")))


def test_the_dashboard_uses_metrics_and_labels_that_exist(board: dict[str, Any]) -> None:
    queries = expressions(board)
    assert all(metrics_in(expression) for expression in queries)
    for expression in queries:
        assert metrics_in(expression) <= known_metrics(), expression
        for name, labels in re.findall(r"\b(vlfau_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)[=!]", labels)) <= served()[name], expression
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in labels.split(",")} <= {"le", "stream", "stage"}
    for panel in board["panels"]:
        for target in panel["targets"]:
            (name, *_) = sorted(metrics_in(target["expr"]))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= served()[name] | {"stream"}
    assert "vlfau_report" not in known_metrics(), "the control: an almost correct name"


def test_the_dashboard_leaves_no_metric_out(board: dict[str, Any]) -> None:
    parts = ("_created", "_bucket", "_sum", "_count")
    whole = {name for name in known_metrics() if not name.endswith(parts)}
    assert whole - set().union(*map(metrics_in, expressions(board))) == set()


def test_grafana_can_lay_out_the_dashboard(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    occupied: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & occupied, panel["title"]
        occupied |= cells
        assert panel["title"]
        assert panel["description"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
        assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} == {"${datasource}"}
    names = {one["name"] for one in board["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", " ".join(expressions(board)))) <= names
    assert board["schemaVersion"] >= 39


def test_prometheus_scrapes_where_the_service_serves() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the docs extra")
    table = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = table["scrape_configs"]
    assert f'metrics = "{job["static_configs"][0]["targets"][0]}"' in (DEPLOY / "stream.toml").read_text(
        encoding="utf-8"
    )
