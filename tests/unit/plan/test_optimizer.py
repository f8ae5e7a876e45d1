"""The slow loop finds what saves, confirms it, changes seldom, and takes a change back when the objective is missed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tierserve.api import GenAIDeployment, parse
from tierserve.plan.allocation.baseline import in_order
from tierserve.plan.capacity import Demand, make_plan
from tierserve.plan.optimizer import CHANGES_PER_HOUR, HOLD_S, MISSED_S, best, in_effect, observed_service, step
from tierserve.plan.placement import place

NOW = 1_800_000_000.0
INTERVAL_S = 600.0


def model(name: str, *, alpha: str = "20ms", quality: float | None = None) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "name": name, "engine": "emulated", "memory": {"weights": "16Gi", "perRequest": "250Mi"},
        "profile": {"alpha": alpha, "beta": "30us", "gamma": "10ns"}, "output": {"tokens": 100},
    }  # fmt: skip
    return whole if quality is None else {**whole, "quality": quality}


def tier(name: str, kind: str = "cloud", **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "accelerator": {"preset": "A100-80GB"}, "network": {"rtt": "10ms"},
        "replicas": {"min": 0, "max": 20}, "models": ["large"], **changes,
    }  # fmt: skip


def service(
    *tiers: dict[str, Any], models: Any = (), caps: Any = None, overflow: Any = (), **optimize: Any
) -> GenAIDeployment:
    objective: dict[str, Any] = {
        "responseTime": {"target": "8s"}, "optimize": {"by": "carbon", "mode": "apply"} | optimize
    }  # fmt: skip
    spec: dict[str, Any] = {
        "objective": objective | ({"caps": caps} if caps else {}),
        "models": list(models) or [model("large")],
        "tiers": list(tiers),
        "traffic": [{"name": "chat", "input": 200, "output": 100}],
        "routing": {"overflow": list(overflow) or [one["name"] for one in tiers]},
    }
    head = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "green"}}
    return parse({**head, "spec": spec})


COAL, HYDRO = tier("coal", carbonIntensity=800), tier("hydro", carbonIntensity=20)
GAID = service(COAL, HYDRO)


def observed(gaid: GenAIDeployment, rate: float | None = 10.0, *, met: str = "True", since: float = NOW) -> Any:
    """The status of a service: all requests finish in its first pool."""
    pools = [
        {
            "pool": one.pool, "tier": one.tier, "model": one.model, "modelError": 0.01,
            "carbonIntensity": gaid.tier(one.tier).carbon_g_per_kwh,
            "gateway": {"rate": rate if index == 0 or rate is None else 0.0},
            "measuredProfile": {"alpha": "20ms", "beta": "30us", "gamma": "10ns", "configured": True},
        }
        for index, one in enumerate(place(gaid))
    ]  # fmt: skip
    return {"pools": pools, "conditions": [{"type": "SLOMet", "status": met, "lastTransitionTime": text(since)}]}


def text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Loop:
    """The loop as the reconciler runs it: each status is the next one's previous."""

    def __init__(self, gaid: GenAIDeployment = GAID) -> None:
        self.gaid, self.now, self.status = gaid, NOW, {}

    def run(self, intervals: int = 1, **seen: Any) -> dict[str, Any]:
        for _ in range(intervals):
            self.status = step(self.gaid, observed(self.gaid, **seen), self.status, self.now)
            self.now += INTERVAL_S
        return self.status

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(one.name for one in in_effect(self.gaid, self.status).overflow)


def test_the_mode_off_does_nothing() -> None:
    assert step(service(COAL, HYDRO, mode="off"), observed(GAID), None, NOW) == {}


def test_the_greener_tier_is_recommended_with_the_saving_that_the_plan_has() -> None:
    found = best(GAID, observed(GAID), 10.0)
    assert found is not None
    assert found.choice.overflow == ("hydro", "coal")
    assert found.confident
    after = in_order(found.choice.applied_to(GAID), Demand(rate=10.0))
    assert (found.present, found.expected) == (in_order(GAID, Demand(rate=10.0)).value, after.value)
    assert found.expected < 0.1 * found.present


