"""The memory of a policy: read once, saved at most once a minute, and never in the way of a decision."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from tierserve.autoscale.decide import Settings, State
from tierserve.autoscale.snapshot import dump_state, load_state
from tierserve_serving.policy_runtime import runner as policy_runner
from tierserve_serving.policy_runtime import store as policy_memory
from tierserve_serving.policy_runtime.runner import Endpoints, PolicyRunner
from tierserve_serving.policy_runtime.store import GcsStore, PolicyMemory

SETTINGS = Settings(target_s=1.0, slots=4, startup_s=5.0)
KNOWN = State(startups=(11.0, 12.0))
T = 1e9


class Kv:
    """A store in memory that can hang or fail."""

    def __init__(self, error: Exception | None = None, *, hangs: bool = False) -> None:
        self.values: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.error, self.free = error, threading.Event()
        if not hangs:
            self.free.set()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.free.wait(30.0)
        if self.error:
            raise self.error

    def get(self, key: str) -> bytes | None:
        self._call("get")
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self._call("put")
        self.values[key] = value


def settled(memory: PolicyMemory) -> PolicyMemory:
    if memory._thread:
        memory._thread.join(10.0)
        assert not memory._thread.is_alive()
    return memory


def read(memory: PolicyMemory, t: float, state: State | None = None) -> State:
    """Return the state after two calls, between which it reads if it has to; a fast thread is done within the first."""
    state = memory.restore(state or State(), SETTINGS, t)
    return settled(memory).restore(state, SETTINGS, t)


def begun(kv: Kv) -> PolicyMemory:
    """A memory that has read what is there."""
    memory = PolicyMemory("edge", lambda: kv)
    read(memory, T)
    return memory


def test_the_next_process_goes_on_from_what_the_last_one_saved():
    kv = Kv()
    first = begun(kv)
    first.save(KNOWN, SETTINGS, T + 1.0)
    settled(first)
    assert read(PolicyMemory("edge", lambda: kv), T + 2.0).startups == KNOWN.startups


def test_it_reads_once():
    kv = Kv()
    kv.values["edge"] = dump_state(KNOWN, "edge", SETTINGS, T)
    memory = begun(kv)
    assert read(memory, T + 500.0) == State()
    assert kv.calls == ["get"]


def test_it_saves_once_a_minute_and_at_once_what_was_first_learned():
    kv = Kv()
    memory = begun(kv)
    for second in range(1, 200):
        memory.save(KNOWN if second >= 20 else State(), SETTINGS, T + second)
        settled(memory)
    assert kv.calls == ["get", "put", "put", "put"]
    assert load_state(kv.values["edge"], "edge", SETTINGS, T + 200.0) == KNOWN


def test_what_was_saved_is_not_overwritten_before_it_was_read_and_taken():
    kv = Kv(hangs=True)
    kv.values["edge"] = before = dump_state(KNOWN, "edge", SETTINGS, T)
    memory = PolicyMemory("edge", lambda: kv)
    memory.restore(State(), SETTINGS, T)
    memory.save(State(startups=(1.0,)), SETTINGS, T + 90.0)
    kv.free.set()
    settled(memory).save(State(startups=(1.0,)), SETTINGS, T + 91.0)
    assert read(memory, T + 92.0, State(startups=(1.0,))).startups == (11.0, 12.0, 1.0)
    assert kv.values["edge"] == before


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", dump_state(KNOWN, "cloud", SETTINGS, T), dump_state(KNOWN, "edge", SETTINGS, 0.0)]
)
def test_what_is_not_for_here_is_left_alone_with_one_line_and_then_replaced(data, caplog):
    kv = Kv()
    kv.values["edge"] = data
    memory = begun(kv)
    assert memory.restore(State(), SETTINGS, T + 1.0) == State()
    assert [r.message for r in caplog.records if "is ignored" in r.message] == [r.message for r in caplog.records]
    assert len(caplog.records) == 1
    memory.save(KNOWN, SETTINGS, T + 61.0)
    settled(memory)
    assert load_state(kv.values["edge"], "edge", SETTINGS, T + 62.0) == KNOWN


def test_a_store_that_fails_is_asked_again_each_minute_and_complained_of_once(caplog):
    kv = Kv(OSError("no GCS"))
    kv.values["edge"] = dump_state(KNOWN, "edge", SETTINGS, T)
    memory = PolicyMemory("edge", lambda: kv)
    for second in range(130):
        memory.restore(State(), SETTINGS, T + second)
        memory.save(KNOWN, SETTINGS, T + second)
        settled(memory)
    assert kv.calls == ["get"] * 3
    assert len(caplog.records) == 1
    assert "no GCS" in caplog.text
    kv.error = None
    assert read(memory, T + 190.0).startups == KNOWN.startups


def test_without_a_store_nothing_happens():
    def broken() -> None:
        raise RuntimeError("no such thing")

    for store in (lambda: None, broken):
        memory = PolicyMemory("edge", store)
        for second in (0.0, 61.0, 700.0, 800.0):
            assert memory.restore(KNOWN, SETTINGS, T + second) is KNOWN
            memory.save(KNOWN, SETTINGS, T + second)
        assert memory._thread is None


class Context:
    """What Ray tells of a deployment with one replica and three requests in flight."""

    app_name, deployment_name = "app", "model"
    current_num_replicas = target_num_replicas = capacity_adjusted_min_replicas = 1
    capacity_adjusted_max_replicas, total_num_requests, total_queued_requests = 9, 3.0, 0.0

    def __init__(self) -> None:
        self.raw_metrics: dict[str, dict[str, list[object]]] = {}


@pytest.fixture
def runner(monkeypatch):
    """`runner(kv, pool)`: as a process that has just begun has it; its clock goes on by a second per decision."""

    def make(kv: Kv, pool: str) -> PolicyRunner:
        monkeypatch.setattr(policy_memory, "gcs", lambda: kv)
        monkeypatch.setattr(policy_memory, "_memories", {pool: PolicyMemory(pool, lambda: kv)})
        monkeypatch.setattr(policy_runner, "_states", {})
        clock = SimpleNamespace(t=T)

        def tick() -> float:
            clock.t += 1.0
            return clock.t

        return PolicyRunner(SETTINGS, Endpoints(), pool, 0.0, tick)

    return make


def test_a_store_that_hangs_holds_up_no_decision(runner):
    kv = Kv(hangs=True)
    deciding = runner(kv, "hangs")
    began = threading.active_count()
    done = threading.Event()

    def decide() -> None:
        for _ in range(200):
            assert deciding.replicas(Context()) >= 1
        done.set()

    threading.Thread(target=decide, daemon=True).start()
    assert done.wait(20.0), "a decision waits for the store"
    assert kv.calls == ["get"]
    assert threading.active_count() <= began + 1
    kv.free.set()


def test_a_restarted_process_decides_with_the_start_up_time_of_the_one_before(runner):
    kv = Kv()
    kv.values["edge"] = dump_state(State(startups=(33.0,)), "edge", SETTINGS, T)
    deciding = runner(kv, "edge")
    deciding.replicas(Context())
    settled(policy_memory.memory("edge"))
    deciding.replicas(Context())
    assert deciding.last.startup_s == 33.0


def test_the_gcs_is_asked_in_a_namespace_of_its_own_under_the_name_of_the_pool():
    seen = []

    def put(key: str, value: bytes, overwrite: bool = False, *, namespace: str | None = None) -> None:
        seen.append((key, value, overwrite, namespace))

    kv = SimpleNamespace(_internal_kv_get=lambda key, namespace: f"{namespace}/{key}".encode(), _internal_kv_put=put)
    assert GcsStore(kv).get("edge") == b"tierserve_policy/edge"
    GcsStore(kv).put("edge", b"x")
    assert seen == [("edge", b"x", True, "tierserve_policy")]
