"""Iteration-level batching: how long one request takes while n requests share a replica.

A generator works in steps. Every step costs a fixed part (alpha: weights are read once), a part per token computed
(beta) and a part per token of context read (gamma). With n requests of i input and o output tokens in the batch, evenly
spread over their phases, a step takes

    it(n) = alpha + n (beta (i + o) / (o + 1) + gamma (i + o / 2))

and one request needs one prefill step and o decode steps:

    T(n) = [it(n) + (beta + gamma) i] + o [it(n) + beta + gamma (i + o / 2)],      r(n) = n / T(n).

T counts the tokens of the request itself twice, once among the n and once alone. So r(n) is too low, by at most
1 / (n + 1): beside a replica of the simulator that is always full by 3% (n = 1) and under 1.5% (n = 16, 64) for 1,000
tokens in and 200 out, and by 23, 14, 5 and 1.5% (n = 1, 4, 16, 64) for 4,000 and 100, where tokens cost most of a step.

T rises with n and r(n) rises with n too, but ever more slowly: that is why Erlang C with the rate of an empty machine
(1 / T(1)) promises too much and the planner uses the rate of a full one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierserve.queueing._check import above_zero, at_least_zero

Sizes = tuple[tuple[float, float, float], ...]
"""Requests as a mixture: (share, input tokens, output tokens); the shares sum to 1."""


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """Step-time coefficients of one model on one replica.

    Attributes:
        alpha: seconds a step costs whatever is in it.
        beta: seconds per token computed in a step.
        gamma: seconds per token of context read in a step.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            at_least_zero(name, getattr(self, name), "give seconds, 0 if this part costs nothing")
        above_zero("alpha + beta + gamma", self.alpha + self.beta + self.gamma, "a step that costs no time serves all")

    def iteration(self, n: float, i: float, o: float) -> float:
        """Return the mean time of a step, in seconds, with n requests of i input and o output tokens in the batch."""
        return self.alpha + n * (self.beta * (i + o) / (o + 1.0) + self.gamma * (i + o / 2.0))

    def prefill(self, n: float, i: float, o: float) -> float:
        """Return the seconds until the first token of a request that joins and makes the batch n."""
        return self.iteration(n, i, o) + (self.beta + self.gamma) * i

    def decode(self, n: float, i: float, o: float) -> float:
        """Return the seconds between two tokens of one request in a batch of n."""
        return self.iteration(n, i, o) + self.beta + self.gamma * (i + o / 2.0)

    def service_time(self, n: float, i: float, o: float) -> float:
        """Return T(n), the seconds from entering the batch to the last token, in a batch of n."""
        return self.prefill(n, i, o) + o * self.decode(n, i, o)

    def share(self, sizes: Sizes) -> float:
        """Return what one request of a mixture adds to a step, in seconds; the longer ones are in more of the steps.

        Args:
            sizes: (share, input tokens, output tokens) of the requests; the shares sum to 1.
        """
        steps = sum(p * (1.0 + o) for p, _, o in sizes)
        adds = sum(p * (self.beta * (i + o) + self.gamma * (1.0 + o) * (i + o / 2.0)) for p, i, o in sizes)
        return adds / steps

    def own(self, i: float, o: float) -> float:
        """Return the seconds that a request takes beyond the 1 + o steps of it(n)."""
        return (self.beta + self.gamma) * i + o * (self.beta + self.gamma * (i + o / 2.0))

    def mean_service_time(self, n: float, sizes: Sizes) -> float:
        """Return the mean of T(n) over a mixture that fills the batch too; of one size it is `service_time`."""
        step = self.alpha + n * self.share(sizes)
        return sum(p * ((1.0 + o) * step + self.own(i, o)) for p, i, o in sizes)

    def rate(self, n: float, i: float, o: float) -> float:
        """Return r(n), the requests a replica finishes per second with n in the batch; too low by up to 1 / (n + 1)."""
        return n / self.service_time(n, i, o) if n > 0 else 0.0

    def largest_batch(self, i: float, o: float, service_s: float) -> float:
        """Return the largest n (any real number; `inf` if n costs nothing) with T(n) <= `service_s`.

        T is linear in n, so this is exact. Below 1 not even a request that is alone finishes in time.
        """
        alone = self.service_time(0.0, i, o)
        slope = self.service_time(1.0, i, o) - alone
        if slope <= 0.0:
            return math.inf if alone <= service_s else 0.0
        return max(0.0, (service_s - alone) / slope)
