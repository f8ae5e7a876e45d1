"""How far Hypothesis looks, and the programs of Kubernetes and Prometheus that tests of several folders use.

`make test` takes the same examples each time, so that a verdict is of the code and not of the day. To search with new
ones each time: `HYPOTHESIS_PROFILE=search python -m pytest tests/property`. No test is judged by its time.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session")
def binaries() -> ModuleType:
    """Module scripts/kube_binaries.py."""
    spec = importlib.util.spec_from_file_location("kube_binaries", ROOT / "scripts" / "kube_binaries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kube_binaries"] = module
    spec.loader.exec_module(module)
    return module
