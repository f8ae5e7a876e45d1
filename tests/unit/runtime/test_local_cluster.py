"""What a local runtime ends: of a dead Ray cluster before the next one, and nodes of removed pools."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tierserve.observe.serve_rest import AppObserved
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


class Serve:
    """Ray Serve's REST API with applications that the test names; None: it does not answer."""

    def __init__(self, *names: str | None) -> None:
        self.names = names

    def applications(self) -> dict[str, AppObserved]:
        if None in self.names:
            raise httpx.ConnectError("no answer")
        return {name: AppObserved(name, "DELETING", "", 0, {"STOPPING": 1}) for name in self.names if name}


@pytest.mark.parametrize(
    ("still_there", "node_is_left"), [("edge-default", True), (None, True), ("cloud-default", False)]
)
def test_a_node_ends_only_after_the_last_replica_of_its_removed_pool(monkeypatch, still_there, node_is_left):
    monkeypatch.setattr(runtime.LocalRuntime, "rest", Serve(still_there))
    made = local("head", "node-edge-default")
    made._applied["serve"] = "{}"
    desired = runtime.LocalDesired(nodes={}, serve={}, haproxy="", agent={})
    made._attempt("Ray nodes", lambda: made._drop_nodes(desired))
    assert ("node-edge-default" in made.state.processes) is node_is_left


def test_a_repeated_error_is_logged_once(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path))
    made = local()
    made.paths.make()
    lines: list[str] = []
    made.say = lines.append
    why = "first"

    def fails() -> None:
        raise OSError(why)

    for name in ("_ensure_agent", "_ensure_gateway", "_ensure_prefork", "_ensure_head", "_ensure_serve"):
        monkeypatch.setattr(runtime.LocalRuntime, name, lambda *_: None)
    monkeypatch.setattr(runtime.LocalRuntime, "_ensure_nodes", lambda *_: fails())
    desired = runtime.LocalDesired(nodes={}, serve={}, haproxy="", agent={})
    for _ in range(3):
        made._apply(desired, hold_routes=False)
    assert lines == ["Ray nodes: first"]
    why = "second"
    made._apply(desired, hold_routes=False)
    assert lines == ["Ray nodes: first", "Ray nodes: second"]
