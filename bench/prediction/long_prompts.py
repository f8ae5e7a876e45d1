"""Planned response times and replicas with long prompts, compared with a token-level simulation.

    python -m bench.prediction.long_prompts       about 2 minutes; writes docs/benchmarks/long-prompts.md

Pools of 1, 4 and 16 replicas with 8 and 32 slots, at loads of 0.3 to 0.85, Poisson arrivals, 40,000 requests each, the
first tenth left out. Input of the plan: the tokens in, and mean and spread of the tokens out, as in a file. `even`
spreads the reading of a prompt over the steps of its request (`batch_response`), `planned` is the plan's own
(`plan.pool_sizing.response_of`).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tierserve.plan import hardware as hw
from tierserve.plan.placement import Placement
from tierserve.plan.pool_sizing import even_replicas_for, held_up, replicas_for, response_of, work_of
from tierserve.queueing import BatchProfile, batch_response, lognormal_points
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Workload

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "long-prompts.md"
A100_8B = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
"""The roofline of an 8B model on an A100 (plan/hardware.py)."""
REQUESTS, WARM = 40_000, 4_000
REPLICAS, LOADS = (1, 4, 16), (0.3, 0.5, 0.7, 0.85)
STAFFED, STAFFED_LOAD = (4, 12, 40), 0.7
Q = 0.95


@dataclass(frozen=True)
class Tokens:
    """Requests of `input` tokens and lognormal responses."""

    name: str
    input: int
    output: float
    spread: float

    def pool(self, slots: int) -> Placement:
        sizes = tuple((share, float(self.input), each) for share, each in lognormal_points(self.output, self.spread))
        tail_s = hw.service_quantile(A100_8B, slots, hw.Tokens(self.input, self.output, sizes), 100.0 * Q)
        return Placement(
            "cloud", "main", "cloud", "m", "emulated", None, slots, A100_8B, self.input, self.output, 0.0, 0.0, 0,
            10**6, 60.0, percentile=100.0 * Q, target_s=1.12 * tail_s, service_tail_s=tail_s, sizes=sizes,
            spread_known=True,
        )  # fmt: skip

    def simulated(self, pool: Placement, replicas: int, rate: float) -> np.ndarray:
        dice, sigma = np.random.default_rng(11), np.sqrt(np.log1p(self.spread**2))
        times = np.cumsum(dice.exponential(1.0 / rate, REQUESTS))
        answers = np.rint(self.output * np.exp(dice.normal(-0.5 * sigma * sigma, sigma, REQUESTS)))
        work = Workload(
            times, np.full(REQUESTS, self.input), np.maximum(answers, 1.0).astype(np.int64), float(times[-1])
        )
        like = Pool(A100_8B, pool.slots, 0.0, Objective(), 1.0, 1.0)
        return simulate(work, like, Static(like, replicas), Setup("tokens", "central", replicas)).response_s[WARM:]


ALL = (
    Tokens("chat, 300/300", 300, 300, 0.8),
    Tokens("chat, 1,000/300", 1000, 300, 0.8),
    Tokens("code, 2,000/28 alike", 2000, 28, 0.0),
    Tokens("code, 2,000/28", 2000, 28, 0.8),
    Tokens("code, 2,000/28 wide", 2000, 28, 1.5),
    Tokens("Mooncake, 12,000/340 alike", 12_000, 340, 0.0),
    Tokens("Mooncake, 12,000/340", 12_000, 340, 0.8),
)


@dataclass(frozen=True)
class Cell:
    """One pool: simulated mean and p95, and the errors of `even` and `planned` of each."""

    tokens: Tokens
    slots: int
    replicas: int
    load: float
    held_up: bool
    mean: float
    p95: float
    even: tuple[float, float]
    planned: tuple[float, float]


def cells() -> Iterator[Cell]:
    for tokens in ALL:
        for slots in (8, 32):
            pool = tokens.pool(slots)
            for replicas in REPLICAS:
                for load in LOADS:
                    rate = load * replicas * pool.rate
                    seen = tokens.simulated(pool, replicas, rate)
                    mean, p95 = float(seen.mean()), float(np.quantile(seen, Q))
                    said = batch_response(rate, replicas, work_of(pool)), response_of(pool, replicas, rate)
                    even, planned = ((one.mean_response / mean - 1.0, one.quantile(Q) / p95 - 1.0) for one in said)
                    yield Cell(tokens, slots, replicas, load, held_up(pool), mean, p95, even, planned)


@dataclass(frozen=True)
class Staffed:
    """Replicas by even steps, and those planned; share of the requests in time with each."""

    tokens: Tokens
    slots: int
    even: int
    planned: int
    within_even: float
    within: float


def staffed() -> Iterator[Staffed]:
    """Rows for a target an eighth above the p95 of a full replica, as the slots of a plan leave it."""
    for tokens in ALL:
        for slots in (4, 8, 32):
            pool = tokens.pool(slots)
            for size in STAFFED:
                rate = STAFFED_LOAD * size * pool.rate
                even, planned = even_replicas_for(pool, rate), replicas_for(pool, rate)
                within = {n: float((tokens.simulated(pool, n, rate) <= pool.target_s).mean()) for n in {even, planned}}
                yield Staffed(tokens, slots, even, planned, within[even], within[planned])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def summary(all_cells: Sequence[Cell]) -> str:
    rows = []
    for tokens in ALL:
        mine = [one for one in all_cells if one.tokens == tokens]
        for replicas in REPLICAS:
            some = [one for one in mine if one.replicas == replicas]
            rows.append([tokens.name, str(replicas), *(_errors([which(one) for one in some]) for which in WHICH)])
    return table(["tokens", "replicas", "even, p95", "planned, p95", "even, mean", "planned, mean"], rows)


WHICH: tuple[Callable[[Cell], float], ...] = (
    lambda c: c.even[1], lambda c: c.planned[1], lambda c: c.even[0], lambda c: c.planned[0],
)  # fmt: skip


def _errors(some: Sequence[float]) -> str:
    return f"{min(some):+.0%} to {max(some):+.0%}"


def page(all_cells: Sequence[Cell], all_staffed: Sequence[Staffed], machine: str) -> str:
    touched = [one for one in all_cells if one.held_up]
    close = {
        name: [abs(which(one)) for one in touched] for name, which in zip(("even", "planned"), WHICH, strict=False)
    }
    share = "; ".join(
        f"{name} {np.mean(np.array(errors) <= 0.05):.0%} within 5%, {np.mean(np.array(errors) <= 0.1):.0%} within 10%, "
        f"at most {max(errors):.0%}"
        for name, errors in close.items()
    )
    every = table(
        ["tokens", "slots", "replicas", "load", "mean, s", "p95, s", "even", "planned"],
        [
            [c.tokens.name, str(c.slots), str(c.replicas), f"{c.load:g}", f"{c.mean:.2f}", f"{c.p95:.2f}",
             f"{c.even[0]:+.0%}, {c.even[1]:+.0%}", f"{c.planned[0]:+.0%}, {c.planned[1]:+.0%}"]
            for c in all_cells
        ],
    )  # fmt: skip
    replicas = table(
        ["tokens", "slots", "replicas, even", "in time", "replicas, planned", "in time"],
        [
            [s.tokens.name, str(s.slots), str(s.even), f"{s.within_even:.1%}", str(s.planned), f"{s.within:.1%}"]
            for s in all_staffed
        ],
    )
    return f"""# Plans for long prompts

Made by `python -m bench.prediction.long_prompts` on {machine}.
A prompt is read in one step, in which no other response continues.
`even` spreads that over the steps of its request (`batch_response`); `planned` is the plan's
(`queueing.prompt_response` where `plan.pool_sizing.held_up`, else the same as `even`).
Compared with a token-level simulation: an 8B model on an A100 (11.2 ms per step, 103 us per prompt token), Poisson
arrivals, {REQUESTS:,} requests, loads of {", ".join(f"{x:g}" for x in LOADS)}, 8 and 32 slots.

p95 of the {len(touched)} pools whose prompts delay responses: {share}.

## Errors of p95 and mean, lowest to highest

{summary(all_cells)}

## Replicas

For a target an eighth above the p95 of a full replica, at a rate that {", ".join(map(str, STAFFED))} replicas
carry at a load of {STAFFED_LOAD:g}: replicas planned for 95% in time, and the share of the simulated
requests in time.

{replicas}

## Every pool

Errors of mean, p95.

{every}
"""


def main() -> None:
    began = time.perf_counter()
    found, replicas = list(cells()), list(staffed())
    seconds = f"{time.perf_counter() - began:.0f} s"
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {seconds}"
    text = page(found, replicas, machine)
    PAGE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
