"""The truths of bench/ as fixtures: exact chains, and every formula's settings with the errors it states."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

_BENCH = str(Path(__file__).parents[2] / "bench")


def _of_bench(name: str) -> ModuleType:
    sys.path.insert(0, _BENCH)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(_BENCH)


@pytest.fixture(scope="session")
def chains() -> ModuleType:
    return _of_bench("chains")


@pytest.fixture(scope="session")
def stated() -> ModuleType:
    """`stated.rows_of` has the settings, `stated.broken` says which errors are not as stated."""
    return _of_bench("queueing_truth")
