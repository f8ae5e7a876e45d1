"""The policy's parts with Ray's own types, without a cluster."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

pytest.importorskip("ray.serve")

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from tierserve.autoscale.decide import Observation, Settings, State, decide
from tierserve.autoscale.types import Calibrated, StepCounts
from tierserve.runtime.local.ports import free_port
from tierserve_serving.policy import ErlangPolicy
from tierserve_serving.policy_runtime import demand as policy_demand
from tierserve_serving.policy_runtime import handover as policy_handover
from tierserve_serving.policy_runtime import settings as policy_settings
from tierserve_serving.policy_runtime.context import ReplicaReports, observation
from tierserve_serving.policy_runtime.decisions import GAUGES, DecisionPublisher, _calibration, as_json, publisher
from tierserve_serving.policy_runtime.demand import DemandPoller

DEPLOYMENT = DeploymentID(name="replica", app_name="edge")


def context(*, raw=None, total=0.0, running=1, target=1, low=1, high=10, now=None):
    ids = [ReplicaID(f"r{i}", DEPLOYMENT) for i in range(running)]
    series = {
        metric: {ids[i]: [TimeStampedValue(now or time.time(), value)] for i, value in enumerate(values)}
        for metric, values in (raw or {}).items()
    }
    return AutoscalingContext(
        deployment_id=DEPLOYMENT,
        deployment_name="replica",
        app_name="edge",
        current_num_replicas=running,
        target_num_replicas=target,
        running_replicas=ids,
        total_num_requests=lambda: total,
        total_queued_requests=lambda: 0.0,
        aggregated_metrics=lambda: {},
        raw_metrics=lambda: series,
        capacity_adjusted_min_replicas=low,
        capacity_adjusted_max_replicas=high,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=time.time(),
        config=AutoscalingConfig(),
    )


def test_serve_can_carry_the_policy_to_its_controller_and_build_it_there():
    kwargs = {"response_target_s": 1.0, "slots": 8}
    carried = AutoscalingPolicy(policy_function="tierserve_serving.policy:ErlangPolicy", policy_kwargs=kwargs)
    built = carried.get_policy()(**carried.policy_kwargs)
    replicas, state = built(context(total=3.0))
    assert (replicas, state) == (1, {})


def test_what_replicas_report_arrives_under_its_own_name():
    raw = {
        "arrivals_total": [10.0, 20.0],
        "completions_total": [8.0, 15.0],
        "service_seconds_total": [4.0, 7.0],
        "running": [2.0, 3.0],
        "waiting": [0.0, 2.0],
        "startup_seconds": [1.5, 2.5],
    }
    seen = observation(context(raw=raw, running=2), None, time.time(), 5.0)
    assert [s.arrivals for s in seen.replicas.values()] == [10.0, 20.0]
    assert [s.waiting for s in seen.replicas.values()] == [0.0, 2.0]
    assert [s.startup_s for s in seen.replicas.values()] == [1.5, 2.5]
    assert seen.ongoing is None


STEPS = {f"{name}_total": [float(k), 10.0 + k] for k, name in enumerate(StepCounts._fields)}


def test_step_counters_are_read_for_the_replica_that_is_asked_for():
    seen = observation(context(raw={"arrivals_total": [1.0, 2.0]} | STEPS, running=2), None, time.time(), 5.0)
    assert [seen.steps[name].prefills for name in seen.replicas] == [3.0, 13.0]


@pytest.mark.parametrize("missing", STEPS)
def test_a_replica_that_leaves_out_a_step_counter_is_not_taken_to_have_counted_0(missing):
    raw = {"arrivals_total": [1.0, 2.0]} | {name: v for name, v in STEPS.items() if name != missing}
    seen = observation(context(raw=raw, running=2), None, time.time(), 5.0)
    assert [seen.steps.get(name) for name in seen.replicas] == [None, None]
    late = {"arrivals_total": [1.0, 2.0]} | STEPS | {missing: [1.0]}  # the second replica is of another version
    seen = observation(context(raw=late, running=2), None, time.time(), 5.0)
    assert [seen.steps.get(name) is None for name in seen.replicas] == [False, True]


def test_the_measured_profile_is_shown_as_json_and_as_metrics():
    seen = Calibrated(0.01, 2e-4, 3e-7, 120, 0.02, 0.01, drift=True, used=True, profile_error=-0.3)
    shown = json.loads(json.dumps(as_json("a", replace(decided(), calibration=seen)), allow_nan=False))
    assert shown["calibration"]["profile_error"] == -0.3
    assert as_json("a", decided())["calibration"] is None
    assert set(_calibration(seen)) <= set(GAUGES)
    assert _calibration(seen)["calibration_drift"] == 1.0
    assert _calibration(None) == {}


def test_without_reports_the_requests_in_flight_at_the_replicas_are_taken_as_they_are_now():
    seen = observation(context(raw={"running_requests": [3.0, 4.0]}, total=99.0, running=2), None, time.time(), 5.0)
    assert seen.ongoing == 7.0


def test_without_replica_figures_rays_own_sum_is_taken():
    assert observation(context(total=5.0), None, time.time(), 5.0).ongoing == 5.0


def test_replicas_that_fell_silent_are_not_taken_for_idle_ones():
    reports, then = ReplicaReports(), 1000.0  # by their own clock
    ctx = context(raw={"running_requests": [0.0, 0.0]}, running=2, now=then)
    assert observation(ctx, None, 2000.0, 5.0, reports).ongoing == 0.0
    assert observation(ctx, None, 2006.0, 5.0, reports).ongoing is None


def test_a_policy_that_cannot_decide_keeps_the_target():
    policy = ErlangPolicy(1.0, pool="broken")
    broken = context(target=4)
    broken.__dict__["raw_metrics"] = {"arrivals_total": 3}
    assert policy(broken)[0] == 4


def test_between_decisions_the_last_one_is_given_at_once():
    policy = ErlangPolicy(1.0, pool="fast", interval_s=60.0)
    first = policy(context(total=1.0))
    runner = policy._runner
    decision, now = runner.last, runner.clock()
    runner.clock = lambda: now + 59.0
    assert policy(context(total=9.0)) == first
    assert runner.last is decision, "not decided again"
    runner.clock = lambda: now + 61.0
    policy(context(total=9.0))
    assert runner.last is not decision


def test_a_rebuilt_policy_goes_on_from_what_the_pool_had_learned():
    first = ErlangPolicy(1.0, pool="kept", interval_s=0.0)
    for _ in range(3):
        first(context(total=1.0))
    second = ErlangPolicy(1.0, pool="kept", interval_s=0.0)
    second(context(total=1.0))
    assert len(second._runner.state.history.marks) == len(first._runner.state.history.marks) + 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"response_target_s": 0.0}, "target_s must be above 0"),
        ({"response_target_s": 1.0, "percentile": 100.0}, "percentile must be between 0 and 100"),
        ({"response_target_s": 1.0, "slots": 0}, "slots must be above 0"),
        ({"response_target_s": 1.0, "startup_s": -1.0}, "startup_s must be at least 0"),
    ],
)
def test_a_setting_out_of_range_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ErlangPolicy(**kwargs)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="head_room"):
        ErlangPolicy(1.0, head_room=3)


def decided():
    return decide(Observation(1.0, 1, 1, 1, 4, ongoing=0.0), State(), Settings(target_s=1.0))[0]


def test_decisions_can_be_read_over_http():
    port = free_port()
    publisher = DecisionPublisher(f"127.0.0.1:{port}")
    publisher.put("a", as_json("a", decided()) | {"t": time.time()})
    publisher.put("b", as_json("b", decided()) | {"t": time.time()})
    seen = httpx.get(f"http://127.0.0.1:{port}/decisions").json()
    assert seen.keys() == {"a", "b"}
    assert seen["a"]["lambda"] == 0.0
    assert httpx.get(f"http://127.0.0.1:{port}/elsewhere").status_code == 404


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_decisions_can_be_read_over_ipv4_and_ipv6():
    port = free_port()
    DecisionPublisher(f":{port}").put("a", as_json("a", decided()) | {"t": time.time()})
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port}/decisions", trust_env=False).json().keys() == {"a"}


def test_an_address_in_use_does_not_stop_the_policy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        publisher = DecisionPublisher(f"127.0.0.1:{taken.getsockname()[1]}")
        publisher.put("a", as_json("a", decided()))


@pytest.mark.parametrize("address", ["8080", "host:", "host:http"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(ValueError, match="HOST:PORT"):
        DecisionPublisher(address)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"queued": 1}', b'{"arrivals_total": "x", "queued": 0, "in_flight": 0}']
)
def test_a_gateway_that_answers_nonsense_gives_no_sample(body, caplog):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    poller = DemandPoller(f"http://127.0.0.1:{server.server_port}/", interval_s=0.01)
    assert poller.latest() is None
    deadline = time.monotonic() + 30.0
    while not poller._failed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert poller._failed
    assert poller.latest() is None
    server.server_close()


class _Gateway:
    """Answers with its own figures at an address of its own."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.figures = {"arrivals_total": 0, "queued": 0, "in_flight": 0}
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(gateway.figures).encode())

            def log_message(self, *args):
                pass

        self.server = HTTPServer((host, port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_the_demand_of_several_gateways_behind_one_name_is_added_up(monkeypatch):
    one = _Gateway("127.0.0.1")
    two = _Gateway("127.0.0.2", one.port)
    behind = ["127.0.0.1", "127.0.0.2"]
    monkeypatch.setattr(policy_demand, "addresses", lambda _: [f"http://{host}:{one.port}/" for host in behind])
    poller = DemandPoller(f"http://agents.invalid:{one.port}/pools/x")
    try:
        one.figures |= {"arrivals_total": 100, "queued": 1, "in_flight": 4, "bypassed_total": 6}
        two.figures |= {"arrivals_total": 50, "queued": 2, "in_flight": 3}
        first = poller._read()
        assert (first.queued, first.in_flight, first.bypassed) == (3, 7, 6)
        assert sorted(poller.requests.values()) == [5, 5]
        one.figures["arrivals_total"] = 110
        two.figures["arrivals_total"] = 2  # it began anew, and two came since
        assert poller._read().arrivals - first.arrivals == 12
        behind.remove("127.0.0.2")
        one.figures["arrivals_total"] = 111
        assert poller._read().arrivals - first.arrivals == 13
        behind.append("127.0.0.2")  # not ready for a while, then back with what it had
        two.figures["arrivals_total"] = 5
        assert poller._read().arrivals - first.arrivals == 16
    finally:
        one.close()
        two.close()


def test_gateways_are_told_the_requests_that_each_has_until_that_is_old(monkeypatch):
    one = _Gateway("127.0.0.1")
    one.figures |= {"arrivals_total": 9, "queued": 1, "in_flight": 4, "gateway": "pod-a:8391"}
    where = f"127.0.0.1:{free_port()}"
    policy = ErlangPolicy(
        1.0, pool="told", demand_url=f"http://127.0.0.1:{one.port}/", decisions_address=where, interval_s=0.0
    )

    def told() -> dict[str, float]:
        policy(context())
        return json.loads(publisher(where).body())["told"]["gateways"]

    try:
        deadline = time.monotonic() + 30.0
        while not told() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert told() == {"pod-a:8391": 5.0}
    finally:
        one.close()
    clock = policy._runner.clock
    policy._runner.clock = lambda: clock() + 60.0
    assert told() == {}


def test_a_name_is_asked_at_each_of_its_addresses_and_https_by_its_name():
    (local,) = policy_demand.addresses("http://localhost:81/pools/x")
    assert local in {"http://127.0.0.1:81/pools/x", "http://[::1]:81/pools/x"}, "of one family"
    assert policy_demand.addresses("http://[::1]:81/pools/x") == ["http://[::1]:81/pools/x"]
    assert policy_demand.addresses("https://gateway.example/x") == ["https://gateway.example/x"]
    with pytest.raises(OSError, match=r"nobody\.invalid|not known|resol"):
        policy_demand.addresses("http://nobody.invalid/x")


def test_a_demand_url_that_is_not_http_is_refused():
    with pytest.raises(ValueError, match="http"):
        DemandPoller("file:///etc/passwd")


def test_a_pool_is_left_before_its_only_replica_is_replaced(monkeypatch):
    """Ray stops it right after it has built the policy anew; requests that came then hung till the next one ran."""
    address = f"127.0.0.1:{free_port()}"
    here, shown = publisher(address), lambda: json.loads(here.body())["left"]["running"]

    slept: list[float] = []
    monkeypatch.setattr(policy_handover.time, "sleep", slept.append)

    def built(version: str | None) -> bool:
        """Whether the controller waited for gateways to leave the pool."""
        before = len(slept)
        ErlangPolicy(1.0, pool="left", decisions_address=address, process_version=version)
        return len(slept) > before

    assert not built("a"), "nothing runs yet"
    here.put("left", {"t": time.time(), "running": 1})
    assert not built("a"), "another objective, say: the replica stays"
    assert shown() == 1
    here.put("left", {"t": time.time(), "running": 2})
    assert not built("b"), "the other one serves meanwhile"
    here.put("left", {"t": time.time(), "running": 1})
    monkeypatch.setattr(policy_settings.reader("left"), "surge", True)
    assert not built("c"), "the new one starts before the old one stops"
    monkeypatch.setattr(policy_settings.reader("left"), "surge", False)
    assert shown() == 1
    assert built("d")
    assert shown() == 0
    here.put("left", {"t": time.time(), "running": 1})
    assert shown() == 0, "the old one, about to go"
    here.put("left", {"t": time.time(), "running": 0})
    here.put("left", {"t": time.time(), "running": 1})
    assert shown() == 1, "the new one"
