"""Looks for known vulnerabilities in everything that is installed, with pip-audit: `make audit`.

Exits with 0 if none is known, with 1 if some are, and with 2 if pip-audit has no data, so that nothing is known.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions

PROJECT = "vlfau-stream"  # is not on PyPI
NO_DATA = "Nothing was audited: pip-audit has no data here"
HINT = "It needs https://pypi.org/pypi/NAME/VERSION/json, which not every package index has."


def installed() -> list[str]:
    """As lines of a requirements file; a local version such as 2.11.0+cpu is the public one with other options."""
    versions = {one.metadata["Name"]: one.version.partition("+")[0] for one in distributions()}
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != PROJECT]


def audit(requirements: list[str]) -> int:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", *options, "--requirement", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(f"{NO_DATA}: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}", file=sys.stderr)
        return 2
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        print(f"{NO_DATA}. {HINT}", file=sys.stderr)
        return 2
    flaws = [(package, flaw) for package in packages for flaw in package.get("vulns", [])]
    for package, flaw in flaws:
        fixed = ", ".join(flaw["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}")
    print(f"{len(packages) - len(skipped)} packages audited, {len(flaws)} known vulnerabilities.")
    if skipped:
        print(f"Not audited: {', '.join(skipped)}")
    return 1 if flaws else 0


if __name__ == "__main__":
    if importlib.util.find_spec("pip_audit") is None:
        print("pip-audit is missing. Install it: pip install pip-audit", file=sys.stderr)
        sys.exit(2)
    sys.exit(audit(installed()))
