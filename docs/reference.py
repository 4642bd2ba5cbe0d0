"""A MkDocs hook that writes the five reference pages from the code while the site is built, so that they are never out
of date.

Commands come from their own --help, settings from the dataclasses behind the flags, the wire format from the schema and
the comments in `engine/wire.py`, the Python interface from signatures and docstrings, and licences
from the metadata of the installed packages.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HELP_COLUMNS = "100"
SUBCOMMANDS = {"vlfau-calibrate": ("int8", "fp8", "decisions", "report")}
MESSAGES = ("Report", "Text", "Status", "End")  # the other definitions of the schema are parts of these


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages: dict[str, Callable[[], str]] = {
        "reference/commands.md": commands,
        "reference/settings.md": settings,
        "reference/wire.md": wire_format,
        "reference/python.md": python,
        "reference/licences.md": licences,
    }
    for name, page in pages.items():
        files.append(File.generated(config, name, content=page()))
    return files


# Commands


def commands() -> str:
    lines = [
        "# Commands",
        "",
        "What each command prints with `--help`. Every command exits with 0 on success, with 2 if it cannot do what "
        "the arguments or settings request (a message says why), with 1 if a source or a check failed, and with 141 if "
        "the program that reads its output has ended (`| head`).",
    ]
    for name, main in scripts():
        lines += ["", f"## {name}", "", "```text", help_of(main), "```"]
        for part in SUBCOMMANDS.get(name, ()):
            lines += ["", f"### {name} {part}", "", "```text", help_of(main, part), "```"]
    return "\n".join(lines)


def scripts() -> Iterator[tuple[str, Callable[[list[str]], Any]]]:
    """The commands of this package, in the order of pyproject.toml."""
    order = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    commands = {one for one in entry_points(group="console_scripts") if one.value.startswith("vlfau.")}
    for command in sorted(commands, key=lambda command: order.index(f"\n{command.name} = ")):
        yield command.name, importlib.import_module(command.module).main  # the script may end the process


def help_of(main: Callable[[list[str]], Any], *part: str) -> str:
    before = {name: os.environ.get(name) for name in ("COLUMNS", "PYTHON_COLORS")}
    os.environ |= {"COLUMNS": HELP_COLUMNS, "PYTHON_COLORS": "0"}
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            main([*part, "--help"])
    except SystemExit:
        pass
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return text.getvalue().rstrip()


# Settings


def settings() -> str:
    from vlfau.engine.settings import SECTIONS
    from vlfau.models.data import DataChoice
    from vlfau.models.data.augmentation import PAPER
    from vlfau.models.networks import NetworkChoice
    from vlfau.models.training.recipe import Recipe

    lines = [
        "# Settings",
        "",
        "A setting has one name everywhere: `detect_every` in a TOML file and in Python is `--detect-every` on the "
        "command line. Flags override the file, and the file overrides the defaults. An unknown name is an error that "
        "suggests the nearest known one.",
        "",
        "## Engine",
        "",
        "Sections of the file for `vlfau-stream --config FILE`, and keywords of "
        "[`open_engine`](python.md#open_engine). At its top level the file may also contain `sources`, a list.",
    ]
    for section, part in SECTIONS.items():
        lines += ["", f"### [{section}]", "", inspect.getdoc(part) or "", "", *setting_table(part)]
    lines += ["", "## Training", "", "Sections of the file for `vlfau-train --config FILE`."]
    training = {"network": NetworkChoice, "data": DataChoice, "training": Recipe, "augmentation": type(PAPER)}
    for section, part in training.items():
        lines += ["", f"### [{section}] of vlfau-train", "", *setting_table(part)]
    return "\n".join(lines)


def setting_table(part: type[Any]) -> Iterator[str]:
    kinds = typing.get_type_hints(part)
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for field in dataclasses.fields(part):
        if "help" not in field.metadata:
            continue
        choices = field.metadata["choices"]
        kind = " or ".join(f"`{choice}`" for choice in choices) if choices else type_name(kinds[field.name])
        default = "" if field.default in (None, "", ()) else f"`{field.default}`"
        meaning = field.metadata["help"]
        yield f"| `{field.name}` | {cell(kind)} | {default} | {cell(meaning[:1].upper() + meaning[1:])} |"


def type_name(kind: Any) -> str:
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path"}
    options = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is tuple:
        return f"list of {type_name(options[0])}"
    if options:
        return type_name(options[0])
    return names.get(kind.__name__, str(kind.__name__))


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# Wire format


def wire_format() -> str:
    from vlfau.engine import wire

    schema = json.loads((ROOT / "engine" / "schema-1.json").read_text(encoding="utf-8"))
    parts = schema["$defs"]
    comments = comments_of(inspect.getsource(wire))
    lines = [
        f"# Wire format, schema {wire.SCHEMA}",
        "",
        "One ZeroMQ part per message: the topic, one space, then the message as JSON (or as msgpack with "
        "`--encoding msgpack`). " + schema["description"],
        "",
        "Fields marked *always* are always present. The others are omitted while they have their default value. "
        "Readers ignore unknown fields: a new field needs no new schema number, a changed meaning does. `seq` counts "
        "from 0 in every topic, so a gap means lost messages. The JSON Schema is `engine/schema-1.json`.",
    ]
    for name in (*MESSAGES, *(part for part in parts if part not in MESSAGES)):
        part = parts[name]
        lines += ["", f"## {name}", "", part["description"], "", "| field | type | | meaning |", "|---|---|---|---|"]
        for field, kind in part["properties"].items():
            presence = "always" if field in part["required"] else f"`{json.dumps(kind.get('default'))}`"
            meaning = comments.get((name, field)) or comments.get(("Message", field)) or MEANINGS.get(field, "")
            lines.append(f"| `{field}` | {cell(schema_type(kind))} | {presence} | {cell(meaning)} |")
    return "\n".join(lines)


MEANINGS = {
    "v": "schema number; readers refuse any other",
    "sent_ns": "Unix time in nanoseconds",
    "seq": "counts from 0 in this topic",
    "stream": "name of the source, from `--name` or derived from it",
    "latency_ms": "milliseconds by stage",
    "faces": "every face that is followed, in the order of `track`",
    "elapsed_s": "seconds since the stream was opened",
    "frames_in": "frames decoded",
    "frames_out": "reports published",
    "uptime_s": "seconds since the stream was opened",
    "reconnects": "number of times the source was reopened",
    "error": "what went wrong, in a sentence",
    "drops": "cause -> frames",
    "dropped": "frames of this stream dropped so far",
    "runtime": "what runs the network, and its precision",
    "device": "the device it runs on",
    "model": "name of the bundle",
    "detector": "what finds new faces",
    "pts": "seconds, from the container",
    "frame": "index in the stream",
    "captured_ns": "Unix time in nanoseconds at which the decoder delivered the frame",
    "track": "number of the face, as in `au/`",
    "text": "a sentence about the whole face",
    "why": "unit -> a sentence about it",
    "again": "sent again, unchanged, because a subscriber joined late",
    "pose": "direction of the head; null if it could not be computed",
    "valid": "false: too small, blurred or turned; then `aus` and `why` are empty",
    "height": "pixels of the frame",
    "decode": "before the clock starts: from asking the decoder for a frame to having it, including the wait for data",
    "detect": "from capture until faces were found and followed",
    "align": "cutting the crops, pose and quality",
    "predict": "from there until the network has answered, including its queue",
    "explain": "generating sentences, if this frame needed any",
    "total": "capture to publish",
    "p50": "median",
    "p95": "95 of 100 frames were faster",
    "p99": "99 of 100 frames were faster",
}


def comments_of(source: str) -> dict[tuple[str, str], str]:
    """(class, field) -> the comment behind the field."""
    comments: dict[tuple[str, str], str] = {}
    owner = ""
    for line in source.splitlines():
        if opened := re.match(r"class (\w+)", line):
            owner = opened[1]
        elif field := re.match(r"    (\w+): .*?  # (.+)", line):
            comments[owner, field[1]] = field[2]
    return comments


def schema_type(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(schema_type(one) for one in kind["anyOf"])
    if "enum" in kind:
        return " or ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] == "array":
        if "prefixItems" in kind:
            return f"[{', '.join(schema_type(one) for one in kind['prefixItems'])}]"
        return f"list of {schema_type(kind['items'])}"
    if kind["type"] == "object":
        return f"object of {schema_type(kind['additionalProperties'])}"
    return str(kind["type"])


# Python interface

INTERFACE = {
    "Run the engine in this process": ("vlfau.engine.app:open_engine", "vlfau.engine.app:Engine"),
    "Subscribe to an engine elsewhere": ("vlfau.engine.subscriber:subscribe", "vlfau.engine.subscriber:Subscription"),
    "Bundles and runtimes": (
        "vlfau.models.bundle:open_bundle",
        "vlfau.models.bundle:Bundle",
        "vlfau.models.bundle:Manifest",
        "vlfau.models.runtimes:open_runtime",
        "vlfau.models.runtimes.base:Runtime",
        "vlfau.models.runtimes.base:Prediction",
    ),
    "Errors": ("vlfau.models.errors:UserError", "vlfau.engine.app:StreamFailed"),
}


def python() -> str:
    lines = [
        "# Python interface",
        "",
        "The public interface. Both `open_engine` and `subscribe` can be imported from `vlfau.engine`. "
        "Everything is typed (`py.typed`); what is not listed here may change without notice. Messages are "
        f"structs in `vlfau.engine.wire` ({', '.join(f'`{name}`' for name in MESSAGES)} and their parts) with the "
        "fields of the [wire format](wire.md).",
    ]
    for title, names in INTERFACE.items():
        lines += ["", f"## {title}"]
        for name in names:
            module, _, attribute = name.partition(":")
            lines += ["", *described(attribute, getattr(importlib.import_module(module), attribute), module)]
    return "\n".join(lines)


def described(name: str, what: Any, module: str) -> Iterator[str]:
    yield f"### {name} {{ #{name} }}"
    yield ""
    yield "```python"
    yield f"from {module} import {name}"
    if not inspect.isclass(what):
        yield signature(name, what)
    yield "```"
    yield ""
    yield prose(what)
    if not inspect.isclass(what):
        return
    comments = comments_of(inspect.getsource(what))
    fields = {key: kind for key, kind in vars(what).get("__annotations__", {}).items() if not key.startswith("_")}
    if fields:
        yield "\n| field | type | meaning |\n|---|---|---|"
        for key, kind in fields.items():
            yield f"| `{key}` | `{cell(str(kind))}` | {cell(comments.get((name, key), ''))} |"
    for key, member in vars(what).items():
        if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            shown = signature(key, member) if inspect.isfunction(member) else f"{key} (property)"
            yield f"\n**`{shown}`** {prose(member)}".rstrip()


def prose(what: Any) -> str:
    return inspect.cleandoc(getattr(what, "__doc__", None) or "")


def signature(name: str, what: Any) -> str:
    source = inspect.signature(what)
    parameters = [one for one in source.parameters.values() if one.name != "self"]
    shown = [one.replace(annotation=AsWritten(one.annotation)) for one in parameters]
    return f"{name}{source.replace(parameters=shown, return_annotation=AsWritten(source.return_annotation))}"


class AsWritten(str):
    """An annotation shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


