"""Iteration-level batching: how long one request takes while n requests share a replica.

A generator works in steps. Every step costs a fixed part (alpha: weights are read once), a part per token computed
(beta) and a part per token of context read (gamma). A request of i input and o output tokens takes one prefill step and
o decode steps. Over its phases it adds to each step of the batch

    s = beta (i + o) / (o + 1) + gamma (i + o / 2),                                it(n) = alpha + n s

on average, so that a step with n like requests takes it(n). A request shares its steps with n - 1 others, and adds its
own tokens to them once, as they come:

    T(n) = [it(n - 1) + (beta + gamma) i] + o [it(n - 1) + beta + gamma (i + o / 2)],                r(n) = n / T(n).

Beside a replica of the simulator that is always full r(n) is right to 0.1%. Some published queueing models (llm-d's
WVA) have it(n) in place of it(n - 1): they count the tokens of a request twice, once among the n and once alone, and
their r(n) is too low, by up to 1 / (n + 1).

T rises with n and r(n) rises with n too, but ever more slowly: that is why Erlang C with the rate of an empty machine
(1 / T(1)) promises too much and the planner uses the rate of a full one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierserve.queueing._validation import above_zero, at_least_zero

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
        """Return it(n), the mean seconds of a step with n requests of i input and o output tokens in the batch."""
        return self.alpha + n * (self.beta * (i + o) / (o + 1.0) + self.gamma * (i + o / 2.0))

    def prefill(self, n: float, i: float, o: float) -> float:
        """Return the seconds until the first token of a request that joins and makes the batch n."""
        return self.iteration(n - 1.0, i, o) + (self.beta + self.gamma) * i

    def decode(self, n: float, i: float, o: float) -> float:
        """Return the seconds between two tokens of one request in a batch of n, itself among them."""
        return self.iteration(n - 1.0, i, o) + self.beta + self.gamma * (i + o / 2.0)

    def service_time(self, n: float, i: float, o: float) -> float:
        """Return T(n), the seconds from entering the batch to the last token, in a batch of n with the request itself.

        T is linear in n. Below n = 1, where no request is, that line continues: for solvers, no time that is seen.
        """
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
        """Return the seconds that the tokens of a request add to its own 1 + o steps."""
        return (self.beta + self.gamma) * i + o * (self.beta + self.gamma * (i + o / 2.0))

    def service_times(self, n: float, sizes: Sizes) -> tuple[float, ...]:
        """Return T(n) of each size of a mixture, in seconds, where the n - 1 others are of the mixture."""
        step = self.alpha + (n - 1.0) * self.share(sizes)
        return tuple((1.0 + o) * step + self.own(i, o) for _, i, o in sizes)

    def mean_service_time(self, n: float, sizes: Sizes) -> float:
        """Return the mean of T(n) over a mixture that fills the batch too; of one size it is `service_time`.

        n over it is the rate of a replica that is always full, within 0.4% of the simulator's (outputs geometric).
        """
        return sum(p * time for (p, _, _), time in zip(sizes, self.service_times(n, sizes), strict=True))

    def rate(self, n: float, i: float, o: float) -> float:
        """Return r(n), the requests that a replica with n in the batch finishes per second, to 0.1%; 0 with none."""
        return n / self.service_time(n, i, o) if n > 0 else 0.0

    def largest_batch(self, i: float, o: float, service_s: float) -> float:
        """Return the largest n (any real number; `inf` if n costs nothing) with T(n) <= `service_s`.

        T is linear in n, so this is exact. Where not even a request that is alone finishes in time it is below 1: how
        far, on the line that T follows from 1 on, and 0 at least.
        """
        alone = self.service_time(1.0, i, o)
        slope = self.service_time(2.0, i, o) - alone
        if slope <= 0.0:
            return math.inf if alone <= service_s else 0.0
        return max(0.0, 1.0 + (service_s - alone) / slope)