def test_recommend_writes_a_recommendation_and_changes_nothing() -> None:
    loop = Loop(service(COAL, HYDRO, mode="recommend"))
    status = loop.run(3)
    assert status["recommendation"]["overflow"] == ["hydro", "coal"]
    assert status["recommendation"]["saving"] > 0.9
    assert loop.order == ("coal", "hydro")


def test_a_choice_is_applied_when_the_next_search_confirms_it() -> None:
    loop = Loop()
    loop.run()
    assert loop.order == ("coal", "hydro")
    loop.run()
    assert loop.order == ("hydro", "coal")
    assert loop.run()["recommendation"] is None  # what is in effect is the best


def test_a_search_is_made_once_in_an_interval() -> None:
    loop = Loop()
    first = loop.run()
    again = step(GAID, observed(GAID), first, NOW + INTERVAL_S - 1)
    assert again["optimization"]["solvedTime"] == first["optimization"]["solvedTime"]


def test_savings_below_five_per_cent_change_nothing() -> None:
    gaid = service(COAL, tier("coal2", carbonIntensity=770))
    assert best(gaid, observed(gaid), 10.0) is None


def test_intensities_of_now_decide_and_not_those_of_the_file() -> None:
    seen = observed(GAID)
    for pool in seen["pools"]:
        pool["carbonIntensity"] = {"coal": 30.0, "hydro": 600.0}[pool["tier"]]
    assert best(observed_service(GAID, seen), seen, 10.0) is None


def test_a_private_class_keeps_the_tiers_that_may_see_it() -> None:
    edge = tier("edge", "edge", carbonIntensity=700, replicas={"min": 1, "max": 4})
    gaid = service(edge, HYDRO)
    spec = gaid.spec.model_copy(
        update={"traffic": (gaid.spec.traffic[0].model_copy(update={"privacy": "site"}),)},
    )
    gaid = gaid.model_copy(update={"spec": spec})
    found = best(gaid, observed(gaid), 2.0)
    assert found is None  # only the edge may serve it, whatever the order


def test_a_model_of_as_good_quality_is_chosen_and_one_of_lower_or_unknown_quality_is_not() -> None:
    def with_qualities(first: float | None, second: float | None) -> Any:
        models = [model("large", quality=first), model("quick", alpha="5ms", quality=second)]
        gaid = service(tier("coal", models=["large", "quick"], replicas={"min": 1, "max": 20}), models=models)
        return best(gaid, observed(gaid), 20.0)

    found = with_qualities(0.7, 0.7)
    assert dict(found.choice.models) == {"coal": "quick"}
    assert with_qualities(0.7, 0.6) is None
    assert with_qualities(0.7, None) is None
    assert with_qualities(None, 0.7) is None


def test_a_choice_that_serves_less_is_none() -> None:
    """The greener tier is the only one of the site class; filled first by all, it has no room for that class."""
    edge = tier("edge", "edge", carbonIntensity=20, replicas={"min": 0, "max": 1})
    gaid = service(COAL, edge)
    private = gaid.spec.traffic[0].model_copy(update={"name": "health", "privacy": "site", "share": 0.5})
    spec = gaid.spec.model_copy(update={"traffic": (gaid.spec.traffic[0], private)})
    both = gaid.model_copy(update={"spec": spec})
    rate = 1.5 * make_plan(both, Demand(rate=1.0)).pools[1].capacity
    now = in_order(both, Demand(rate=rate))
    found = best(both, observed(both), rate)
    assert (
        found is None or in_order(found.choice.applied_to(both), Demand(rate=rate)).unserved_rate <= now.unserved_rate
    )


