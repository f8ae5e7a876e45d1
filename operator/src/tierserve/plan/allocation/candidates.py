"""What an allocation may choose from: a variant on the sites of a tier, and what so many replicas of it can take.

A tier gives hardware, network and bounds for all of its sites alike. So sites that the same classes may use are one
group, and how many of them run what is a whole number: the plan is the same whichever of them it is. A private class
that comes in at a named site (`origin`) stays there, which makes that site a group of its own.

The staffing curve of an option is f(R), the highest rate at which R replicas keep the percentile of the objective, by
the birth-death model of batches and the spread of the sizes (`queueing.batching.response.batch_response`): P(wait > b)
<= 1 - p, where b is what network and service in a full replica leave of the target. f is convex: larger pools are used
better. It is exact at the levels; between two of them the line through f(R) and f(R + 1) stands for it, which lies
below f, never above: with four slots or more a replica by 0.06% up to 100 replicas and 0.5% up to 100,000; with one
slot by 0.4% and 3%. Where service leaves hardly any time to wait it is more: 0.5% at 8 replicas of four slots.

Where long prompts hold up answers (`pool.held_up`), f is no more than `pool.most_rate`, as in any plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.models import Model
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.api.v1alpha1.traffic import TrafficClass
from tierserve.plan import hardware as hw
from tierserve.plan.allocation.overflow import derate
from tierserve.plan.placement import WAIT_SHARE, Placement, Sized, network_times, placement_of
from tierserve.plan.pool_sizing import held_up, last_where, most_rate, work_of
from tierserve.queueing._arrays import Array
from tierserve.queueing.batching.response import BatchWork, batch_response

DENSE_LEVELS = 12
"""Up to so many numbers of replicas each is a level; beyond, they are spaced in the logarithm."""
_FIRST_LEVELS = 6
_CLOSE = 1e-8
_LEAST_LOG = -700.0


@dataclass(frozen=True, slots=True)
class Use:
    """What one request of a class asks of an option.

    Attributes:
        weight: its service time over that of the mean request of the option, in a full replica.
        network_s: t_UL + t_DL.
        service_s: service time in a full replica.
        bits: of the answer.
    """

    weight: float
    network_s: float
    service_s: float
    bits: float


@dataclass(frozen=True, slots=True)
class Level:
    """A site with `replicas` or up to `span` - 1 more; it takes `most` mean requests per second, each more `step`."""

    replicas: int
    most: float
    step: float
    span: int


@dataclass(frozen=True, slots=True)
class Option:
    """One variant for the classes in `uses`, on any site of a group.

    Where classes differ so much that the slowest would cost all the others their slots, there is an option without it.

    Attributes:
        placement: as for any pool; its site is the first of the group.
        model: the variant.
        uses: by name of the class.
        budget_s: seconds a request may wait at the percentile.
        clip: mean requests per second whose answers fill the downlink of a site.
    """

    placement: Placement
    model: Model
    uses: Mapping[str, Use]
    budget_s: float
    clip: float

    @property
    def work(self) -> BatchWork:
        """One replica and what requests ask of it."""
        return work_of(self.placement)

    @property
    def rates(self) -> Array:
        """r(1), ..., r(n) of one replica."""
        return self.work.rates

    def most(self, replicas: int, z: float = 1.0) -> float:
        """Mean requests per second that `replicas` replicas take within the objective; peakedness z of the arrivals."""
        one = self.placement
        if replicas == 0:
            return 0.0
        miss = 1.0 - one.percentile / 100.0
        free = _most(self.work, self.budget_s, miss, replicas)
        if held_up(one):  # service is longer then than in a full replica with even steps
            free = min(free, most_rate(one, replicas))
        return free * derate(replicas * one.slots, z, 1.0 / one.service_s, self.budget_s, miss) if z > 1.0 else free

    def room(self, replicas: int, z: float = 1.0) -> float:
        """The same within the downlink and with the headroom kept (which the ceiling of replicas may cut short)."""
        one = self.placement
        kept = 1.0 + one.headroom if replicas < one.max_replicas else 1.0
        return min(self.most(replicas, z) / kept, self.clip)

    def levels(self, z: float = 1.0) -> tuple[Level, ...]:
        """The levels from the floor (at least one replica) to the ceiling, or to where the downlink is full."""
        one = self.placement
        counts = _counts(max(1, one.min_replicas), one.max_replicas)
        out: list[Level] = []
        for at, replicas in enumerate(counts):
            room = self.room(replicas, z)
            span = counts[at + 1] - replicas if at + 1 < len(counts) else 1
            step = max(0.0, self.room(replicas + 1, z) - room) if span > 1 else 0.0
            if step > 0.0 and room + step * (span - 1) > self.clip:
                span = 1 + math.floor((self.clip - room) / step)
            out.append(Level(replicas, room, step, span))
            if room >= self.clip:
                break
        return tuple(out)

    def replicas_for(self, work: float, z: float, most: int) -> int:
        """Least replicas, up to `most` which suffice, that take `work` mean requests per second."""
        low, high = max(0, self.placement.min_replicas - 1), most
        if work <= 0.0:
            return self.placement.min_replicas
        while high - low > 1:
            mid = (low + high) // 2
            low, high = (low, mid) if self.room(mid, z) >= work * (1.0 - _CLOSE) else (mid, high)
        return high


@dataclass(frozen=True, slots=True)
class Group:
    """Sites of one tier that are alike in every respect, and the options they have.

    `idle`: whether a site may run nothing at all.
    """

    tier: Tier
    index: int
    sites: tuple[str, ...]
    options: tuple[Option, ...]
    idle: bool


def groups_of(gaid: GenAIDeployment) -> tuple[Group, ...]:
    """Return the groups of sites in the order of the file; a tier on which no model fits the memory has none."""
    out: list[Group] = []
    for index, tier in enumerate(gaid.spec.tiers):
        alike: dict[tuple[str, ...], list[str]] = {}
        for site in tier.sites_or_default:
            names = tuple(one.name for one in gaid.spec.traffic if may_go(gaid, one, tier, site))
            alike.setdefault(names, []).append(site)
        for names, sites in alike.items():
            classes = [one for one in gaid.spec.traffic if one.name in names]
            options = _options(gaid, tier, sites[0], classes)
            if options and tier.max_replicas > 0:
                out.append(Group(tier, index, tuple(sites), options, tier.min_replicas == 0))
    return tuple(out)


def may_go(gaid: GenAIDeployment, traffic: TrafficClass, tier: Tier, site: str) -> bool:
    """Return whether requests of a class may be served on a site: by privacy and order of overflow, and by its origin.

    A private class that comes in at a site leaves it for no other; a device without sites goes where its user goes.
    """
    if tier not in gaid.tiers_for(traffic):
        return False
    listed = any(site.name == traffic.origin for one in gaid.spec.tiers for site in one.sites)
    if traffic.privacy == "public" or not listed:
        return True
    return site == traffic.origin or (tier.kind == "device" and not tier.sites)


def _options(gaid: GenAIDeployment, tier: Tier, site: str, classes: list[TrafficClass]) -> tuple[Option, ...]:
    out: list[Option] = []
    for model in gaid.models_of(tier):
        alone = [(one, _option(gaid, tier, site, model, [one])) for one in classes]
        fast = sorted(((one, o) for one, o in alone if o is not None), key=lambda pair: -pair[1].placement.slots)
        more = [_option(gaid, tier, site, model, [one for one, _ in fast[:k]]) for k in range(2, len(fast) + 1)]
        known = [option for option in [*(o for _, o in fast[:1]), *more] if option is not None]
        after = [*(other.placement.slots for other in known[1:]), 0][: len(known)]
        out += [one for one, slots in zip(known, after, strict=True) if one.placement.slots != slots]
    return tuple(out) or _floor(gaid, tier, site)


def _floor(gaid: GenAIDeployment, tier: Tier, site: str) -> tuple[Option, ...]:
    """What a tier runs that must run something and can serve no class in time: its first model that fits."""
    if tier.min_replicas == 0:
        return ()
    some = (_option(gaid, tier, site, model, list(gaid.spec.traffic), serves=False) for model in gaid.models_of(tier))
    return next(((one,) for one in some if one is not None), ())


def _option(
    gaid: GenAIDeployment, tier: Tier, site: str, model: Model, classes: list[TrafficClass], *, serves: bool = True
) -> Option | None:
    """The option that serves `classes`, or None where weights and a request do not fit or one of them is too slow."""
    each = {one.name: (one.share, float(one.input), float(one.output or model.output.tokens)) for one in classes}
    tokens, hardware, objective = hw.mean_tokens(list(each.values())), tier.hardware, gaid.spec.objective
    single = {
        name: hw.mean_tokens(hw.spread_out([(1.0, i, o)], model.output.spread)) for name, (_, i, o) in each.items()
    }
    network = {name: sum(network_times(tier, model, one)) for name, one in single.items()}
    target_s = objective.response_time.target.value - max(network.values())
    profile = hw.profile_of(model, hardware, tokens)
    limits = hw.Limits(
        service_s=target_s * (1.0 - WAIT_SHARE),
        first_token_s=objective.first_token.value - max(network.values()) if objective.first_token else math.inf,
        per_token_s=objective.per_token.value if objective.per_token else math.inf,
        percentile=objective.response_time.percentile,
    )
    # each class keeps the target, not only most of the requests of all
    mixed = {name: hw.Tokens(tokens.input, tokens.output, one.classes) for name, one in single.items()}
    slots = min((hw.slots_of(model, hardware, one, profile, limits) for one in mixed.values()), key=lambda s: s.slots)
    if slots.slots < 1 or (serves and not slots.meets_target):
        return None
    tails = {name: hw.service_quantile(profile, slots.slots, one, limits.percentile) for name, one in mixed.items()}
    times = {
        name: hw.service_quantile(profile, slots.slots, hw.Tokens(tokens.input, tokens.output, ((1.0, i, o),)), 100.0)
        for name, (_, i, o) in each.items()
    }
    sized = Sized(tokens, profile, slots, target_s, max(tails.values()))
    placement = placement_of(gaid, tier, site, model, sized)
    mean_s = placement.service_s
    bits = {name: 8.0 * model.output_bytes * one.output / model.output.tokens for name, one in single.items()}
    uses = {name: Use(times[name] / mean_s, network[name], times[name], bits[name]) for name in each}
    return Option(
        placement=placement,
        model=model,
        uses=uses if serves else {},
        budget_s=max(target_s - max(tails.values()), 0.0),
        # the class with the longest answers for its work: safe for any mix, exact where all are alike
        clip=tier.downlink_bps / max(one.bits / one.weight for one in uses.values()),
    )


def _counts(least: int, most: int) -> list[int]:
    """Numbers of replicas that are levels."""
    if most - least < DENSE_LEVELS:
        return list(range(least, most + 1))
    first = least + _FIRST_LEVELS - 1
    more = DENSE_LEVELS - _FIRST_LEVELS
    ratio = (most / first) ** (1.0 / more)
    spaced = (round(first * ratio**k) for k in range(1, more))
    return sorted({*range(least, first + 1), *spaced, most})


@lru_cache(maxsize=65536)
def _most(work: BatchWork, budget_s: float, miss: float, replicas: int) -> float:
    """f(replicas): the highest rate with P(wait > budget_s) <= miss, to ten digits and on the safe side."""
    capacity = replicas * float(work.rates[-1])

    def excess(rate: float) -> float:
        response = batch_response(rate, replicas, work)
        p_wait = response.queue.p_wait
        return (math.log(p_wait) if p_wait > 0.0 else _LEAST_LOG) - response.decay * budget_s - math.log(miss)

    spare = min(0.9, 1.5 / math.sqrt(replicas * work.slots))  # Halfin and Whitt: the spare grows with the square root
    return last_where(excess, capacity * (1.0 - spare), capacity, -math.log(miss))
