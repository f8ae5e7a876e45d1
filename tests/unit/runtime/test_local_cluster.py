"""What a local runtime ends before it starts a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierserve.runtime.local import runtime
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.processes import ProcessRef
from tierserve.runtime.local.state import LocalState


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    markers: list[str] = []
    monkeypatch.setattr(runtime, "end_marked", lambda marker, **_: markers.append(marker))
    return markers


def local(*parts: str) -> runtime.LocalRuntime:
    state = LocalState.new(Path("/x.yaml"), 8080)
    state.processes = {part: ProcessRef(2**30 + i, 0.0) for i, part in enumerate(parts)}
    return runtime.LocalRuntime(ServicePaths.of("x"), state)


def test_a_first_start_ends_nothing_so_no_worker_of_the_starting_gateway(ended: list[str]):
    local("supervisor", "agent", "gateway")._stop_cluster()
    assert ended == []


def test_what_is_left_of_a_cluster_whose_head_died_is_ended(ended: list[str]):
    made = local("supervisor", "gateway", "head", "node-edge-default")
    made._stop_cluster()
    assert ended == ["x@" + made.paths.short.name]
    assert set(made.state.processes) == {"supervisor", "gateway"}
