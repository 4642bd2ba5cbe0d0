"""Shell completion for bash, zsh and fish, generated from an argparse parser.

vlfau-stream --completion bash > ~/.local/share/bash-completion/completions/vlfau-stream
vlfau-stream --completion zsh > "${fpath[1]}/_vlfau-stream"
vlfau-stream --completion fish > ~/.config/fish/completions/vlfau-stream.fish
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds `--completion SHELL`, which prints the script for all flags of the parser, and exits."""
    parser.add_argument(
        "--completion", choices=SHELLS, action=_Print, help="print the completion script for a shell and exit"
    )


class _Print(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        print(script(parser, str(values)))
        parser.exit()


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser)


def _flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _is_file(action: argparse.Action) -> bool:
    return action.type is Path


def _function(parser: argparse.ArgumentParser) -> str:
    return "_" + re.sub(r"\W", "_", parser.prog)


def _meaning(action: argparse.Action) -> str:
    """The help as one line, without characters that are special to a shell."""
    text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return re.sub(r"[\"'`$\\\[\]:]", "", " ".join(text.split()))


def _bash(parser: argparse.ArgumentParser) -> str:
    names = [name for action in _flags(parser) for name in action.option_strings]
    cases = []
    for action in filter(_takes_value, _flags(parser)):
        if action.choices:
            reply = f'COMPREPLY=($(compgen -W "{" ".join(map(str, action.choices))}" -- "$word"))'
        elif _is_file(action):
            reply = 'COMPREPLY=($(compgen -f -- "$word"))'
        else:
            reply = "COMPREPLY=()"
        cases.append(f"        {'|'.join(action.option_strings)}) {reply}; return ;;")
    return "\n".join(
        [
            f"{_function(parser)}() {{",
            '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '    case "$before" in',
            *cases,
            "    esac",
            '    if [[ "$word" == -* ]]; then',
            f'        COMPREPLY=($(compgen -W "{" ".join(names)}" -- "$word"))',
            "    else",
            '        COMPREPLY=($(compgen -f -- "$word"))',
            "    fi",
            "}",
            f"complete -o filenames -F {_function(parser)} {parser.prog}",
        ]
    )


def _zsh(parser: argparse.ArgumentParser) -> str:
    lines = []
    for action in _flags(parser):
        for name in action.option_strings:
            value = ""
            if _takes_value(action):
                kind = f"({' '.join(map(str, action.choices))})" if action.choices else ""
                value = f":{action.dest}:{kind or ('_files' if _is_file(action) else ' ')}"
            lines.append(f"    '{name}[{_meaning(action)}]{value}' \\")
    return "\n".join([f"#compdef {parser.prog}", "_arguments -s \\", *lines, "    '*:file:_files'"])


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = []
    for action in _flags(parser):
        for name in action.option_strings:
            form = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            value = ""
            if action.choices:
                value = f" -x -a '{' '.join(map(str, action.choices))}'"
            elif _takes_value(action):
                value = " -r -F" if _is_file(action) else " -x"
            lines.append(f"complete -c {parser.prog} {form}{value} -d '{_meaning(action)}'")
    return "\n".join(lines)