def test_a_cap_that_is_exceeded_is_a_reason_to_change_whatever_is_minimised() -> None:
    cheap = tier("coal", carbonIntensity=800, price=1.0)
    dear = tier("hydro", carbonIntensity=20, price=1.04)
    assert best(service(cheap, dear, by="cost"), observed(GAID), 10.0) is None
    capped = service(cheap, dear, by="cost", caps={"carbonPerHour": "50g"})
    found = best(capped, observed(capped), 10.0)
    assert found is not None
    assert found.choice.overflow == ("hydro", "coal")


def test_the_choice_of_the_spec_returns_when_the_objective_is_missed_and_is_held_for_an_hour() -> None:
    loop = Loop()
    loop.run(2)
    assert loop.order == ("hydro", "coal")
    loop.run(met="False", since=loop.now - MISSED_S)
    assert loop.order == ("coal", "hydro")
    held = loop.now
    while loop.now < held + HOLD_S - 2 * INTERVAL_S:
        loop.run()
        assert loop.order == ("coal", "hydro")
    loop.run(3)
    assert loop.order == ("hydro", "coal")


def test_a_miss_of_a_few_seconds_changes_nothing() -> None:
    loop = Loop()
    loop.run(2)
    loop.run(met="False", since=loop.now - MISSED_S / 2)
    assert loop.order == ("hydro", "coal")


def test_a_miss_that_began_before_the_change_does_not_take_it_back() -> None:
    loop = Loop()
    loop.run(4, met="False", since=NOW - 3600)
    assert loop.order == ("hydro", "coal")


def test_an_intensity_of_zero_is_not_an_unknown_one() -> None:
    seen = observed(GAID)
    seen["pools"][0]["carbonIntensity"] = 0.0
    assert observed_service(GAID, seen).tier("coal").carbon_g_per_kwh == 0.0


def test_a_choice_that_keeps_a_cap_is_found_where_there_is_nothing_to_save() -> None:
    free = {"price": 0.0}
    gaid = service({**COAL, **free}, {**HYDRO, **free}, by="cost", caps={"carbonPerHour": "50g"})
    found = best(gaid, observed(gaid), 10.0)
    assert found is not None
    assert found.document("cost", NOW, 10.0)["saving"] == 0.0


def test_changes_an_hour_are_bounded_however_the_intensities_turn() -> None:
    loop, changes, before = Loop(), 0, ("coal", "hydro")
    for turn in range(6):  # an hour: each round of two searches has the other tier greener
        seen = observed(GAID)
        for pool in seen["pools"]:
            pool["carbonIntensity"] = 20.0 if (pool["tier"] == "hydro") == (turn // 2 % 2 == 0) else 800.0
        loop.status = step(GAID, seen, loop.status, loop.now)
        loop.now += INTERVAL_S - 1
        changes, before = changes + (loop.order != before), loop.order
    assert changes <= CHANGES_PER_HOUR


@pytest.mark.parametrize("rate", [None, 0.0])
def test_without_an_observed_load_nothing_is_searched(rate: float | None) -> None:
    status = Loop().run(3, rate=rate)
    assert "solvedTime" not in status["optimization"]
    assert status["recommendation"] is None


def test_the_load_is_averaged_over_about_an_interval() -> None:
    loop = Loop()
    loop.run(rate=10.0)
    loop.now = NOW + INTERVAL_S / 10
    status = loop.run(rate=110.0)
    assert status["optimization"]["rate"] == pytest.approx(20.0)


def test_an_applied_choice_ends_when_the_spec_no_longer_allows_it() -> None:
    loop = Loop()
    loop.run(2)
    assert loop.order == ("hydro", "coal")
    third = service(COAL, HYDRO, tier("wind", carbonIntensity=10))
    assert in_effect(third, loop.status) is third
    off = service(COAL, HYDRO, mode="recommend")
    assert in_effect(off, loop.status) is off


def test_confidence_is_low_where_a_profile_is_not_measured_or_a_prediction_is_off() -> None:
    for change in ({"measuredProfile": None}, {"modelError": 0.4}):
        seen = observed(GAID)
        seen["pools"][0] |= change
        found = best(GAID, seen, 10.0)
        assert found is not None
        assert not found.confident
