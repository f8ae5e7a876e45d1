"""Several pools behind one gateway, beside the single pool, Erlang B and Wilkinson, and what its rules promise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tierserve.plan.allocation.overflow import wilkinson
from tierserve.queueing import BatchProfile, erlang_b
from tierserve.simulate.cluster import Setup
from tierserve.simulate.multi_tier import AnswerCache, Gateway, Site, Traffic, simulate_tiers
from tierserve.simulate.policies.ours import OURS
from tierserve.simulate.policies.static import Static
from tierserve.simulate.results import TiersResult
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes, among, poisson

pytestmark = pytest.mark.slow  # runs are simulated

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
BOTH = {"all": ("edge", "cloud")}


def pool(slots: int = 8, startup_s: float = 0.0, goal: Objective | None = None, **more: int) -> Pool:
    return Pool(PROFILE, slots, startup_s, goal or Objective(), 500.0, 200.0, **more)


def site(tier: str, replicas: int, place: Pool | None = None, **more: object) -> Site:
    here = place or pool()
    given = {"name": tier, "setup": Setup(initial=replicas), **more}
    return Site(tier=tier, pool=here, policy=Static(here, replicas), **given)  # type: ignore[arg-type]


def slots(tier: str, replicas: int, service_s: np.ndarray, mean_s: float = 1.0, **more: object) -> Site:
    given = {"setup": Setup("slots", initial=replicas), "service_s": service_s, "mean_service_s": mean_s, **more}
    return site(tier, replicas, **given)  # type: ignore[arg-type]


def exponential(lam: float, n: int, seed: int = 1) -> tuple[Workload, np.ndarray]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1.0 / lam, n))
    tokens = np.ones(n, dtype=np.int64)
    return Workload(times, tokens, tokens, float(times[-1])), rng.exponential(1.0, n)


@pytest.mark.parametrize("model", ["tokens", "slots"])
def test_one_tier_is_the_single_pool_exactly(model: str) -> None:
    work = poisson(20.0 if model == "tokens" else 42.0, 900.0, Sizes(500.0, 200.0, 0.7))
    service = np.random.default_rng(5).exponential(1.0, len(work)) if model == "slots" else None
    (rule,) = (one for one in OURS if one.name == "ours")
    place = pool(8, 20.0, Objective(ttft_s=2.0), max_replicas=40)
    setup = Setup(model, initial=3, startup_spread=0.4, failures=((200.0, 2), (500.0, 1)), seed=3)
    alone = simulate(work, place, rule.make(place, 1.0), setup, service_s=service)
    one = Site("edge-here", "edge", place, rule.make(place, 1.0), setup, service_s=service)
    found = simulate_tiers(Traffic(work, {"all": ("edge",)}), [one])
    assert np.array_equal(found.end_s, alone.end_s)
    assert np.array_equal(found.pools[0].target, alone.target)
    assert np.array_equal(found.response_s, alone.response_s)
    assert alone.target.max() > 3  # the policy had something to do
    assert found.gpu_hours() == alone.gpu_hours()


def test_without_room_at_the_edge_all_go_to_the_cloud_and_take_its_network_as_well() -> None:
    work = poisson(5.0, 600.0, Sizes(500.0, 200.0, 0.5))
    edge = site("edge", 0, pool(min_replicas=0, max_replicas=0), uplink_s=0.004, downlink_s=0.005)
    cloud = site("cloud", 2, uplink_s=0.04, downlink_s=0.05)
    found = simulate_tiers(Traffic(work, BOTH), [edge, cloud])
    alone = simulate(work, pool(), Static(pool(), 2), Setup(initial=2))
    assert found.in_pool("cloud").all()
    assert found.passed_by("edge").all()
    assert np.array_equal(found.response_s, alone.response_s + 0.09)
    assert np.array_equal(found.ttft_s, alone.ttft_s + 0.09)


@cache
def overflowing(n: int = 400_000) -> TiersResult:
    """14 erlangs at an edge of 16 slots, and a cloud that is never full."""
    work, service = exponential(14.0, n)
    return simulate_tiers(Traffic(work, BOTH), [slots("edge", 2, service), slots("cloud", 20, service)])


def test_the_share_that_finds_the_edge_full_is_erlang_b() -> None:
    assert overflowing().in_pool("cloud").mean() == pytest.approx(erlang_b(16, 14.0), rel=0.02)


def test_what_overflows_is_as_peaked_as_wilkinson_says() -> None:
    found = overflowing()
    mine = found.in_pool("cloud")
    moments = np.random.default_rng(2).uniform(found.arrive_s[-1] * 0.02, found.arrive_s[-1], 400_000)
    busy = np.searchsorted(found.arrive_s[mine], moments) - np.searchsorted(np.sort(found.end_s[mine]), moments)
    lost = 14.0 * erlang_b(16, 14.0)
    assert busy.mean() == pytest.approx(lost, rel=0.02)
    assert busy.var() / busy.mean() == pytest.approx(wilkinson(14.0, 16.0, lost), rel=0.03)
    assert wilkinson(14.0, 16.0, lost) > 1.9


def test_a_private_class_is_never_served_outside_its_tiers() -> None:
    work, service = exponential(60.0, 40_000)
    class_id = among([0.5, 0.5], len(work), 9)
    classes = {"open": ("edge", "cloud"), "private": ("edge",)}
    both = [slots("edge", 5, service), slots("cloud", 10, service)]
    found = simulate_tiers(Traffic(work, classes, class_id), both)
    private = class_id == 1
    assert found.in_pool("edge")[private].all()
    assert 0 < found.in_pool("cloud").sum() < len(work) / 2
    refusing = simulate_tiers(Traffic(work, classes, class_id), both, Gateway(most_waiting=0))
    assert 0 < refusing.refused.sum() == refusing.refused[private].sum()
    assert not refusing.in_pool("cloud")[private].any()
    assert np.isinf(refusing.response_s[refusing.refused]).all()


def test_a_tier_without_a_replica_passes_everything_on_until_it_has_one_again() -> None:
    work, service = exponential(10.0, 6_000)
    edge = slots("edge", 3, service, place=pool(8, 60.0), setup=Setup("slots", initial=3, failures=((100.0, 3),)))
    found = simulate_tiers(Traffic(work, BOTH), [edge, slots("cloud", 4, service, uplink_s=0.1)])
    down = (found.arrive_s > 100.0) & (found.arrive_s < 160.0)
    assert found.in_pool("cloud")[down].all()
    assert found.in_pool("edge")[~down].all()
    assert np.isfinite(found.response_s).all()


def test_with_no_replica_anywhere_a_request_is_refused_at_once_and_still_counts_as_offered() -> None:
    class FromZero:
        interval_s = 10.0

        def decide(self, seen: Snapshot) -> int:
            return 1 if seen.arrivals > 0 else 0

    work, service = exponential(1.0, 100)
    place = pool(8, 5.0, min_replicas=0)
    edge = Site("edge", "edge", place, FromZero(), Setup("slots", initial=0), service_s=service)
    found = simulate_tiers(Traffic(work, {"all": ("edge",)}), [edge])
    assert np.array_equal(found.refused, found.arrive_s < 15.0)
    assert found.refused.any()


def test_a_full_tier_is_told_of_what_passed_it_by_and_its_sites_share_it() -> None:
    class Watching(Static):
        last: Snapshot

        def decide(self, seen: Snapshot) -> int:
            self.last = seen
            return super().decide(seen)

    work, service = exponential(60.0, 30_000)
    watching = [Watching(pool(), replicas) for replicas in (3, 1, 20)]
    sites = [
        Site(name, tier, pool(), policy, Setup("slots", initial=policy.decide(None)), service_s=service)  # type: ignore[arg-type]
        for name, tier, policy in zip(("edge-a", "edge-b", "cloud"), ("edge", "edge", "cloud"), watching, strict=True)
    ]
    found = simulate_tiers(Traffic(work, BOTH), sites)
    near, far, cloud = (one.last.arrivals for one in watching)
    assert near + far == pytest.approx(30_000)
    assert near / far == pytest.approx(found.in_pool("edge-a").sum() / found.in_pool("edge-b").sum(), rel=0.05)
    assert cloud == found.in_pool("cloud").sum() == found.passed_by("edge").sum() > 5_000


def test_the_site_with_most_free_slots_is_asked_first() -> None:
    work = Workload(np.arange(1.0, 13.0), np.ones(12, dtype=np.int64), np.ones(12, dtype=np.int64), 20.0)
    service = np.full(12, 100.0)
    sites = [slots("edge", n, service, name=name) for name, n in (("edge-a", 1), ("edge-b", 2))]
    found = simulate_tiers(Traffic(work, {"all": ("edge",)}), sites)
    assert found.pool.tolist() == [1] * 8 + [0, 1, 0, 1]


def test_when_all_are_full_a_request_waits_where_the_expected_wait_is_least() -> None:
    n = 30
    work = Workload(1.0 + np.arange(n) * 1e-3, np.ones(n, dtype=np.int64), np.ones(n, dtype=np.int64), 20.0)
    slow, quick = np.full(n, 40.0), np.full(n, 10.0)
    found = simulate_tiers(
        Traffic(work, BOTH), [slots("edge", 1, slow, mean_s=40.0), slots("cloud", 1, quick, mean_s=10.0)]
    )
    # 8 slots each; then 4 wait in the cloud for each one at the edge, the edge first where both are alike
    assert found.pool.tolist() == [0] * 8 + [1] * 8 + [1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0]


def test_answers_come_from_the_cache_while_they_are_fresh_and_only_once_they_are_complete() -> None:
    times = np.array([0.0, 5.0, 11.0, 60.0, 75.0, 86.0])
    ones = np.ones(times.size, dtype=np.int64)
    traffic = Traffic(Workload(times, ones, ones, 100.0), BOTH, prompt=np.zeros(times.size, dtype=np.int64))
    service = np.full(times.size, 10.0)
    sites = [slots("edge", 1, service, uplink_s=0.1, downlink_s=0.2), slots("cloud", 1, service)]
    found = simulate_tiers(traffic, sites, Gateway(cache=AnswerCache("edge", ttl_s=60.0)))
    # complete at 10 and at 15, good until 75; at 75 still, at 86 no more
    assert found.cached.tolist() == [False, False, True, True, True, False]
    assert found.response_s[found.cached] == pytest.approx(0.3)


def test_a_class_that_may_not_use_the_cache_s_tier_gets_nothing_from_it_and_no_class_gets_another_s() -> None:
    times = np.arange(8) * 10.0
    ones = np.ones(8, dtype=np.int64)
    classes = {"open": ("edge", "cloud"), "private": ("device",), "site": ("edge",)}
    class_id = np.array([0, 1, 2, 0, 1, 2, 1, 0])
    traffic = Traffic(Workload(times, ones, ones, 100.0), classes, class_id, np.zeros(8, dtype=np.int64))
    sites = [slots(tier, 1, np.full(8, 1.0)) for tier in ("device", "edge", "cloud")]
    found = simulate_tiers(traffic, sites, Gateway(cache=AnswerCache("edge")))
    assert found.cached.tolist() == [False, False, False, True, False, True, False, True]
    assert found.in_pool("device")[class_id == 1].all()


def test_a_beginning_that_the_pool_has_is_not_computed_but_read() -> None:
    work = Workload(np.array([1.0, 51.0, 101.0]), np.array([400, 400, 300]), np.array([1, 1, 1]), 150.0)
    shared = np.full(3, 300)
    traffic = Traffic(work, {"all": ("edge",)}, prefix=np.array([0, 0, 0]), shared_tokens=shared)
    found = simulate_tiers(traffic, [site("edge", 1, prefix_tokens=300)])
    a, b, c = PROFILE.alpha, PROFILE.beta, PROFILE.gamma
    assert found.ttft_s == pytest.approx([a + (b + c) * 400, a + b * 100 + c * 400, a + b * 1 + c * 300])
    assert found.prefix_hit.tolist() == [False, True, True]
    small = simulate_tiers(traffic, [site("edge", 1, prefix_tokens=299)])
    assert not small.prefix_hit.any()


def test_the_same_seed_gives_the_same_run() -> None:
    def once(seed: int) -> TiersResult:
        work = poisson(30.0, 300.0, Sizes(500.0, 200.0, 0.7), seed)
        both = [site("edge", 1, setup=Setup(initial=1, seed=seed)), site("cloud", 4)]
        return simulate_tiers(Traffic(work, BOTH, class_id=among([1.0], len(work), seed)), both)

    assert np.array_equal(once(1).end_s, once(1).end_s)
    assert not np.array_equal(once(1).end_s[:100], once(2).end_s[:100])


def test_what_does_not_fit_is_refused_by_name() -> None:
    work, service = exponential(1.0, 10)
    edge = slots("edge", 1, service)
    with pytest.raises(ValueError, match="'edge' is given twice"):
        simulate_tiers(Traffic(work, BOTH), [edge, edge])
    with pytest.raises(ValueError, match=r"class 'far': no tier of \['moon'\] has a pool"):
        simulate_tiers(Traffic(work, {"far": ("moon",)}), [edge])
    with pytest.raises(ValueError, match="cache: tier 'moon' has no pool"):
        simulate_tiers(Traffic(work, BOTH), [edge], Gateway(cache=AnswerCache("moon")))
    with pytest.raises(ValueError, match="prompt: shape"):
        simulate_tiers(Traffic(work, BOTH, prompt=np.zeros(3, dtype=np.int64)), [edge])
    with pytest.raises(ValueError, match="router 'random' of edge"):
        site("edge", 1, setup=Setup(router="random"))
