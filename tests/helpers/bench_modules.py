"""Fixtures that import a bench as a module: `bench = bench_module("latency")`. Benches are scripts, not a package."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
from shared_files import ROOT

BENCH = ROOT / "bench"


def bench_module(name: str) -> Any:
    @pytest.fixture
    def loaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCH))
        return importlib.import_module(name)

    return loaded
