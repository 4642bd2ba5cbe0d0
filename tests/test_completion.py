"""Completion scripts, run by the shells that are here."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from vlfau.engine.completion import SHELLS, add_completion, script


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="vlfau-toy")
    result.add_argument("source", nargs="*")
    result.add_argument("--encoding", choices=("json", "msgpack"), help='it\'s [odd]: $HOME `ls` "x" 100%%')
    result.add_argument("--csv", type=Path, help="a file")
    result.add_argument("--every", type=int)
    result.add_argument("--show", action=argparse.BooleanOptionalAction)
    add_completion(result)
    return result


def complete(words: list[str], folder: Path) -> list[str]:
    """What bash would offer after these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    check = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _vlfau_toy; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "-c", script(parser(), "bash") + "\n" + check], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_offers_flags_choices_and_files(tmp_path: Path) -> None:
    if not shutil.which("bash"):
        pytest.skip("no bash here")
    (tmp_path / "clip.mp4").touch()
    assert complete(["vlfau-toy", "--enc"], tmp_path) == ["--encoding"]
    assert complete(["vlfau-toy", "--sh"], tmp_path) == ["--show"]
    assert complete(["vlfau-toy", "--no"], tmp_path) == ["--no-show"]
    assert complete(["vlfau-toy", "--encoding", ""], tmp_path) == ["json", "msgpack"]
    assert complete(["vlfau-toy", "--encoding", "m"], tmp_path) == ["msgpack"]
    assert complete(["vlfau-toy", "--csv", "cl"], tmp_path) == ["clip.mp4"]
    assert complete(["vlfau-toy", "cl"], tmp_path) == ["clip.mp4"]
    assert complete(["vlfau-toy", "--every", ""], tmp_path) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_parses(shell: str, tmp_path: Path) -> None:
    text = script(parser(), shell)
    assert "encoding" in text
    assert "$HOME" not in text
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, capture_output=True)


def test_the_flag_prints_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parser().parse_args(["--completion", "fish"])
    assert leaving.value.code == 0
    assert "complete -c vlfau-toy -l encoding -x -a 'json msgpack'" in capsys.readouterr().out
