"""Settings: frozen dataclasses, filled from a TOML file and from flags.

A part of the program declares its settings as a frozen dataclass whose fields come from `setting()`. `add_flags()`
turns them into flags; `read()` merges defaults, TOML table and flags, in this order.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import stat
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

LARGEST_TOML = 1 << 20  # bytes


def setting(default: Any, help: str, *, choices: tuple[str, ...] = (), metavar: str | None = None) -> Any:
    """A dataclass field with the sentence that --help and the reference documentation show."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


def load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text_of(path))
    except FileNotFoundError:
        raise UserError(f"Configuration file {path} does not exist. Give the path of a TOML file.") from None
    except OSError as error:
        raise UserError(f"Configuration file {path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:  # among them tomllib's own error, and text that is no UTF-8
        raise UserError(f"Configuration file {path} is not valid TOML: {error}.") from None


def _text_of(path: Path) -> str:
    """The text of a regular file, or of a pipe that is open already, such as /dev/stdin."""
    mode = path.stat().st_mode
    is_pipe = stat.S_ISFIFO(mode) and path.parts[:2] in (("/", "dev"), ("/", "proc"))
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_pipe or str(path) == os.devnull):
        raise UserError(f"Configuration file {path} is a device or a pipe. Give the path of a TOML file.")
    with open(path, "rb") as file:
        content = file.read(LARGEST_TOML + 1)
    if len(content) > LARGEST_TOML:
        raise UserError(f"Configuration file {path} is larger than 1 MiB. Give the path of a TOML file.")
    return content.decode()


def add_flags(parser: argparse.ArgumentParser, part: type[Any], *, title: str | None = None) -> None:
    """One flag per field: `learning_rate: float` becomes --learning-rate; a bool gets --x and --no-x."""
    group = parser.add_argument_group(title) if title else parser
    kinds = typing.get_type_hints(part)
    for field in dataclasses.fields(part):
        if "help" not in field.metadata:
            continue
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.default not in (None, "", ()):
            text += f" (default: {_text(field.default)})"
        options: dict[str, Any] = {
            "dest": field.name,
            "default": None,
            "help": _escape(text),
        }
        kind = _plain(kinds[field.name])
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
            continue
        if field.metadata["choices"]:
            options["choices"] = field.metadata["choices"]
        else:
            options["metavar"] = field.metadata["metavar"] or field.name.rsplit("_", 1)[-1].upper()
        if typing.get_origin(kind) is tuple:
            options |= {"nargs": "+", "type": typing.get_args(kind)[0]}
        else:
            options["type"] = kind
        group.add_argument(flag, **options)


def read(part: type[T], table: Mapping[str, Any] | None = None, flags: argparse.Namespace | None = None) -> T:
    """Defaults, overridden by the TOML table (unknown keys are errors), overridden by flags."""
    names = [field.name for field in dataclasses.fields(part)]  # type: ignore[arg-type]
    kinds = typing.get_type_hints(part)
    values: dict[str, Any] = {}
    for key, value in (table or {}).items():
        name = key.replace("-", "_")
        if name not in names:
            raise unknown("setting", key, names)
        values[name] = _checked(name, value, kinds[name], part)
    for name in names:
        flag = getattr(flags, name, None)
        if flag is not None:
            values[name] = tuple(flag) if isinstance(flag, list) else flag
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"--{name.replace('_', '-')} needs a number, got {number}.")
    return part(**values)


def as_table(part: Any) -> dict[str, Any]:
    """The settings as a plain table, for run folders and manifests."""
    return {
        field.name: _plain_value(getattr(part, field.name))
        for field in dataclasses.fields(part)
        if getattr(part, field.name) is not None
    }


def finite(text: str) -> float:
    """The type of a flag that takes a number which means something: neither nan nor inf."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"a number is needed, got {text}")
    return number


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _plain(kind: Any) -> Any:
    """`int | None` -> int, since an absent flag is None anyway."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(option for option in typing.get_args(kind) if option is not type(None))
    return kind


def _checked(name: str, value: Any, kind: Any, part: type[Any]) -> Any:
    kind = _plain(kind)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UserError(f"Setting '{name}' needs a list, got {value!r}.")
        try:
            return tuple(typing.get_args(kind)[0](item) for item in value)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"Setting '{name}' cannot be {value!r}: {error}.") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"Setting '{name}' needs {kind.__name__}, got {value!r}.")
    field = next(field for field in dataclasses.fields(part) if field.name == name)
    choices = field.metadata.get("choices") or ()
    if choices and value not in choices:
        raise unknown(f"value for '{name}'", value, choices)
    return value


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _escape(text: str) -> str:
    return text.replace("%", "%%")
