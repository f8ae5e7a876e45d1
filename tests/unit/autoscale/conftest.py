"""The simulated pool as a fixture: `sim.Pool`, `sim.steps` and the service-time distributions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_NAME = "autoscale_sim"


@pytest.fixture(scope="session")
def sim() -> ModuleType:
    """The module beside this file; it is no test and no package, so it is loaded by its path."""
    if _NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name(f"{_NAME}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_NAME])
    return sys.modules[_NAME]
