"""Load plan: traffic, steps and loops as frozen values, no I/O.

A `LoadPlan` is a row of `Step`s; a step holds one or more `Traffic`s side by side, each a class of users with its own
loop. A traffic with the same name in the next step continues: users are kept, added or retired.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tierserve.loadgen.errors import LoadUsageError

if TYPE_CHECKING:
    from tierserve.loadgen.traces import Trace

MAX_SOCKETS = 15_000
"""Maximum sockets of the process: below the ephemeral ports of one source address and common file limits."""

DEFAULT_PROMPT = "Explain in one sentence why the sky is blue."


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Closed loop: users that send a request, wait for the complete response, think, and repeat.

    Args:
        connections: users at once.
        think_s: mean think time between response and next request, seconds; exponential or constant.
        ramp_s: new users start spread evenly over this time, so that they are not synchronised.
    """

    connections: int
    think_s: float = 0.0
    think: Literal["constant", "exponential"] = "constant"
    ramp_s: float = 1.0

    def __post_init__(self) -> None:
        if self.connections < 0 or self.think_s < 0 or self.ramp_s < 0:
            raise LoadUsageError("connections, think_s, ramp_s: must not be negative", "give 0 or more")

    @property
    def label(self) -> str:
        """Label in tables."""
        return f"{self.connections}"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Open loop: independent arrivals, `rate` per second, or a ramp from `rate` to `end_rate` over the step."""

    rate: float
    end_rate: float | None = None
    process: Literal["poisson", "constant"] = "poisson"

    def __post_init__(self) -> None:
        if min(self.rate, self.end_rate if self.end_rate is not None else self.rate) < 0:
            raise LoadUsageError(f"rate: must not be negative ({self.rate:g}/s)", "give requests per second, 0 or more")

    @property
    def label(self) -> str:
        """Label in tables."""
        return f"{self.rate:g}/s" if self.end_rate is None else f"{self.rate:g}-{self.end_rate:g}/s"

    def times(self, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Intended starts in [0, duration_s), seconds, ascending.

        Arrivals of unit rate are mapped through the inverse of the expected count L(t) = r0 t + (r1 - r0) t^2 / (2 d):
        the exact way to make a Poisson process whose rate changes (Cinlar 1975).
        """
        end = self.rate if self.end_rate is None else self.end_rate
        total = (self.rate + end) / 2 * duration_s
        if total <= 0:
            return np.empty(0)
        counts = np.sort(rng.random(rng.poisson(total))) * total if self.process == "poisson" else np.arange(0.0, total)
        slope = (end - self.rate) / duration_s
        if slope == 0:
            return counts / self.rate
        root = np.sqrt(np.maximum(0.0, self.rate**2 + 2 * slope * counts))
        # A ramp from 0 whose first arrival is due at once: 0 / 0, and the time is 0.
        return np.divide(2 * counts, self.rate + root, out=np.zeros_like(root), where=counts > 0)


@dataclass(frozen=True, slots=True)
class Replay:
    """A trace, already cut, compressed and capped; its times count from the start of the step."""

    trace: Trace

    @property
    def label(self) -> str:
        """Label in tables."""
        return f"{self.trace.name} {self.trace.rate:.3g}/s"


Loop = ClosedLoop | OpenLoop | Replay


