"""The rig of the component tests, for the faults too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[2] / "component" / "gateway" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("gateway_rig", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_RIG = importlib.util.module_from_spec(_SPEC)
sys.modules["gateway_rig"] = _RIG
_SPEC.loader.exec_module(_RIG)

rig = _RIG.rig
poll = _RIG.poll
