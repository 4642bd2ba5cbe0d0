"""Completion scripts, run by the shells that are installed."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlfau.engine.commands import stream as stream_command
from vlfau.engine.commands import watch as watch_command
from vlfau.engine.commands.completion import SHELLS, add_completion, script

PATIENCE_S = 30.0


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
    """What bash offers after these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    check = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _vlfau_toy; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "-c", script(parser(), "bash") + "\n" + check], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_offers_flags_choices_and_files(tmp_path: Path) -> None:
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    (tmp_path / "clip.mp4").touch()
    assert complete(["vlfau-toy", "--enc"], tmp_path) == ["--encoding"]
    assert complete(["vlfau-toy", "--sh"], tmp_path) == ["--show"]
    assert complete(["vlfau-toy", "--no"], tmp_path) == ["--no-show"]
    assert complete(["vlfau-toy", "--encoding", ""], tmp_path) == ["json", "msgpack"]
    assert complete(["vlfau-toy", "--encoding", "m"], tmp_path) == ["msgpack"]
    assert complete(["vlfau-toy", "--csv", "cl"], tmp_path) == ["clip.mp4"]
    assert complete(["vlfau-toy", "cl"], tmp_path) == ["clip.mp4"]
    assert complete(["vlfau-toy", "--every", ""], tmp_path) == []


CASES = [
    ("--enc", "--encoding"),
    ("--sho", "--show"),
    ("--no", "--no-show"),
    ("--encoding m", "msgpack"),
    ("--encoding j", "json"),
    ("--csv cl", "clip.mp4"),
    ("cl", "clip.mp4"),
]


@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_fish_offers_flags_choices_and_files(tmp_path: Path, typed: str, offered: str) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "script").write_text(script(parser(), "fish"))
    code = f"source script; complete --do-complete 'vlfau-toy {typed}'"
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [offered]


def test_zsh_offers_flags_choices_and_files(tmp_path: Path) -> None:
    """Typed into a real zsh with the tab key, on a pseudo-terminal."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "_vlfau-toy").write_text(script(parser(), "zsh"))
    start = f"cd {tmp_path}; fpath=({tmp_path}/functions $fpath); autoload -U compinit; compinit -u -D; "
    start += "unsetopt beep; zstyle ':completion:*' verbose no; vlfau-toy() { print \"given:$*:\" }; print 'rea''dy'\n"
    process, terminal = pty.fork()
    if not process:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(tmp_path)})
    try:
        os.write(terminal, start.encode())
        read_until(terminal, "ready\r")
        for typed, offered in CASES:
            os.write(terminal, f"vlfau-toy {typed}\t\n".encode())
            before = f"{typed.rpartition(' ')[0]} ".lstrip()
            read_until(terminal, f"given:{before}{offered}:\r")
    finally:
        os.kill(process, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(process, 0)


def read_until(terminal: int, words: str) -> str:
    """What the terminal shows up to these words."""
    shown, deadline = "", time.monotonic() + PATIENCE_S
    while not shown.endswith(words):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 1).decode(errors="replace")
    return shown


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("of", [parser, stream_command.parser, watch_command.parser])
def test_every_script_parses(of: Callable[[], argparse.ArgumentParser], shell: str, tmp_path: Path) -> None:
    text = script(of(), shell)
    assert "completion" in text
    assert "$HOME" not in text
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, capture_output=True)


def test_the_flag_prints_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        parser().parse_args(["--completion", "fish"])
    assert exit.value.code == 0
    assert "complete -c vlfau-toy -l encoding -x -a 'json msgpack'" in capsys.readouterr().out
