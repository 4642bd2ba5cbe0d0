"""`make audit`: what it says of the answers of pip-audit, which a module of the same name gives here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared_files import ROOT

SAFE = {"name": "av", "version": "17.0.0", "vulns": []}
FLAWED = {"name": "pillow", "version": "10.1.0", "vulns": [{"id": "PYSEC-0", "fix_versions": ["10.2.0"]}]}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([SAFE], 0, "1 packages audited, 0 known"),
        ([SAFE, SKIPPED], 0, "Not audited: torch"),
        ([SAFE, FLAWED], 1, "pillow 10.1.0: PYSEC-0, fixed in 10.2.0"),
        ([SKIPPED], 2, "Nothing was audited"),
        (None, 2, "Nothing was audited: pip-audit has no data here: no route to host"),
    ],
)
def test_an_audit_without_data_does_not_pass(packages: object, code: int, words: str, tmp_path: Path) -> None:
    answer = json.dumps({"dependencies": packages})
    text = f"print({answer!r})" if packages else "raise SystemExit('no route to host')"
    (tmp_path / "pip_audit.py").write_text(text, encoding="utf-8")
    command = [sys.executable, str(ROOT / ".ci" / "audit.py")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, words in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