@dataclass(frozen=True, slots=True)
class Traffic:
    """One class of users.

    Args:
        name: keeps its users from step to step.
        klass: value of the header X-TierServe-Class; none sends no header.
        prompts: asked in turn. A replay makes prompts of the trace's length instead.
        max_tokens: bound of the answer; none leaves it to the service.
        streamed: ask for server-sent events, and measure first token and gaps.
        keep_text: hand prompts and answers to `run_load(on_text=...)`.
        slo_s: objective for this class, where it differs from the plan's.
    """

    name: str
    loop: Loop
    klass: str | None = None
    prompts: tuple[str, ...] = (DEFAULT_PROMPT,)
    max_tokens: int | None = None
    streamed: bool = False
    keep_text: bool = False
    slo_s: float | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Step of a load plan: fixed conditions.

    Requests intended to start in the first `warmup_s` are logged but not evaluated: the steady part is [warmup_s,
    duration_s). With `settle_s` the warm-up is extended by up to that time, until `run_load(settled=...)` returns true;
    the steady part keeps its length. For closed loops only: a schedule of arrivals cannot be extended.
    """

    name: str
    duration_s: float
    traffic: tuple[Traffic, ...]
    warmup_s: float = 0.0
    settle_s: float = 0.0

    def __post_init__(self) -> None:
        if self.settle_s and not all(isinstance(t.loop, ClosedLoop) for t in self.traffic):
            raise LoadUsageError(f"settle_s: is for closed loops only (step {self.name})", "leave settle_s out")
        if not self.traffic:
            raise LoadUsageError(f"traffic: is required (step {self.name})", "give connections, a rate or a trace")
        if not 0 <= self.warmup_s < self.duration_s:
            raise LoadUsageError(
                f"step {self.name}: warm-up {self.warmup_s:g} s is not shorter than the step ({self.duration_s:g} s)",
                "give a longer duration or a shorter warm-up",
            )

    @property
    def connections(self) -> int:
        """Closed-loop users in all."""
        return sum(t.loop.connections for t in self.traffic if isinstance(t.loop, ClosedLoop))


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A whole load, with its bounds.

    Args:
        url: base address (`/v1/chat/completions` is added) or the full address of a chat completions endpoint.
        slo_s: objective of the response, seconds; failures count as misses.
        model: model asked for; none takes the first the service lists.
        timeout_s: a request is given up on after this long from its intended start.
        max_requests, max_duration_s, max_in_flight: bounds of the whole run.
        headers: of every request; they may hold a key and are in no output.
        cacert: certificates to trust instead of the system's.
        insecure: do not verify certificates.
        allow_remote: load leaves this machine only when asked to, since it can take a service of others down.
    """

    url: str
    steps: tuple[Step, ...]
    slo_s: float | None = None
    model: str | None = None
    timeout_s: float = 60.0
    max_requests: int = 1_000_000
    max_duration_s: float = 6 * 3600.0
    max_in_flight: int = MAX_SOCKETS
    seed: int = 1
    allow_remote: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cacert: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if not self.steps:
            raise LoadUsageError("steps: at least one is required", "give connections, a rate or a trace")
        longest_s = self.duration_s + sum(step.settle_s for step in self.steps)
        if longest_s > self.max_duration_s:
            raise LoadUsageError(
                f"the steps take {longest_s:.0f} s, over the bound of {self.max_duration_s:.0f} s",
                "give fewer or shorter steps",
            )
        most = max(self.peak_connections, self.max_in_flight)
        if most > MAX_SOCKETS or self.max_in_flight < 1:
            raise LoadUsageError(
                f"{most:,} connections, but one process opens 1 to {MAX_SOCKETS:,}",
                "run several processes, each with a part",
            )

    @property
    def duration_s(self) -> float:
        """Length of all steps, seconds, without what they wait to settle."""
        return sum(step.duration_s for step in self.steps)

    @property
    def peak_connections(self) -> int:
        """Most closed-loop users at once."""
        return max(step.connections for step in self.steps)

    @property
    def is_open(self) -> bool:
        """Whether any traffic sends at its own times."""
        return any(not isinstance(t.loop, ClosedLoop) for step in self.steps for t in step.traffic)


def connection_steps(
    connections: Iterable[int],
    duration_s: float,
    *,
    warmup_s: float | None = None,
    traffic: Traffic | None = None,
    beside: Sequence[Traffic] = (),
    think_s: float = 0.0,
) -> tuple[Step, ...]:
    """One step per number of connections; `beside` runs next to each. Warm-up is 40% of the step unless given."""
    base = traffic or Traffic("users", ClosedLoop(0))
    warmup = 0.4 * duration_s if warmup_s is None else warmup_s
    return tuple(
        Step(f"{n}", duration_s, (replace(base, loop=ClosedLoop(n, think_s)), *beside), warmup) for n in connections
    )


def rate_steps(
    rates: Iterable[OpenLoop],
    duration_s: float,
    *,
    traffic: Traffic,
    warmup_s: float = 0.0,
    beside: Sequence[Traffic] = (),
) -> tuple[Step, ...]:
    """One step per open loop."""
    return tuple(Step(r.label, duration_s, (replace(traffic, loop=r), *beside), warmup_s) for r in rates)


def replay_step(trace: Trace, *, traffic: Traffic, warmup_s: float = 0.0, beside: Sequence[Traffic] = ()) -> Step:
    """One step that lasts as long as the trace."""
    loop = Replay(trace)
    return Step(trace.name, trace.length_s, (replace(traffic, loop=loop), *beside), warmup_s)
