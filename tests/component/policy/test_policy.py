"""ErlangPolicy inside a real Ray Serve controller, with real requests through Ray's HAProxy."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tierserve_serving.policy_runtime.store import GcsStore

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy]

FIELDS = {
    "t", "pool", "replicas", "target", "running", "pending", "slots", "servers", "lambda", "mu", "service_s", "rho",
    "offered_load", "p_wait", "predicted_p95_s", "percentile", "target_s", "startup_s", "peakedness", "reason", "stale",
}  # fmt: skip


def test_a_closed_loop_gets_a_slot_for_each_connection_and_the_floor_when_it_ends(
    deployed, apps, closed_loop, decision, decisions_address, wait
):
    url = deployed.run(apps.scaled(apps.Reporting, pool="edge", decisions_address=decisions_address))
    loop = closed_loop(url)
    loop.connect(8)
    wait(lambda: decision("edge").get("running", 0) >= 2, 20.0)
    wait(lambda: len(loop.pids) >= 2, 20.0)  # one replica alone would let everybody wait for a whole turn
    served = pytest.approx(8 / 0.3, rel=0.3)
    seen = wait(lambda: (d := decision("edge"))["lambda"] == served and d["running"] in (2, 3) and d, 30.0)
    assert seen.keys() >= FIELDS
    assert seen["pool"] == "edge"
    assert seen["service_s"] == pytest.approx(0.3, rel=0.3)
    assert not seen["stale"]
    loop.stop()
    assert {status for _, _, status in loop.samples} == {200}
    wait(lambda: decision("edge")["running"] == 1, 180.0)  # the window is six times start-up, wait and service


def test_a_deployment_that_reports_nothing_is_scaled_by_the_requests_that_ray_counts(
    deployed, apps, closed_loop, decision, decisions_address, wait
):
    url = deployed.run(apps.scaled(apps.Plain, pool="plain", decisions_address=decisions_address))
    loop = closed_loop(url)
    loop.connect(8)
    wait(lambda: decision("plain").get("running", 0) >= 2, 20.0)
    assert decision("plain")["service_s"] == pytest.approx(0.3)
    loop.stop()
    wait(lambda: decision("plain")["running"] == 1, 180.0)  # the window is six times start-up, wait and service


def test_replicas_that_fall_silent_hold_the_target(deployed, apps, closed_loop, decision, decisions_address, wait):
    url = deployed.run(
        apps.scaled(
            apps.Reporting,
            pool="silent",
            decisions_address=decisions_address,
            stale_after_s=2.0,
            stabilization_window_s=30.0,  # what is seen before the silence must not scale it down on a slow machine
        )
    )
    loop = closed_loop(url)
    loop.connect(8)
    settled: list[dict] = []  # all that are wanted run and have been met, at five looks in a row

    def is_settled() -> bool:
        seen = decision("silent")
        good = 2 <= seen.get("running", 0) == seen["target"] == len(loop.pids)
        settled.append(seen) if good else settled.clear()
        return len(settled) >= 5

    wait(is_settled, 20.0, 0.5)
    target, pids = decision("silent")["target"], set(loop.pids)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        held = wait(lambda: (seen := decision("silent"))["stale"] and seen, 10.0)
        later = {}

        def decided_again() -> bool:
            seen = decision("silent")
            later[seen["t"]] = seen
            return len(later) > 6

        wait(decided_again, 20.0)
        assert all(seen["stale"] and seen["target"] == target for seen in later.values())
        assert held["reason"].startswith(f"held at {target}: no metrics for")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait(lambda: not decision("silent")["stale"], 10.0)


@pytest.fixture
def gateway():
    """A gateway's demand as the agent serves it; the test changes the numbers."""
    demand = {"arrivals_total": 0.0, "queued": 0, "in_flight": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(demand | {"t": time.time()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/pools/demand", demand
    server.shutdown()
    server.server_close()


def test_requests_that_wait_at_the_gateway_count(deployed, apps, decision, decisions_address, gateway, wait):
    url, demand = gateway
    deployed.run(apps.scaled(apps.Reporting, pool="demand", decisions_address=decisions_address, demand_url=url))
    wait(lambda: decision("demand").get("in_system") == 0, 10.0)
    demand.update(arrivals_total=16.0, queued=12, in_flight=4)
    seen = wait(lambda: (d := decision("demand"))["target"] >= 4 and d, 10.0)
    assert seen["in_system"] == 16
    wait(lambda: decision("demand")["running"] >= 4, 20.0)


def test_what_was_learned_outlives_the_controller(deployed, apps, closed_loop, decision, decisions_address, wait):
    import ray
    from ray.experimental import internal_kv

    prior = 50.0
    url = deployed.run(
        apps.scaled(
            apps.Plain, pool="kept", decisions_address=decisions_address, startup_s=prior, stabilization_window_s=30.0
        )
    )
    controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    first = ray.get(controller.get_pid.remote())
    loop = closed_loop(url)
    loop.connect(8)
    learned = set[float]()

    def is_settled() -> bool:
        seen = decision("kept")
        learned.add(seen["startup_s"])
        return seen["startup_s"] < prior and seen["running"] == seen["target"] >= 2

    wait(is_settled, 30.0)
    wait(lambda: GcsStore(internal_kv).get("kept"), 20.0)  # the first start is saved at once, in the background
    target, killed, targets = decision("kept")["target"], time.time(), set[int]()
    ray.kill(controller, no_restart=False)

    def goes_on() -> dict:
        seen = decision("kept")
        if seen["t"] > killed:
            targets.add(seen["target"])
        return seen if seen["t"] > killed + 6.0 else {}

    after = wait(goes_on, 30.0, 0.2)
    assert ray.get(controller.get_pid.remote()) != first
    assert after["startup_s"] in learned - {prior}
    assert min(targets) >= target, "what it does not know yet is no reason to stop replicas"
    loop.stop()
