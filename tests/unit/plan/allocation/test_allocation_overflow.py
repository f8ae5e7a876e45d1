"""What overflows is burstier than what is fresh, and is planned so."""

from __future__ import annotations

import pytest

from tierserve.plan.allocation.candidates import groups_of
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.overflow import derate, split, wilkinson
from tierserve.queueing.erlang import erlang_b


@pytest.mark.parametrize(("offered", "servers"), [(10.0, 10), (20.0, 15), (5.0, 1), (80.0, 90)])
def test_peakedness_is_the_variance_over_mean_of_the_chain_of_brockmeyer(offered, servers):
    """Of a pool of c servers and an endless group behind it, the two-dimensional chain solved in full."""
    import numpy as np

    lost = offered * erlang_b(servers, offered)
    # moments of the second group by its own balance: M_i(n) = E[overflow occupancy; n busy in the first]
    size = servers + 1
    chain = np.zeros((size, size))
    for n in range(size):
        up, down = (offered, n) if n < servers else (0.0, n)
        chain[n, n] -= up + down
        if n < servers:
            chain[n + 1, n] += up
        if n > 0:
            chain[n - 1, n] += down
    weight = np.cumprod(np.concatenate([[1.0], offered / np.arange(1, size)]))
    busy = weight / weight.sum()
    push = np.zeros((size, size))
    push[-1, -1] = offered
    first = np.linalg.solve(np.eye(size) - chain, push @ busy)
    second = np.linalg.solve(2.0 * np.eye(size) - chain, 2.0 * push @ first)
    mean, factorial = first.sum(), second.sum()
    assert mean == pytest.approx(lost, rel=1e-9)
    assert wilkinson(offered, servers, lost) == pytest.approx((factorial + mean - mean**2) / mean, rel=1e-9)


def test_a_small_part_of_a_bursty_stream_is_nearly_fresh():
    assert split(3.0, 1.0) == 3.0
    assert split(3.0, 0.5) == 2.0
    assert split(3.0, 0.0) == 1.0


def test_the_burstier_the_arrivals_the_fewer_a_pool_takes():
    rates = [derate(64, z, 1.0, 0.2, 0.05) for z in (1.0, 1.5, 2.5, 4.0)]
    assert rates[0] == pytest.approx(1.0)
    assert rates == sorted(rates, reverse=True)
    assert 0.5 < rates[-1] < rates[0]


def test_bursts_need_more_replicas_than_fresh_traffic_of_the_same_rate(made, a_tier):
    option = groups_of(made([a_tier("cloud", most=60)]))[0].options[0]
    needed = [option.replicas_for(90.0, z, 60) for z in (1.0, 3.0)]
    assert needed[1] > needed[0]
    assert option.room(needed[1], 3.0) >= 90.0 > option.room(needed[1] - 1, 3.0)


def test_a_plan_whose_first_tier_overflows_pays_for_it_on_the_next(made, a_tier):
    tiers = [a_tier("edge", "edge", most=2, price=0.5), a_tier("cloud", most=60, price=2.0)]
    gaid = made(tiers, routing={"overflow": ["edge", "cloud"]})
    fresh, bursty = find(gaid, 70.0, bursty=False), find(gaid, 70.0)
    assert fresh is not None
    assert bursty is not None
    assert all(one.peakedness == 1.0 and one.overflow == 0.0 for one in fresh.pools)
    cloud = bursty.pool("cloud-default")
    assert cloud.peakedness > 1.0
    assert cloud.overflow > 0.0
    assert cloud.capacity >= cloud.rate + cloud.overflow - 1e-6
    assert bursty.cost_per_hour >= fresh.cost_per_hour
    assert bursty.pool("edge-default").peakedness == 1.0


def test_traffic_that_the_planner_splits_on_purpose_stays_fresh(made, a_tier):
    sites = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    found = find(made([a_tier("edge", "edge", sites=sites)]), 50.0)
    assert found is not None
    assert [(one.peakedness, one.overflow) for one in found.pools] == [(1.0, 0.0)] * 3
