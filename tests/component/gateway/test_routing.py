"""Choice of the pool of a request, against real HAProxy."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.haproxy


async def test_overflows_to_the_next_tier_when_the_first_is_full(rig, poll):
    await rig.start((rig.pool("device-a", 1), rig.pool("edge-a", 2), rig.pool("cloud-a", 3)))
    rig.upstream.hold()
    tasks = []
    for n in range(6):
        tasks.append(rig.send(n))
        await poll(lambda n=n: len(rig.upstream.seen) == n + 1)
    rig.upstream.release()
    replies = await asyncio.gather(*tasks)
    assert [r.pool for r in replies] == ["device-a", "edge-a", "edge-a", "cloud-a", "cloud-a", "cloud-a"]


async def test_takes_the_site_with_most_free_slots(rig, poll):
    await rig.start((rig.pool("edge-a", 2), rig.pool("edge-b", 4)))
    rig.upstream.hold()
    for n in range(6):
        rig.send(n)
        await poll(lambda n=n: len(rig.upstream.seen) == n + 1)
    assert [pool for pool, _ in rig.upstream.seen][:3] == ["edge-b", "edge-b", "edge-a"]
    assert rig.upstream.by_pool() == Counter({"edge-b": 4, "edge-a": 2})


async def test_slots_pool_in_one_fifo_queue(rig, poll):
    await rig.start((rig.pool("edge-a", 3),))
    agent = await rig.start_agent(poll_interval_s=0.01)
    rig.upstream.hold()
    rig.upstream.service_s = 0.02
    tasks = []
    for n in range(15):
        tasks.append(rig.send(n))
        await poll(lambda n=n: agent.states["edge-a"].in_flight + agent.states["edge-a"].queued == n + 1)
    assert agent.states["edge-a"].queued == 12
    rig.upstream.release()
    await asyncio.gather(*tasks)
    assert [body["n"] for _, body in rig.upstream.seen] == list(range(15))
    assert rig.upstream.most["edge-a"] == 3


async def test_when_all_are_full_joins_the_shortest_expected_wait(rig, poll):
    # edge: 1 slot of 1 s; cloud: 4 slots of 2 s. Waits for the next: 1 s and 0.5 s, then 1 s and 1 s, edge first.
    await rig.start((rig.pool("edge-a", 1, service_s=1.0), rig.pool("cloud-a", 4, service_s=2.0)))
    await rig.start_agent()
    rig.upstream.hold()
    for n in range(5):
        rig.send(n)
        await poll(lambda n=n: len(rig.upstream.seen) == n + 1)
    waiting = []
    for n in range(3):
        rig.send(n)
        await poll(lambda n=n: sum(s.queued for s in rig.agent.states.values()) == n + 1)
        waiting.append((rig.agent.states["edge-a"].queued, rig.agent.states["cloud-a"].queued))
    assert waiting == [(0, 1), (1, 1), (1, 2)]


async def test_a_variants_name_goes_only_to_pools_that_serve_it(rig):
    await rig.start((rig.pool("edge-a", 5, models=("light",)), rig.pool("cloud-a", 5, models=("org/large:7b",))))
    pools = [(await rig.post(model=m)).pool for m in ("light", "org/large:7b", "assistant")]
    assert pools == ["edge-a", "cloud-a", "edge-a"]


async def test_class_header_chooses_the_chain_and_an_unknown_one_is_refused(rig):
    await rig.start((rig.pool("edge-a", 5), rig.pool("cloud-a", 5)), {"chat": ("edge", "cloud"), "batch": ("cloud",)})
    assert (await rig.post()).pool == "edge-a"
    assert (await rig.post(cls="batch")).pool == "cloud-a"
    for bad in ("secret", "batch,chat", "CHAT", ""):
        reply = await rig.post(headers={"X-TierServe-Class": bad})
        assert reply.status == 400
        assert reply.error["code"] == "unknown_class"
        assert "chat, batch" in reply.error["message"]
    assert len(rig.upstream.seen) == 2


async def test_a_header_may_only_make_the_class_stricter_than_the_default(rig):
    await rig.start((rig.pool("edge-a", 5), rig.pool("cloud-a", 5)), {"chat": ("edge", "cloud"), "personal": ("edge",)})
    strict = {"chat": 0, "personal": 2}
    classes = tuple(dataclasses.replace(c, strictness=strict[c.name]) for c in rig.spec.classes)
    assert (await rig.post(cls="personal")).pool == "edge-a"
    await asyncio.to_thread(rig.reload, dataclasses.replace(rig.spec, classes=classes, default_class="personal"))
    for _ in range(400):
        looser = await rig.post(cls="chat", headers={"Connection": "close"})
        if looser.status == 403:
            break
        await asyncio.sleep(0.05)  # the old process still answers
    assert (looser.status, looser.error["code"]) == (403, "class_not_allowed")
    assert (await rig.post()).pool == "edge-a"
    assert {k.lower(): v for k, v in rig.upstream.headers[-1].items()}["x-tierserve-class"] == "personal"


async def test_a_model_that_the_class_may_not_reach_is_not_found(rig):
    pools = (rig.pool("edge-a", 5, models=("light",)), rig.pool("cloud-a", 5, models=("large",)))
    await rig.start(pools, {"chat": ("edge", "cloud"), "private": ("edge",)})
    reply = await rig.post(model="large", cls="private")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "private" in reply.error["message"]
    assert rig.upstream.seen == []


async def test_sets_its_headers_and_strips_those_clients_may_not_set(rig):
    await rig.start((rig.pool("edge-a", 5),))
    forged = {"X-Request-Start": "t=1", "X-TierServe-Pool": "x", "X-Forwarded-For": "6.6.6.6", "X-Request-ID": "a b"}
    before = time.time()
    reply = await rig.post(headers=forged)
    seen = {k.lower(): v for k, v in rig.upstream.headers[0].items()}
    assert before - 0.01 <= float(seen["x-request-start"].removeprefix("t=")) <= time.time()
    assert "x-tierserve-pool" not in seen
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-tierserve-class"] == "chat"
    assert seen["path"] == "/edge-a/v1/chat/completions"
    assert len(seen["x-request-id"]) == 36
    assert reply.headers["x-request-id"] == seen["x-request-id"]
    kept = await rig.post(headers={"X-Request-ID": "abc-123"}, params={"q": "1"})
    assert kept.headers["x-request-id"] == "abc-123"
    assert rig.upstream.headers[1]["path"] == "/edge-a/v1/chat/completions?q=1"
