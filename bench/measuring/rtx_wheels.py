"""TensorRT-RTX from a folder of wheels: each version is unpacked and tried in a separate process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring.children import environment
from measuring.conformance import agreement, times

from vlfau.models.bundle import open_bundle
from vlfau.models.runtimes.base import Runtime

TRIAL = "--rtx-trial"  # the flag of the script that runs `trial`


def versions(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Wheels by version, oldest first."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("tensorrt_rtx*.whl")):
        groups.setdefault(path.name.split("-")[1], []).append(path)
    yield from sorted(groups.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])])


def attempt(wheels: Sequence[Path], target: Path, script: Path, bundle: Path, limit_s: float) -> dict[str, Any]:
    """Unpacks one version into `target` and has `script` try it."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    command = [sys.executable, str(script), TRIAL, str(bundle)]
    try:
        done = subprocess.run(command, env=environment(target), capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"failed": "took too long"}
    lines = done.stdout.strip().splitlines()
    answer: dict[str, Any] = (
        json.loads(lines[-1]) if done.returncode == 0 and lines else {"failed": f"exit {done.returncode}"}
    )
    return answer | {"log": done.stderr.strip().splitlines()[-5:]}


def trial(folder: Path) -> dict[str, Any]:
    """In the child process: import, build, run, compare; every failure is an answer."""
    answer: dict[str, Any] = {}
    with _step(answer, "import"):
        from vlfau.models.runtimes import tensorrt, tensorrt_engines

        answer["version"] = tensorrt_engines.flavour("tensorrt_rtx").version
    if "failed" not in answer:
        with _step(answer, "build and run"):
            bundle = open_bundle(folder)
            executor = tensorrt.TensorRT(bundle, flavour_name="tensorrt_rtx", sizes=(1,), folder=folder / "trial")
            with Runtime(bundle, executor) as runtime:
                answer["agreement"] = agreement(runtime)["said"]
                answer["states_ms"] = times(runtime, 1, 0.5)["states"]
    return answer


@contextmanager
def _step(answer: dict[str, Any], name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        answer["failed"] = f"{name}: {type(error).__name__}: {error}"
