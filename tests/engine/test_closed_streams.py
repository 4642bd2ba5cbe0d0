"""Commands whose standard streams are closed, full, or read no further."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vlfau.models.terminal import FAILED, OK, UNREAD, USER_ERROR

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")

STREAM = [sys.executable, "-m", "vlfau.engine.commands.stream"]
TIMEOUT_S = 120


def shell(redirection: str, *command: str) -> tuple[int, str, str]:
    script = f'"$@" {redirection}'
    if "|" in redirection:
        script = f"set -o pipefail; {script}"
    # UTF-8 whatever the locale: a library that another test has loaded may have changed it in this process
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command], capture_output=True, encoding="utf-8", timeout=TIMEOUT_S
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    pytest.importorskip("onnx", reason="the stand-in bundle is made with onnx")
    from small_bundle import small_bundle

    bundle = small_bundle(tmp_path_factory.mktemp("bundle") / "small").folder
    engine = ["--model", str(bundle), "--runtime", "openvino", "--bind", "none", "--explain", "every"]
    return [*STREAM, "--demo", *engine, "--duration", "1"]


def test_the_demo_ends_quietly_when_nothing_reads_it(demo: list[str], tmp_path: Path) -> None:
    code, out, errors = shell("| head -1", *demo, "--csv", str(tmp_path / "rows.csv"), "--realtime")
    assert code == UNREAD
    assert len(out.splitlines()) == 1
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8").endswith("\n")


def test_progress_ends_quietly_when_nothing_reads_it(demo: list[str]) -> None:
    code, out, _ = shell("2>&1 >/dev/null | head -1", *demo)
    assert code == UNREAD
    assert len(out.splitlines()) == 1


def test_help_and_check_end_quietly_when_nothing_reads_them() -> None:
    for flag in ("--help", "--check"):
        code, _, errors = shell("| true", *STREAM, flag)
        assert code in ((OK, UNREAD) if flag == "--help" else (OK, FAILED, UNREAD))
        assert errors == "" or flag == "--check"
        assert "Traceback" not in errors
        assert "BrokenPipe" not in errors


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_hear_nothing_and_stop_nothing(demo: list[str], closed: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    code, out, errors = shell(closed, *demo, "--jsonl", str(rows))
    assert code == OK, errors
    assert "Traceback" not in errors
    assert len(rows.read_text(encoding="utf-8").splitlines()) > 10
    if "2" in closed:
        assert "finished" not in out, "what is meant for standard error is not printed elsewhere"


def test_errors_keep_their_code_without_standard_error() -> None:
    assert shell("2>&-", *STREAM, "/nowhere.mp4") == (USER_ERROR, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_named() -> None:
    code, _, errors = shell("> /dev/full", *STREAM, "--completion", "bash")
    assert "No space left on device" in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert code == USER_ERROR


def test_the_name_of_a_missing_file_forges_no_line() -> None:
    code, _, errors = shell("", *STREAM, "/nowhere/a\nvlfau-stream: FORGED\x1b[2J.mp4", "--bind", "none")
    assert code == USER_ERROR
    assert "FORGED" in errors
    assert "\nvlfau-stream" not in errors
    assert "\x1b" not in errors
