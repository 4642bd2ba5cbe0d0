"""The imports between files of the tree: at module level, inside functions and for type checkers alike.

python tests/helpers/import_graph.py [CHECKOUT]      how a checkout is laid out, in figures
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from shared_files import ROOT

PACKAGES = ("engine", "models", "calibration")

Graph = Mapping[str, set[str]]  # file -> the files it imports; paths relative to the root


def import_graph(root: Path = ROOT, folders: tuple[str, ...] = PACKAGES) -> dict[str, set[str]]:
    files = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    names = {_module(path.relative_to(root)): path.relative_to(root).as_posix() for path in files}
    return {names[_module(path.relative_to(root))]: set(_imported(path, root, names)) for path in files}


def circles(graph: Graph) -> list[list[str]]:
    """Groups of files that reach each other (strongly connected components of more than one file)."""
    reach = {file: _reachable(graph, file) for file in graph}
    groups: list[list[str]] = []
    for file in graph:
        group = sorted(other for other in reach[file] if file in reach[other])
        if group and group not in groups:
            groups.append(group)
    return groups


def closure(graph: Graph, file: str) -> set[str]:
    return {file} | _reachable(graph, file)


def top_level_names(path: Path) -> set[str]:
    """The modules and packages that a script imports, without their dots, wherever in it the import stands."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in [*plain, *froms]}


def _reachable(graph: Graph, file: str) -> set[str]:
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        for target in graph[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(("vlfau", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def _imported(path: Path, root: Path, names: Mapping[str, str]) -> Iterator[str]:
    relative = path.relative_to(root)
    package = ["vlfau", *relative.parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (names[alias.name] for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                target = names.get(f"{base}.{alias.name}") or names.get(base)
                if target is not None and target != relative.as_posix():
                    yield target


def names_used_twice(root: Path, folders: tuple[str, ...] = PACKAGES) -> dict[str, list[str]]:
    """Public classes that several files define."""
    places: dict[str, list[str]] = {}
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(root).as_posix())
    return {name: files for name, files in places.items() if len(files) > 1}


def rooms(graph: Graph) -> dict[str, set[str]]:
    """The graph seen from further away: folders with their own name, files of a package's top floor as themselves."""
    where = {file: Path(file).parent.as_posix() if file.count("/") > 1 else file for file in graph}
    seen: dict[str, set[str]] = {room: set() for room in where.values()}
    for file, targets in graph.items():
        seen[where[file]] |= {where[target] for target in targets} - {where[file]}
    return seen


def figures(root: Path) -> str:
    """How a tree is laid out, as a Markdown table."""
    graph = import_graph(root)
    lines = {file: len((root / file).read_text(encoding="utf-8").splitlines()) for file in graph}
    folders = sorted({Path(file).parent.as_posix() for file in graph})
    rows = ["| folder | files | lines | longest file |", "|---|---:|---:|---|"]
    for folder in folders:
        inside = {Path(file).name: count for file, count in lines.items() if Path(file).parent.as_posix() == folder}
        longest = max(inside, key=lambda name: inside[name])
        rows.append(f"| {folder} | {len(inside)} | {sum(inside.values()):,} | {longest} {inside[longest]} |")
    rows.append(f"| all | {len(lines)} | {sum(lines.values()):,} | {max(lines.values())} |")
    twice = names_used_twice(root)
    rows += [
        "",
        f"Circles of imports between files: {len(circles(graph))}; between rooms: {len(circles(rooms(graph)))}.",
        f"Public classes of one name: {len(twice)} ({', '.join(sorted(twice)) or 'none'}).",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    print(figures(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
