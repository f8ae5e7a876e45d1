"""Processes are found by the mark they inherit and ended by their id."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from tierserve.runtime.local.processes import ProcessRef, end_marked, end_tree, marked, start

SLEEPER = [sys.executable, "-c", "import time; time.sleep(120)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], "
    "start_new_session=True); time.sleep(120)",
]
HIDES_A_CHILD = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], "
    "env={}, start_new_session=True); print(child.pid, flush=True); time.sleep(120)",
]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(120)",
]


@pytest.fixture
def marker(tmp_path: Path):
    name = f"test-{tmp_path.name}-{os.getpid()}"
    yield name
    end_marked(name, grace_s=0.2)


def wait_for(condition, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true"
        time.sleep(0.02)


def test_a_started_process_is_alive_until_it_is_ended(tmp_path: Path, marker: str):
    reference = start(SLEEPER, log=tmp_path / "log", marker=marker)
    assert reference.alive()
    end_tree(reference)
    assert not reference.alive()


def test_a_later_process_with_the_same_id_is_not_taken_for_the_one_that_was_started():
    own = psutil.Process()
    assert ProcessRef(own.pid, own.create_time()).alive()
    assert not ProcessRef(own.pid, own.create_time() - 3600).alive()


def test_orphans_that_left_their_session_are_ended_with_the_service(tmp_path: Path, marker: str):
    parent = start(PARENT, log=tmp_path / "log", marker=marker)
    wait_for(lambda: len(marked(marker)) == 2)
    psutil.Process(parent.pid).kill()
    wait_for(lambda: len(marked(marker)) == 1)
    end_marked(marker, grace_s=1.0)
    assert marked(marker) == []


def test_a_child_that_shows_no_marker_is_ended_with_its_parent(tmp_path: Path, marker: str):
    start(HIDES_A_CHILD, log=tmp_path / "log", marker=marker)
    wait_for(lambda: (tmp_path / "log").read_bytes().endswith(b"\n"))
    child = psutil.Process(int((tmp_path / "log").read_text()))
    assert child not in marked(marker)
    end_marked(marker, grace_s=1.0)
    assert not child.is_running()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, marker: str):
    start(DEAF, log=tmp_path / "log", marker=marker)
    wait_for(lambda: (tmp_path / "log").read_bytes() != b"")
    end_marked(marker, grace_s=0.2)
    assert marked(marker) == []


def test_a_service_next_door_is_left_alone(tmp_path: Path, marker: str):
    neighbour = start(SLEEPER, log=tmp_path / "log", marker=marker + "-other")
    end_marked(marker, grace_s=0.2)
    assert neighbour.alive()
    end_marked(marker + "-other", grace_s=0.2)
