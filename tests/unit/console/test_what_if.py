"""What-if: the planner's figures for another load, target and prices; errors name the field."""

from __future__ import annotations

import asyncio

import pytest

from tierserve.api import ValidationFailed, to_document
from tierserve.console.planner import Planner, PlannerError, reply_to
from tierserve.console.what_if import answer, checked
from tierserve.plan.capacity import Demand, make_plan

KEY = {"namespace": "local", "name": "assistant"}


def problems(body):
    with pytest.raises(ValidationFailed) as caught:
        checked(body)
    return {one.path for one in caught.value.problems}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], {""}),
        ({}, {"namespace", "name"}),
        ({**KEY, "connections": 0}, {"connections"}),
        ({**KEY, "connections": -1}, {"connections"}),
        ({**KEY, "connections": True}, {"connections"}),
        ({**KEY, "connections": "many"}, {"connections"}),
        ({**KEY, "connections": 1e13}, {"connections"}),
        ({**KEY, "connections": float("nan")}, {"connections"}),
        ({**KEY, "thinkSeconds": 5}, {"thinkSeconds"}),
        ({**KEY, "targetSeconds": 0}, {"targetSeconds"}),
        ({**KEY, "prices": [1]}, {"prices"}),
        ({**KEY, "prices": {"cloud": -1, "edge": 1}}, {"prices.cloud"}),
        ({**KEY, "replicas": 3}, {"replicas"}),
    ],
)
def test_a_value_out_of_range_is_named(body, fields):
    assert problems(body) == fields


def test_it_is_the_plan_of_the_planner(service):
    gaid = service.gaid()
    made = answer(to_document(gaid), {**KEY, "connections": 300, "thinkSeconds": 20}, None)
    plan = make_plan(gaid, Demand(connections=300, think_s=20))
    assert made["requestsPerSecond"] == plan.rate
    assert made["replicas"] == sum(pool.replicas for pool in plan.pools)
    assert made["responseSeconds"] == plan.response_s
    assert [tier["tier"] for tier in made["tiers"]] == ["device", "edge", "cloud"]
    assert made["costPerHour"] == pytest.approx(sum(pool.energy.cost_per_hour for pool in plan.pools))


def test_without_connections_it_plans_for_the_present_arrival_rate(service):
    document = to_document(service.gaid())
    assert answer(document, KEY, 12.5)["requestsPerSecond"] == 12.5
    with pytest.raises(ValidationFailed) as caught:
        answer(document, KEY, None)
    assert caught.value.problems[0].path == "connections"


def test_target_and_prices_change_the_plan_and_not_the_document(service):
    document = to_document(service.gaid())
    before = answer(document, KEY, 20.0)
    made = answer(document, {**KEY, "targetSeconds": 1.2, "prices": {"cloud": 21.0}}, 20.0)
    assert (before["targetSeconds"], made["targetSeconds"]) == (1.5, 1.2)
    assert made["replicas"] >= before["replicas"]
    cloud_before, cloud = before["tiers"][2], made["tiers"][2]
    assert cloud["costPerHour"] / cloud["replicas"] == 10 * cloud_before["costPerHour"] / cloud_before["replicas"]
    assert document == to_document(service.gaid())


@pytest.mark.parametrize(
    ("change", "field"),
    [({"prices": {"moon": 1}}, "prices.moon"), ({"targetSeconds": 0.001}, "spec.tiers[1].network.rtt")],
)
def test_a_spec_that_the_change_makes_invalid_is_an_error_with_its_field(service, change, field):
    with pytest.raises(ValidationFailed) as caught:
        answer(to_document(service.gaid()), {**KEY, **change}, 1.0)
    assert field in {one.path for one in caught.value.problems}


async def asked(client, **body):
    async with client.post("/api/what-if", json=body) as response:
        return response.status, await response.json()


async def test_the_api_answers_with_a_plan_or_with_errors(client):
    key = {"namespace": "local", "name": "service-0001"}
    status, plan = await asked(client, **key, connections=100, thinkSeconds=20)
    assert status == 200
    assert plan["meets"]
    assert plan["replicas"] >= 3
    status, body = await asked(client, **key, connections=-3)
    assert (status, body["errors"][0]["field"]) == (400, "connections")
    assert body["errors"][0]["hint"]
    status, body = await asked(client, namespace="local", name="none")
    assert status == 404


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        ("{}", "text/plain", 415),
        ("{", "application/json", 400),
        ("1" * 70_000, "application/json", 413),
    ],
)
async def test_a_body_of_another_form_or_size_is_refused(client, data, kind, status):
    async with client.post("/api/what-if", data=data, headers={"Content-Type": kind}) as response:
        assert response.status == status
        assert (await response.json())["errors"]


async def test_a_plan_that_takes_too_long_is_ended_and_the_next_one_is_answered(service):
    document = to_document(service.gaid())
    planner = Planner(limit_s=0.05)  # less than the process takes to start
    try:
        with pytest.raises(PlannerError, match=r"longer than 0\.05 s"):
            await planner.ask(document, KEY, 1.0)
        planner.limit_s = 240.0
        first, second = await asyncio.gather(planner.ask(document, KEY, 1.0), planner.ask(document, KEY, 2.0))
        assert (first["requestsPerSecond"], second["requestsPerSecond"]) == (1.0, 2.0)
        with pytest.raises(ValidationFailed):
            await planner.ask(document, KEY, None)
    finally:
        await planner.close()


def test_the_planner_process_answers_every_line():
    assert "error" in reply_to(b"{")
    assert "error" in reply_to(b"{}")
