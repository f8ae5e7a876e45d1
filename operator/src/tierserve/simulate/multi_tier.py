"""Several pools behind one gateway: tiers in order, overflow, network and caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tierserve.simulate.cluster import Cluster, Setup, Shared
from tierserve.simulate.engine import gateway as g
from tierserve.simulate.engine import router as _router
from tierserve.simulate.engine.cache import Lru, lru
from tierserve.simulate.results import TiersResult
from tierserve.simulate.run import GRACE_S, Result, result_of
from tierserve.simulate.types import Floats, Ints, Policy, Pool, Snapshot, Workload

_ALL_MAY_WAIT = 2**62
Seen = Callable[[], Sequence[Snapshot]]


@dataclass(frozen=True, slots=True)
class Site:
    """One pool: a site of a tier.

    Attributes:
        name, tier: unique among the sites; sites of one tier share its place in the order.
        pool: the replicas; its objective is on wait and service alone, without the network.
        policy: scales it.
        setup: how it behaves; one queue at the gateway (`central`).
        uplink_s, downlink_s: t_UL and t_DL, added to each response; they hold no slot.
        service_s: for the slot model, the seconds of service of each request here; shape (n,).
        mean_service_s: what the gateway takes for the mean service; that of a full replica if left out.
        prefix_tokens: tokens of prompts' beginnings that the pool keeps; 0: it has no such cache.
    """

    name: str
    tier: str
    pool: Pool
    policy: Policy
    setup: Setup
    uplink_s: float = 0.0
    downlink_s: float = 0.0
    service_s: Floats | None = None
    mean_service_s: float | None = None
    prefix_tokens: int = 0

    def __post_init__(self) -> None:
        if self.setup.router != "central":
            raise ValueError(
                f"router {self.setup.router!r} of {self.name}: behind a gateway of several pools it must be central"
            )

    @property
    def expected_service_s(self) -> float:
        """Mean service time from which the gateway estimates the wait in a queue."""
        if self.mean_service_s is not None:
            return self.mean_service_s
        return self.pool.profile.service_time(self.pool.slots, self.pool.input_tokens, self.pool.output_tokens)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests with the attributes that the gateway routes by.

    Attributes:
        work: when they come, and their tokens.
        classes: the tiers that each class may use, in order.
        kind: class of each, an index into `classes`; all are of the first one if left out. Shape (n,), as all below.
        prompt: which are the same prompt, for the answer cache; -1: like no other.
        prefix, shared_tokens: which begin alike, and how many tokens of each that is, for the caches of pools.
    """

    work: Workload
    classes: Mapping[str, tuple[str, ...]]
    class_id: Ints | None = None
    prompt: Ints | None = None
    prefix: Ints | None = None
    shared_tokens: Ints | None = None

    @property
    def class_ids(self) -> Ints:
        """Class of each request."""
        return np.zeros(len(self.work), dtype=np.int64) if self.class_id is None else self.class_id


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """Response cache of a tier, for the classes that may use it; separate per class.

    Attributes:
        tier: who holds it; what it answers takes the network times of the tier's first site and no more.
        ttl_s: how long an answer is good from the moment it was complete.
        size_bytes: what it holds; the answer used longest ago goes first.
        bytes_per_token: of an answer.
    """

    tier: str
    ttl_s: float = 600.0
    size_bytes: int = 2**30
    bytes_per_token: float = 4.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """Gateway of the endpoint: maximum queue length of a pool (None: unlimited), and the response cache."""

    most_waiting: int | None = None
    cache: AnswerCache | None = None


