"""What the operator loads when it starts: each second of it is a second without decisions."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_is_loaded_that_only_planners_and_local_runs_need() -> None:
    heavy = {"numpy", "scipy", "httpx", "rich", "matplotlib"}
    code = f"import sys, tierserve.controller.handlers; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
