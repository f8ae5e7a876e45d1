"""The truths of bench/ as fixtures: exact chains, and every formula's settings with the errors it states."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def chains() -> ModuleType:
    return importlib.import_module("bench.queueing.chains")


@pytest.fixture(scope="session")
def stated() -> ModuleType:
    """`stated.rows_of` has the settings, `stated.broken` says which errors are not as stated."""
    return importlib.import_module("bench.queueing.truth")
