"""Offered load: the pools for which an arrival counts."""

from __future__ import annotations

from tierserve_serving.gateway.agent_config import AgentClass, AgentConfig, AgentPool
from tierserve_serving.gateway.demand import OfferedCounter


def _config(*pools: AgentPool) -> AgentConfig:
    return AgentConfig(
        service="a",
        port=0,
        admin_socket="/x",
        pools=pools,
        classes=(AgentClass(name="chat", tiers=("edge", "cloud")), AgentClass(name="far", tiers=("cloud",))),
    )


EDGE = AgentPool(name="edge-a", tier="edge", models=("light",))
CLOUD = AgentPool(name="cloud-a", tier="cloud", models=("large", "light"))


def test_an_overflowing_request_counts_for_the_full_tier_and_the_one_that_served_it():
    counter = OfferedCounter(_config(EDGE, CLOUD))
    counter.update({"chat|*|edge-a|d": 3, "chat|*|cloud-a|d": 2, "far|*|cloud-a|d": 1})
    assert counter.totals == {"edge-a": 5, "cloud-a": 3}
    assert counter.arrivals == {"edge-a": 3, "cloud-a": 3}


def test_a_request_that_finds_all_tiers_full_counts_for_all_allowed_tiers():
    counter = OfferedCounter(_config(EDGE, CLOUD))
    counter.update({"chat|*|edge-a|q": 1, "chat|*|-|r": 2, "far|*|cloud-a|q": 4, "far|*|-|r": 8})
    assert counter.totals == {"edge-a": 3, "cloud-a": 15}


def test_a_pool_that_cannot_serve_the_model_was_not_offered_it():
    counter = OfferedCounter(_config(EDGE, CLOUD))
    counter.update({"chat|large|cloud-a|d": 7, "chat|light|cloud-a|d": 1})
    assert counter.totals == {"edge-a": 1, "cloud-a": 8}


def test_only_what_is_new_is_added_and_a_fresh_haproxy_counts_from_zero():
    counter = OfferedCounter(_config(EDGE, CLOUD))
    counter.update({"chat|*|edge-a|d": 10}, 1)
    counter.update({"chat|*|edge-a|d": 12}, 1)
    counter.update({"chat|*|edge-a|d": 1}, 2)
    assert counter.totals["edge-a"] == 13
    counter.update({"chat|*|edge-a|d": 14}, 1)  # the old process answers once more
    counter.update({"chat|*|edge-a|d": 5}, 2)
    assert counter.totals["edge-a"] == 19
    counter.update({"chat|*|edge-a|d": 3}, 2)  # a new one with the same number
    assert counter.totals["edge-a"] == 22


def test_sites_share_overflow_in_proportion_to_their_arrivals():
    other = AgentPool(name="edge-b", tier="edge", models=("light",))
    counter = OfferedCounter(_config(EDGE, other, CLOUD))
    counter.update({"chat|*|cloud-a|d": 4, "chat|*|edge-a|d": 30, "chat|*|edge-b|d": 10})
    assert counter.totals == {"edge-a": 33, "edge-b": 11, "cloud-a": 4}
    fresh = OfferedCounter(_config(EDGE, other, CLOUD))
    fresh.update({"chat|*|-|r": 2})
    assert fresh.totals == {"edge-a": 1, "edge-b": 1, "cloud-a": 2}


def test_unknown_keys_are_left_out_and_a_new_configuration_keeps_the_totals():
    counter = OfferedCounter(_config(EDGE))
    counter.update({"nonsense": 3, "gone|*|gone-a|d": 2, "chat|*|edge-a|d": 1})
    counter.configure(_config(EDGE, CLOUD))
    assert counter.totals == {"edge-a": 1, "cloud-a": 0}


def test_what_another_pool_serves_at_once_is_no_demand_on_a_pool_scaled_to_zero_but_counts_as_bypassed():
    counter = OfferedCounter(_config(EDGE, CLOUD))
    counter.update({"chat|*|cloud-a|d": 3, "chat|large|cloud-a|d": 4}, scaled_to_zero=["edge-a"])
    assert counter.totals == {"edge-a": 0, "cloud-a": 7}
    assert counter.bypassed == {"edge-a": 3, "cloud-a": 0}


def test_queued_or_refused_requests_are_demand_on_a_pool_scaled_to_zero():
    counter = OfferedCounter(_config(EDGE, CLOUD))
    counter.update({"chat|*|cloud-a|q": 2, "chat|*|edge-a|q": 1, "chat|*|-|r": 1}, scaled_to_zero=["edge-a"])
    assert counter.totals == {"edge-a": 4, "cloud-a": 4}
    assert counter.bypassed["edge-a"] == 0


def test_overflow_of_a_tier_is_demand_on_its_full_site_while_another_site_is_scaled_to_zero():
    other = AgentPool(name="edge-b", tier="edge", models=("light",))
    counter = OfferedCounter(_config(EDGE, other, CLOUD))
    counter.update({"chat|*|cloud-a|d": 4}, scaled_to_zero=["edge-b"])
    assert counter.totals == {"edge-a": 4, "edge-b": 0, "cloud-a": 4}
    assert counter.bypassed == {"edge-a": 0, "edge-b": 0, "cloud-a": 0}
