"""When nothing is feasible: a change that makes it so, and none that is smaller."""

from __future__ import annotations

import pytest

from tierserve.plan.allocation.best import best_allocation
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.relaxation import soft_bounds
from tierserve.plan.allocation.types import Infeasible


def refused(gaid, rate, **more):
    found = best_allocation(gaid, rate, **more)
    assert isinstance(found, Infeasible)
    return found


def test_too_few_replicas_are_told_by_field_and_number(made, a_tier):
    gaid = made([a_tier("cloud", most=2)])
    least = next(r for r in range(3, 40) if find(made([a_tier("cloud", most=r)]), 24.0) is not None)
    found = refused(gaid, 24.0)
    assert [one.message for one in found.changes] == [f"raise spec.tiers[0].replicas.max from 2 to {least}"]
    assert found.changed is not None
    assert find(found.changed, 24.0) is not None
    assert "24 requests per second cannot be served" in found.format()


def test_a_cap_is_raised_to_what_the_cheapest_plan_costs(made, a_tier):
    tiers = [a_tier("cloud", most=30)]
    free = find(made(tiers), 40.0)
    assert free is not None
    found = refused(made(tiers, objective={"caps": {"costPerHour": free.cost_per_hour - 0.5}}), 40.0)
    assert [one.path for one in found.changes] == ["spec.objective.caps.costPerHour"]
    assert float(found.changes[0].after) == pytest.approx(free.cost_per_hour, rel=1e-3)
    assert found.changed is not None
    assert find(found.changed, 40.0) is not None


def test_a_target_out_of_reach_is_relaxed_as_little_as_the_steps_allow(made, a_tier):
    gaid = made([a_tier("cloud", most=50)], objective={"responseTime": {"target": "500ms"}})
    found = refused(gaid, 2.0)
    assert [one.path for one in found.changes] == ["spec.objective.responseTime.target"]
    after = float(found.changes[0].after.removesuffix("ms"))
    assert found.changed is not None
    assert find(found.changed, 2.0) is not None
    less = made([a_tier("cloud", most=50)], objective={"responseTime": {"target": f"{after / 1.051:.1f}ms"}})
    assert find(less, 2.0) is None
    assert "no tier that may see class chat" in found.reason


def test_a_full_downlink_is_widened_by_what_is_missing(made, a_model, a_tier):
    big = {**a_model("m"), "output": {"tokens": 32, "bytes": "1M"}}
    found = refused(made([a_tier("cloud", most=30, network={"downlink": "100Mbit"})], [big]), 15.0)
    assert [one.path for one in found.changes] == ["spec.tiers[0].network.downlink"]
    assert 120.0 <= float(found.changes[0].after.removesuffix("Mbit")) <= 122.0
    assert found.changed is not None
    assert find(found.changed, 15.0) is not None


def test_no_single_field_could_be_changed_by_less(made, a_tier):
    gaid = made(
        [a_tier("edge", "edge", most=3, price=1.0), a_tier("cloud", most=4)],
        objective={"caps": {"costPerHour": 30.0}},
    )
    rate = 60.0
    found = refused(gaid, rate, bursty=False)
    assert len(found.changes) == 1
    best = found.changes[0].relative
    for one in soft_bounds(gaid):
        for part in range(1, 20):  # every smaller stretch of every field, on a grid of twentieths
            after = one.at_least(one.before * (1 + best * part / 20))
            if one.relative(after) < best * (1 - 1e-9):
                assert find(one.put(gaid, after), rate, bursty=False) is None, (one.path, after)


def test_where_no_field_alone_is_enough_several_are_named_and_all_are_needed(made, a_tier):
    gaid = made([a_tier("cloud", most=2)], objective={"caps": {"costPerHour": 4.0}})
    found = refused(gaid, 30.0)
    assert {one.path for one in found.changes} == {"spec.objective.caps.costPerHour", "spec.tiers[0].replicas.max"}
    assert " and " in found.format()
    assert found.changed is not None
    assert find(found.changed, 30.0) is not None
    for one, change in ((one, change) for one in soft_bounds(gaid) for change in found.changes):
        if one.path == change.path:
            assert find(one.put(found.changed, one.before), 30.0) is None


def test_a_class_that_no_tier_can_serve_is_named_and_no_field_is_blamed(made, a_model, a_tier):
    traffic = [{"name": "secret", "input": 128, "privacy": "device"}]
    large = {**a_model("m"), "memory": {"weights": "14Gi", "perRequest": "30Gi"}}
    phone = a_tier("phone", "device", accelerator={"preset": "cpu", "memory": "20Gi"})
    found = refused(made([a_tier("cloud"), phone], [large], traffic), 1.0)
    assert "secret" in found.reason
    assert found.changes == ()
    assert found.changed is None
    assert "give a tier that may see the class" in found.format()
