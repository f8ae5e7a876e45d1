"""Queue limits, the agent's limits and counters, against real HAProxy."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.haproxy


async def test_over_the_queue_bound_is_503_with_retry_after(rig, poll):
    await rig.start((rig.pool("edge-a", 1),), max_queue=2, retry_after_s=3)
    await rig.start_agent()
    rig.upstream.hold()
    tasks = [rig.send(n) for n in range(3)]
    await poll(lambda: rig.agent.states["edge-a"].queued == 2)
    refused = await rig.post()
    assert (refused.status, refused.headers["Retry-After"], refused.error["code"]) == (503, "3", "overloaded")
    rig.upstream.release()
    assert [r.status for r in await asyncio.gather(*tasks)] == [200, 200, 200]


async def test_a_request_that_waits_too_long_is_503(rig, poll):
    await rig.start((rig.pool("edge-a", 1),), queue_timeout_s=0.2)
    rig.upstream.hold()
    rig.send()
    await poll(lambda: rig.upstream.in_flight["edge-a"] == 1)
    reply = await rig.post()
    assert (reply.status, reply.error["type"], reply.headers["Retry-After"]) == (503, "server_error", "1")
    assert reply.took_s > 0.15
    assert len(rig.upstream.seen) == 1


async def test_max_in_flight_follows_the_decisions_and_admits_the_queue(rig, poll):
    await rig.start((rig.pool("edge-a", 0, slots=2),))
    rig.decisions = {"edge-a": {"running": 1}}
    await rig.start_decisions()
    await rig.start_agent()
    rig.upstream.hold()
    await poll(lambda: rig.agent.states["edge-a"].up)
    tasks = [rig.send(n) for n in range(5)]
    await poll(lambda: rig.agent.states["edge-a"].queued == 3)
    assert rig.upstream.in_flight["edge-a"] == 2
    rig.decisions["edge-a"]["running"] = 2
    await poll(lambda: rig.upstream.in_flight["edge-a"] == 4)
    rig.decisions["edge-a"]["running"] = 1
    await poll(lambda: rig.agent.states["edge-a"].max_in_flight == 2)
    rig.upstream.release()
    assert [r.status for r in await asyncio.gather(*tasks)] == [200] * 5


async def test_the_gateway_with_the_clients_gets_the_slots(rig, poll):
    await rig.start((rig.pool("edge-a", 0, slots=4),))
    rig.decisions = {"edge-a": {"running": 1}}
    await rig.start_decisions()
    await rig.start_agent(gateways=2)
    rig.upstream.hold()
    await poll(lambda: rig.agent.states["edge-a"].up)
    tasks = [rig.send(n) for n in range(5)]
    await poll(lambda: rig.agent.states["edge-a"].queued == 3)  # an equal share: nothing is known of the other
    sample = (await rig.get_json(rig.agent_url + "/pools/edge-a"))[1]
    rig.decisions["edge-a"]["gateways"] = {sample["gateway"]: sample["queued"] + sample["in_flight"], "other:1": 0.0}
    await poll(lambda: rig.upstream.in_flight["edge-a"] == 4)
    rig.upstream.release()
    assert [r.status for r in await asyncio.gather(*tasks)] == [200] * 5


async def test_without_a_running_replica_the_response_is_503_at_once(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    rig.decisions = {"edge-a": {"running": 0}}
    await rig.start_decisions()
    await rig.start_agent()
    await poll(lambda: rig.agent.states["edge-a"].drained)
    reply = await rig.post()
    assert (reply.status, reply.error["code"]) == (503, "tier_unavailable")
    # Still counted: this demand scales the tier up from zero.
    await poll(lambda: rig.agent.offered.totals["edge-a"] == 1)
    rig.decisions["edge-a"]["running"] = 1
    await poll(lambda: rig.agent.states["edge-a"].up)
    assert (await rig.post()).status == 200


async def test_a_dead_decisions_server_leaves_the_last_limit_and_its_age_grows(rig, poll):
    await rig.start((rig.pool("edge-a", 1, slots=4),))
    rig.decisions = {"edge-a": {"running": 2}}
    server = await rig.start_decisions()
    agent = await rig.start_agent()
    await poll(lambda: agent.states["edge-a"].max_in_flight == 8)
    await server.cleanup()
    await poll(lambda: agent.decisions.errors)
    await poll(lambda: agent.decisions.age_s("edge-a") > 0.3)
    assert agent.states["edge-a"].max_in_flight == 8
    assert (await rig.get_json(rig.agent_url + "/status"))[1]["decisions_errors"]
    assert (await rig.post()).status == 200


async def test_offered_includes_requests_that_overflowed_from_a_full_tier(rig, poll):
    await rig.start((rig.pool("device-a", 1), rig.pool("edge-a", 2)), {"chat": ("device", "edge"), "far": ("edge",)})
    await rig.start_agent()
    rig.upstream.hold()
    tasks = []
    for n in range(5):  # 1 at the device, 2 at the edge, 2 wait: all five are the device's demand, four the edge's
        tasks.append(rig.send(n))
        await poll(lambda n=n: sum(s.in_flight + s.queued for s in rig.agent.states.values()) == n + 1)
    tasks.append(rig.send(cls="far"))
    await poll(lambda: rig.agent.offered.totals == {"device-a": 5, "edge-a": 5})
    rig.upstream.release()
    await asyncio.gather(*tasks)
    status, body = await rig.get_json(rig.agent_url + "/pools/device-a")
    assert (status, body["arrivals_total"]) == (200, 5)
    assert {"t", "queued", "in_flight"} <= set(body)


async def test_offered_counts_are_exact_under_load(rig, poll):
    await rig.start((rig.pool("edge-a", 3), rig.pool("cloud-a", 5)), max_queue=20)
    rig.upstream.service_s = 0.01
    await rig.start_agent()
    replies = []
    for _ in range(4):
        replies += await asyncio.gather(*(rig.post(n) for n in range(75)))
    served = [r.pool for r in replies if r.status == 200]
    assert 0 < len(served) < 300
    await poll(lambda: rig.agent.offered.totals["edge-a"] == 300)
    assert rig.agent.offered.arrivals == {p: served.count(p) for p in ("edge-a", "cloud-a")}


async def test_latency_and_shares_are_exact_in_status_and_in_metrics(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    agent = await rig.start_agent()
    rig.upstream.service_s = 0.1
    await asyncio.gather(*(rig.post(n) for n in range(8)))
    await poll(lambda: agent.receiver.received >= 8 and agent.states["edge-a"].in_flight == 0)
    _, status = await rig.get_json(rig.agent_url + "/status")
    latency = status["pools"]["edge-a"]
    assert (latency["count"], latency["in_flight"], latency["queued"], latency["up"]) == (8, 0, 0, True)
    assert 0.35 < latency["p50_s"] < 1.0
    assert 0.6 < latency["queue_p95_s"] < 2.0
    assert 0.1 < latency["within_target"] <= 0.5
    async with rig.client.get(rig.agent_url + "/metrics") as answer:
        text = await answer.text()
    labels = 'class="chat",code="200",pool="edge-a",tier="edge"'
    assert f"tierserve_gateway_requests_total{{{labels}}} 8.0" in text
    assert f"tierserve_gateway_request_duration_seconds_count{{{labels}}} 8.0" in text
    assert 'tierserve_gateway_queue_seconds_count{class="chat",pool="edge-a",tier="edge"} 8.0' in text
    assert 'tierserve_gateway_offered_total{pool="edge-a",tier="edge"} 8.0' in text
    async with rig.client.get(f"http://127.0.0.1:{rig.spec.metrics_port}/metrics") as answer:
        assert 'haproxy_backend_http_responses_total{proxy="pool_edge-a",code="2xx"} 8' in await answer.text()


async def test_an_unknown_pool_is_404_and_a_pool_without_haproxy_503(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    agent = await rig.start_agent()
    assert (await rig.get_json(rig.agent_url + "/pools/nowhere"))[0] == 404
    rig.stop_haproxy()
    await poll(lambda: not agent.states)
    assert (await rig.get_json(rig.agent_url + "/pools/edge-a"))[0] == 503
    assert (await rig.get_json(rig.agent_url + "/healthz"))[0] == 200