def simulate_tiers(
    traffic: Traffic,
    sites: Sequence[Site],
    gateway: Gateway | None = None,
    *,
    progress: Callable[[float], None] | None = None,
    reorder: Callable[[float, Seen], Mapping[str, tuple[str, ...]] | None] | None = None,
) -> TiersResult:
    """Simulate sites behind one gateway under `traffic`, each scaled by its policy, and return the results.

    A request goes to the first tier of its class that has a free slot, to its site with most of them. If all are full
    it waits at the pool with the least expected wait; if none has a replica or room to wait, it is refused.

    Args:
        traffic: who asks.
        sites: all pools, in any order; a class without any pool is an error.
        gateway: bounds and cache.
        progress: called with the simulated second after each decision.
        reorder: called before each round of decisions with the simulated second and a function that returns the metrics
            of all pools; the order of tiers that it returns for each class holds from then on.

    Raises:
        ValueError: names that are given twice or do not exist; shapes that do not fit.
    """
    fleet = Fleet(traffic, sites, gateway or Gateway())
    work, pools = traffic.work, fleet.pools
    ticks = [0] * len(pools)
    rows: list[list[tuple[float, int, int, int]]] = [[] for _ in pools]
    while True:
        t = min(tick * site.policy.interval_s for tick, site in zip(ticks, sites, strict=True))
        if t > work.length_s and not (fleet.unfinished and t <= work.length_s + GRACE_S):
            break
        fleet.run_to(t)
        if reorder and (classes := reorder(t, lambda: [pool.snapshot() for pool in pools])):
            fleet.reorder(classes)
        for p, (site, pool) in enumerate(zip(sites, pools, strict=True)):
            if ticks[p] * site.policy.interval_s <= t:
                pool.scale(site.policy.decide(pool.snapshot()))
                rows[p].append((t, pool.target, pool.ready, pool.held))
                ticks[p] += 1
        if progress:
            progress(t)
    fleet.run_to(max(fleet.now, work.length_s))  # requests that arrived after the last decision
    if fleet.unfinished:
        fleet.run_to(max(fleet.now, work.length_s + GRACE_S))
    mine = [np.flatnonzero(fleet.router.pool == p) for p in range(len(pools))]
    found = [result_of(work, pool, rows[p], mine[p]) for p, pool in enumerate(pools)]
    return fleet.result(found)


class Fleet:
    """All pools in virtual time: Python advances them from change to change, compiled code handles the events."""

    def __init__(self, traffic: Traffic, sites: Sequence[Site], gateway: Gateway) -> None:
        """Start each pool by its setup.

        Args:
            traffic: who asks.
            sites: all pools.
            gateway: bounds and cache.
        """
        _check(traffic, sites, gateway)
        self.traffic, self.sites, self.gateway, self.now = traffic, tuple(sites), gateway, 0.0
        work, cache = traffic.work, gateway.cache
        n = len(work)
        requests = g.requests(work.times_s, work.input_tokens, work.output_tokens, np.zeros(n), sites[0].setup.seed)
        requests = requests._replace(
            compute=requests.input.copy(), done=np.zeros(n + 1 if cache else 1, dtype=np.int64)
        )
        self.router = _router_of(traffic, sites, gateway)
        self.pools = [
            Cluster(
                work, site.pool, site.setup, site.service_s,
                Shared(requests, self.router.numbers[p], self.router.sums[p]),
            )
            for p, site in enumerate(sites)
        ]  # fmt: skip

    @property
    def unfinished(self) -> int:
        """Requests in the system."""
        return sum(pool.unfinished for pool in self.pools)

    def run_to(self, t: float) -> None:
        """Run all events up to second t."""
        while True:
            moment = min(t, *(pool.next_change for pool in self.pools))
            _router.advance_all(self.router, tuple(pool.machine() for pool in self.pools), moment)
            self.now = moment
            for pool in self.pools:
                pool.passed(moment)
            changed = [pool.change(moment) for pool in self.pools]
            if not any(changed) and moment >= t:
                return

    def reorder(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        """Fill the tiers of each class in another order from now on; the tiers of a class stay the same."""
        names = list(dict.fromkeys(site.tier for site in self.sites))
        for row, name in zip(self.router.order, self.traffic.classes, strict=True):
            known = [names.index(tier) for tier in classes[name] if tier in names]
            row[: len(known)] = known

    def result(self, found: Sequence[Result]) -> TiersResult:
        """Return the results of all requests from those of the pools."""
        q, router, cache = self.pools[0].requests, self.router, self.gateway.cache
        network = np.array([(site.uplink_s, site.downlink_s) for site in self.sites])
        names = [site.tier for site in self.sites]
        holder = names.index(cache.tier) if cache else -1
        where = np.where(router.outcome == _router.CACHED, holder, router.pool)
        times = np.where((where >= 0)[:, None], network[where], np.inf)
        return TiersResult(
            sites=tuple(site.name for site in self.sites),
            tiers=tuple(names),
            classes=self.traffic.classes,
            class_id=router.class_id,
            pool=router.pool,
            outcome=router.outcome,
            arrive_s=q.arrive,
            output_tokens=q.output,
            first_s=q.first,
            end_s=q.end,
            network_s=times.sum(axis=1),
            prefix_hit=q.compute < q.input,
            pools=tuple(found),
        )


def _router_of(traffic: Traffic, sites: Sequence[Site], gateway: Gateway) -> _router.Router:
    n, count = len(traffic.work), len(sites)
    names = list(dict.fromkeys(site.tier for site in sites))
    longest = max(len(tiers) for tiers in traffic.classes.values())
    order = np.full((len(traffic.classes), longest + 1), -1, dtype=np.int64)
    for row, tiers in zip(order, traffic.classes.values(), strict=True):
        known = [names.index(name) for name in tiers if name in names]
        row[: len(known)] = known
    most = _ALL_MAY_WAIT if gateway.most_waiting is None else gateway.most_waiting
    slots = any(site.service_s is not None for site in sites)
    service = np.zeros((count, n if slots else 0))
    for p, site in enumerate(sites):
        if site.service_s is not None:
            service[p] = site.service_s
    key, sizes, cache = _answers(traffic, gateway.cache)
    prefix, shared = _prefixes(traffic)
    return _router.Router(
        at=np.array([0, 0, most], dtype=np.int64),
        class_id=traffic.class_ids,
        order=order,
        tier=np.array([names.index(site.tier) for site in sites]),
        service_us=np.array([max(1, round(site.expected_service_s * 1e6)) for site in sites]),
        numbers=np.zeros((count, g.MODEL + 1), dtype=np.int64),
        sums=np.zeros((count, g.COUNTERS)),
        next_event=np.zeros(count),
        arrived=np.zeros(count),
        service=service,
        pool=np.full(n, -1, dtype=np.int64),
        outcome=np.full(n, _router.REFUSED, dtype=np.int64),
        key=key,
        bytes=sizes,
        answers=cache,
        ttl_s=np.array([gateway.cache.ttl_s if gateway.cache else 0.0]),
        prefix=prefix,
        shared=shared,
        prefixes=lru(int(prefix.max(initial=-1)) + 1, [site.prefix_tokens for site in sites]),
    )


def _answers(traffic: Traffic, cache: AnswerCache | None) -> tuple[Ints, Ints, Lru]:
    """Return key and bytes of each answer, and the empty cache; classes that may not use its tier have no keys."""
    n = len(traffic.work)
    if cache is None or traffic.prompt is None:
        return np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64), lru(0, [0])
    may = np.array([cache.tier in tiers for tiers in traffic.classes.values()])
    kept = may[traffic.class_ids] & (traffic.prompt >= 0)
    key = np.full(n, -1, dtype=np.int64)
    own = traffic.prompt[kept] * len(traffic.classes) + traffic.class_ids[kept]
    key[kept] = np.unique(own, return_inverse=True)[1]
    sizes = np.ceil(cache.bytes_per_token * traffic.work.output_tokens).astype(np.int64)
    return key, sizes, lru(int(key.max(initial=-1)) + 1, [cache.size_bytes])


