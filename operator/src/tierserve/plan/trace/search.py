"""The replicas that a recorded stream needs, confirmed: a formula's number tried in simulations, and moved.

What simulates is passed in. All that is known of it is what came of a run with so many replicas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tierserve.plan.placement import Placement
from tierserve.queueing._validation import complain, whole
from tierserve.queueing.batching.profile import BatchProfile
from tierserve.queueing.staffing import smallest

_WHOLE = 1e-9
"""Of the product of a share and a count, so that 5% of 20 is one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What users see of a pool in one run.

    Attributes:
        response_s: the objective's percentile of all requests with the network, seconds; `inf` where so many are never
            answered.
        within: share of the requests that are answered within the target.
        meets: whether the percentile is within the target.
    """

    response_s: float
    within: float
    meets: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The least number of replicas that keeps the objective in a simulation.

    Attributes:
        needed: the fewest replicas, without the bounds; None where no number does.
        at: what users see with them; where no number does, with so many that more are of no use.
        fewer: the same with one replica fewer; None where that is none, or no number does.
        replicas: needed, within the bounds.
        seen: what users see with these.
        runs: simulations that it took.
    """

    needed: int | None
    at: Seen
    fewer: Seen | None
    replicas: int
    seen: Seen
    runs: int


def seen_of(placement: Placement, response_s: npt.NDArray[Any]) -> Seen:
    """Return what users see where the pool answers each request in so many seconds.

    The percentile is the time of a request: of n the least that `percentile` % of n do not exceed.

    Args:
        placement: target, percentile, and the times of the network, which are added.
        response_s: from arrival at the pool to the last token, seconds, shape (n,), n >= 1; `inf` if never.

    Raises:
        ValueError: there are no requests.
    """
    if not response_s.size:
        raise complain("response_s", [], "the times of one request at least", "give those of a run")
    late = math.floor((1.0 - placement.percentile / 100.0) * response_s.size + _WHOLE)
    rank = max(0, response_s.size - 1 - late)
    value = float(np.partition(response_s, rank)[rank])
    within = float(np.mean(response_s <= placement.target_s))
    return Seen(placement.network_s + value, within, value <= placement.target_s)


def most_of_use(
    profile: BatchProfile, times_s: npt.NDArray[Any], inputs: npt.NDArray[Any], outputs: npt.NDArray[Any]
) -> int:
    """Return the replicas with which each request has one to itself; more change nothing.

    Exact where a request goes to the replica with the fewest, as at the gateway and in `tierserve.simulate`.

    Args:
        profile: of the replicas.
        times_s: arrivals, ascending, shape (n,).
        inputs, outputs: tokens of each request, shape (n,).
    """
    own = (profile.beta + profile.gamma) * inputs + outputs * (profile.beta + profile.gamma * (inputs + outputs / 2.0))
    ends = np.sort(times_s + own + (1.0 + outputs) * profile.alpha)
    there = np.arange(1, times_s.size + 1) - np.searchsorted(ends, times_s, side="left")
    return int(there.max(initial=1))


def search(
    simulate_at: Callable[[int], Seen],
    start: int | None,
    most: int,
    *,
    min_replicas: int = 0,
    max_replicas: int | None = None,
) -> SearchResult:
    """Return the least number of replicas that keeps the objective, looked for outwards from `start`.

    Steps of 1, 2, 4 ... replicas until one number keeps the objective and another does not, then halving. That takes a
    run for each of the two numbers where `start` is right, and with a guess d off up to 2 log2(d + 2) + 3. Assumed is
    that the percentile never rises with a replica more. A simulated one does by a hundredth where replicas are so many
    that more hardly help. Then what is found still keeps the objective and one replica fewer still does not, but a
    smaller number may keep it too.

    Args:
        simulate_at: what came of a run with so many replicas, from 1 to `most`.
        start: a first guess, > 0; None where a formula says that no number does.
        most: replicas of which more are of no use, >= 1 (`most_of_use`).
        min_replicas, max_replicas: bounds of the pool.

    Raises:
        ValueError: `start` or `most` is less than 1.
    """
    whole("most", most, "give replicas of which more are of no use")
    whole("start", 1 if start is None else start, "give a guess of the replicas, or None")
    runs: set[int] = set()

    @cache
    def seen(replicas: int) -> Seen:
        runs.add(replicas)
        return simulate_at(replicas)

    hopeless = start is None and not seen(most).meets
    last = most if hopeless else smallest(lambda r: r >= most or seen(r).meets, min(start or most, most), 1)
    needed = last if seen(last).meets else None
    fewer = None if needed is None or needed == 1 else seen(needed - 1)
    enough = needed or max_replicas or most
    replicas = max(1, min_replicas, min(enough, max_replicas or enough))
    return SearchResult(needed, seen(last), fewer, replicas, seen(min(replicas, most)), len(runs))
