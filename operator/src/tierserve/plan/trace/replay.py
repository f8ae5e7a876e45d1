"""How many replicas a recorded stream of requests needs: its arrivals second by second, in their order.

The plan for a rate takes arrivals as Poisson. Real ones come in bursts that last for minutes, and then it promises far
too much. Here the counts are replayed (`queueing.batching.replay`) through pools of more and more replicas, whose
number stays the same throughout, until the objective's percentile of the whole trace is within the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan import hardware as hw
from tierserve.plan.placement import Placement, network_times
from tierserve.plan.pool_sizing import may_miss, response_of, work_of
from tierserve.queueing._arrays import Array, array_of
from tierserve.queueing._validation import above_zero, complain
from tierserve.queueing.batching.bursts import BurstResponse
from tierserve.queueing.batching.profile import Sizes
from tierserve.queueing.batching.replay import replay_response
from tierserve.queueing.batching.steps import sizes_of
from tierserve.queueing.staffing import smallest

SECOND = 1.0
"""Seconds of a window, as in the figures on what the replay is worth (docs/benchmarks/trace-prediction.md)."""
BUSY_S, MINUTE_S = 600.0, 60.0
# How far the replay was off, beside simulations: the one place to change after a re-run of the benchmarks.
ERROR = 0.15
"""By how much p95 of a replay may be off at loads of `LOADS`: docs/benchmarks/trace-prediction.md."""
LOADS = (0.5, 0.85)
CLOSE_WINDOWS, WINDOWS = 62, 64
"""Windows of real traces at these loads: those within `ERROR`, and all (the same page, "counts")."""
LOW_LOAD = 0.45
"""Below it p95 may be off by more: docs/benchmarks/trace-planning.md."""
LOW_LOAD_ERROR = (-0.43, 0.20)
"""Least and most relative error of p95 there; below 0: users wait longer than it says (the same page)."""
LOW_LOAD_REPLICAS = (0.77, 2.10)
"""Least and most of the replicas found over those that a simulation needs (the same page)."""


@dataclass(frozen=True, slots=True)
class Requests:
    """A stream of requests.

    Attributes:
        counts: arrivals in consecutive windows, >= 0, shape (t,).
        window_s: seconds of each.
        sizes: (share, input tokens, output tokens); () where they are as the file says.
    """

    counts: Array
    window_s: float = SECOND
    sizes: Sizes = ()

    def __post_init__(self) -> None:
        hint = "give the arrivals in each window"
        if not array_of("counts", self.counts, hint).size:
            raise complain("counts", self.counts, "of one window at least", hint)
        above_zero("window_s", self.window_s, "give the seconds of a window")

    @property
    def rate(self) -> float:
        """Mean arrivals per second."""
        return float(self.counts.sum()) / (self.counts.size * self.window_s)

    def busiest(self, span_s: float) -> float:
        """Return the arrivals per second in the busiest `span_s` seconds; of a shorter stream the mean."""
        many = min(max(1, round(span_s / self.window_s)), self.counts.size)
        total = np.concatenate([[0.0], np.cumsum(self.counts)])
        return float((total[many:] - total[:-many]).max()) / (many * self.window_s)


@dataclass(frozen=True, slots=True)
class Steady:
    """What the plan for a rate says, and what it would come to.

    Attributes:
        rate: Poisson arrivals per second.
        replicas: the least that keep the objective at this rate; None where no number does.
        within: share of the requests of the stream that these answer in time.
    """

    rate: float
    replicas: int | None
    within: float


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """One pool with a fixed number of replicas, asked alone for a whole stream; times in seconds with the network.

    Attributes:
        placement: the pool, with the tokens of the stream.
        needed: the fewest replicas that keep the objective, without the bounds; None where no number does.
        needed_with_margin: the same where the percentile is to be within the target less `ERROR`.
        replicas: those that the figures are of: needed, within the bounds.
        meets: whether they keep the objective.
        response_s: the objective's percentile of all requests.
        mean_response_s: their mean.
        within: share of the requests that are answered within the target.
        late_alone: share of those that take longer than the target even alone on a replica.
        utilisation: mean rate over what full replicas finish.
        utilisation_busiest: the same of the busiest minute; above 1 a queue grows throughout.
        mean, busiest: what the plan for a rate says, at the mean and that of the busiest ten minutes.
    """

    placement: Placement
    needed: int | None
    needed_with_margin: int | None
    replicas: int
    meets: bool
    response_s: float
    mean_response_s: float
    within: float
    late_alone: float
    utilisation: float
    utilisation_busiest: float
    mean: Steady
    busiest: Steady

    @property
    def late(self) -> float:
        """Share of the requests that take longer than the target."""
        return 1.0 - self.within


def requests_of(
    times_s: npt.NDArray[Any], inputs: npt.NDArray[Any], outputs: npt.NDArray[Any], length_s: float
) -> Requests:
    """Return the stream of these requests, counted by the second.

    Args:
        times_s: arrivals, seconds from the start, shape (n,).
        inputs, outputs: tokens of each request, shape (n,).
        length_s: seconds of the stream, > 0.

    Raises:
        ValueError: an argument is out of its range.
    """
    seconds = array_of("times_s", times_s, "give seconds from the start")
    whole = math.ceil(above_zero("length_s", length_s, "give the seconds of the stream") / SECOND)
    counts = np.bincount((seconds / SECOND).astype(np.int64), minlength=whole).astype(np.float64)
    return Requests(counts, SECOND, sizes_of(inputs, outputs) if seconds.size else ())


def asked(gaid: GenAIDeployment, placement: Placement, sizes: Sizes) -> Placement:
    """Return the pool where requests have these sizes: service and network change, slots stay those that would run."""
    if not sizes:
        return placement
    tier = gaid.tier(placement.tier)
    model = next(one for one in gaid.spec.models if one.name == placement.model)
    tokens = hw.mean_tokens(sizes)
    up_s, down_s = network_times(tier, model, tokens)
    tail_s = hw.service_quantile(placement.profile, placement.slots, tokens, placement.percentile)
    return replace(
        placement,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        uplink_s=up_s,
        downlink_s=down_s,
        target_s=placement.target_s + placement.network_s - up_s - down_s,
        service_tail_s=tail_s,
        sizes=tokens.classes,
        spread_known=True,
    )


def replay(placement: Placement, requests: Requests) -> ReplayResult:
    """Return how many replicas the pool needs for the stream, and what users would see.

    p95 is within `ERROR` of a simulation on `CLOSE_WINDOWS` of `WINDOWS` windows of real traces at loads of `LOADS`. At
    lower ones it is off by `LOW_LOAD_ERROR`, and the replicas are `LOW_LOAD_REPLICAS` of those that a simulation needs
    (`plan.trace.search` finds these).

    Args:
        placement: with the sizes of the stream (`asked`).
        requests: the stream; without traffic, min_replicas are enough.
    """
    if not requests.counts.any():
        return _idle(placement)

    @cache
    def answers(replicas: int) -> BurstResponse:
        return replay_response(requests.counts, requests.window_s, replicas, work_of(placement))

    return _found(placement, requests, answers)


def _found(placement: Placement, requests: Requests, answers: Callable[[int], BurstResponse]) -> ReplayResult:
    most = _most(placement, requests)
    start = min(max(1, math.ceil(requests.rate / placement.rate)), most)

    def least(target_s: float) -> int | None:
        return _least(lambda r: answers(r).survival(target_s) <= may_miss(placement), start, most)

    needed = least(placement.target_s)
    enough = placement.max_replicas if needed is None else needed
    replicas = max(1, min(max(enough, placement.min_replicas), placement.max_replicas))
    seen, full = answers(replicas), replicas * placement.rate
    within = 1.0 - seen.survival(placement.target_s)
    margin_s = (placement.target_s + placement.network_s) * (1.0 - ERROR) - placement.network_s
    return ReplayResult(
        placement=placement,
        needed=needed,
        needed_with_margin=None if needed is None else least(margin_s),
        replicas=replicas,
        meets=1.0 - within <= may_miss(placement),
        response_s=placement.network_s + seen.quantile(placement.percentile / 100.0),
        mean_response_s=placement.network_s + seen.mean_response,
        within=within,
        late_alone=_late_alone(placement),
        utilisation=requests.rate / full,
        utilisation_busiest=requests.busiest(MINUTE_S) / full,
        mean=_steady(placement, requests.rate, most, answers),
        busiest=_steady(placement, requests.busiest(BUSY_S), most, answers),
    )


def _late_alone(placement: Placement) -> float:
    work = work_of(placement)
    return float(work.shares[work.services(work.alone_s) > placement.target_s].sum())


def _most(placement: Placement, requests: Requests) -> int:
    """Replicas with which requests hardly ever share one: more are of no use."""
    work = work_of(placement)
    longest = float(work.services(work.alone_s).max())
    return max(placement.max_replicas, math.ceil(requests.busiest(longest) * max(longest, requests.window_s)) + 1)


def _least(good: Callable[[int], bool], start: int, most: int) -> int | None:
    """Return the least number of replicas that is good, looked for from `start` on; None where `most` are not."""
    found = smallest(lambda r: r >= most or good(r), start, 1)
    return found if found < most or good(most) else None


def _steady(placement: Placement, rate: float, most: int, answers: Callable[[int], BurstResponse]) -> Steady:
    def good(replicas: int) -> bool:
        """As `plan.pool_sizing.meets`, also where a full replica is too slow: not all are full."""
        if rate >= replicas * placement.rate:
            return False
        return response_of(placement, replicas, rate).survival(placement.target_s) <= may_miss(placement)

    replicas = _least(good, min(max(1, math.ceil(rate / placement.rate)), most), most)
    return Steady(rate, replicas, 0.0 if replicas is None else 1.0 - answers(replicas).survival(placement.target_s))


def _idle(placement: Placement) -> ReplayResult:
    nobody = Steady(0.0, 0, 1.0)
    return ReplayResult(
        placement=placement,
        needed=0,
        needed_with_margin=0,
        replicas=placement.min_replicas,
        meets=True,
        response_s=0.0,
        mean_response_s=0.0,
        within=1.0,
        late_alone=0.0,
        utilisation=0.0,
        utilisation_busiest=0.0,
        mean=nobody,
        busiest=nobody,
    )