def _prefixes(traffic: Traffic) -> tuple[Ints, Ints]:
    """Return the prefix of each prompt and its tokens; -1 without a shared prefix."""
    n = len(traffic.work)
    if traffic.prefix is None or traffic.shared_tokens is None:
        return np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
    return np.where(traffic.shared_tokens > 0, traffic.prefix, -1), traffic.shared_tokens


def _check(traffic: Traffic, sites: Sequence[Site], gateway: Gateway) -> None:
    names = [site.name for site in sites]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"sites: {min(twice)!r} is given twice: give each pool its own name")
    have = {site.tier for site in sites}
    for name, tiers in traffic.classes.items():
        if not have & set(tiers):
            raise ValueError(f"class {name!r}: no tier of {list(tiers)} has a pool: give it one of {sorted(have)}")
    if gateway.cache and gateway.cache.tier not in have:
        raise ValueError(f"cache: tier {gateway.cache.tier!r} has no pool: choose one of {sorted(have)}")
    n = len(traffic.work)
    for field in ("class_id", "prompt", "prefix", "shared_tokens"):
        values = getattr(traffic, field)
        if values is not None and values.shape != (n,):
            raise ValueError(f"{field}: shape {values.shape} is not that of the requests, ({n},): give one for each")
    class_ids = traffic.class_ids
    if n and not 0 <= class_ids.min() <= class_ids.max() < len(traffic.classes):
        raise ValueError(f"class_id: {class_ids.max()} is not the number of a class: there are {len(traffic.classes)}")