# Licences

PROJECT = "vlfau-stream"
NOT_FOR_USERS = ("docs", "dev")  # extras


def licences() -> str:
    lines = [
        "# Licences",
        "",
        "VL-FAU Stream and its embedded networks are under the MIT licence. These are the licences of the packages "
        "that it installs, directly or not, as their metadata name them. Each extra lists only what it adds; packages "
        "that were missing where this page was generated have no row.",
        "",
        "Wheels can contain libraries under other licences: those of `av` contain FFmpeg, whose licence "
        "`python -m av --version` prints, and also x264 and x265, which are under the GPL.",
    ]
    everywhere = dependencies("")
    extras = distribution(PROJECT).metadata.get_all("Provides-Extra") or []
    groups = {extra: dependencies(extra) for extra in extras if extra not in NOT_FOR_USERS}
    rows = {"Always": everywhere} | {f"Extra {extra}": found - everywhere for extra, found in groups.items()}
    for title, names in rows.items():
        lines += ["", f"## {title}", "", "| package | version | licence |", "|---|---|---|"]
        for package in map(distribution, sorted(names)):
            lines.append(f"| `{canonicalize_name(package.name)}` | {package.version} | {licence(package)} |")
    return "\n".join(lines)


def dependencies(extra: str) -> set[str]:
    """All that this package needs, directly or not, as far as it is installed."""
    seen: set[tuple[str, str]] = set()  # package, extra
    waiting = [(PROJECT, extra)]
    while waiting:
        name, part = waiting.pop()
        if (name, part) in seen:
            continue
        seen.add((name, part))
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            needed = canonicalize_name(requirement.name)
            if requirement.marker and not requirement.marker.evaluate({"extra": part}):
                continue
            try:
                distribution(needed)
            except PackageNotFoundError:
                continue
            waiting += [(needed, one) for one in (*requirement.extras, "")]
    return {name for name, _ in seen} - {PROJECT}


def licence(package: Distribution) -> str:
    """The expression; older packages have a free text instead, which can be the whole licence, and classifiers."""
    metadata = package.metadata
    if expression := metadata.get_all("License-Expression"):
        return cell(expression[0])
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    text = (metadata.get_all("License") or [""])[0]
    kinds = [line.rpartition(" :: ")[2] for line in (classifiers if len(text) > 60 or not text else [text])]
    return ", ".join(map(cell, kinds)) or "not in its metadata"


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(page() for page in (commands, settings, wire_format, python, licences)))
