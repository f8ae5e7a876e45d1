"""Programs of the tests: a build waits for the build of the same program only."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import kube_binaries  # noqa: E402


def test_a_program_that_is_built_elsewhere_delays_no_other(tmp_path: Path) -> None:
    with (
        kube_binaries.locked(tmp_path, "kubelet"),
        kube_binaries.locked(tmp_path, "promtool"),
        (tmp_path / "kubelet.lock").open("w") as same,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(same, fcntl.LOCK_EX | fcntl.LOCK_NB)
