"""The paper's own scaling: Erlang C over pooled servers, each as fast as if it had the replica to itself.

Wang, Xue, Wei, Kuo, "An Overview on Generative AI at Scale with Edge-Cloud Computing" (2023), takes the c places of all
accelerators for c servers of one rate mu, W = 1 / mu + C(c, lambda / mu) / (c mu - lambda), and wants W small enough.
Here mu = 1 / T(1) and c = R n with n slots in a replica. A batch slows all that are in it, which this leaves out.
"""

from __future__ import annotations

import math
from typing import Literal

from tierserve.queueing.staffing import servers_for
from tierserve.simulate.policies.windows import Window, mean_tokens, round_up
from tierserve.simulate.types import Pool, Snapshot


class Paper:
    """Smallest c = R n whose response meets the target at the arrival rate of the last interval.

    Where no c meets it, because the service alone takes longer, the smallest c that bears the load is taken.

    Args:
        pool: its slots, step times, tokens and `objective.response_s` (`inf`: only that the load is borne).
        factor: what the arrival rate is multiplied by.
        by: whether W, the mean as in the paper, or the objective's percentile of the response is to meet the target.
    """

    interval_s = 60.0

    def __init__(self, pool: Pool, factor: float, by: Literal["mean", "percentile"] = "mean") -> None:
        self._pool, self._factor, self._by = pool, factor, by
        self._window = Window(self.interval_s, "arrivals", "completions", "input_tokens", "output_tokens")

    def decide(self, seen: Snapshot) -> int:
        """Return ceil(c / n)."""
        self._window.add(seen)
        mu = 1.0 / self._pool.profile.service_time(1.0, *mean_tokens(self._window, self._pool))
        load = self._factor * self._window.rate("arrivals") / mu
        return round_up(self._servers(load, mu) / self._pool.slots)

    def _servers(self, load: float, mu: float) -> int:
        asked = self._pool.objective
        q = asked.percentile / 100.0
        alone = 1.0 / mu if self._by == "mean" else -math.log(1.0 - q) / mu
        if load == 0.0:
            return 0
        if not alone < asked.response_s < math.inf:
            return math.floor(load) + 1
        if self._by == "mean":
            return servers_for(load, max_mean_response=asked.response_s, mu=mu)
        return servers_for(load, max_response_quantile=asked.response_s, q=q, mu=mu)
