"""`tierserve plan --trace --confirm`: pools simulated token by token until the least number of replicas is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tierserve.cli.errors import UserError
from tierserve.cli.plan.table import fitted, ms
from tierserve.plan.placement import Placement
from tierserve.plan.trace.replay import ReplayResult
from tierserve.plan.trace.search import SearchResult, Seen, most_of_use, search, seen_of
from tierserve.simulate.types import Objective, Pool, Workload

MANY = 1_000_000
"""Requests that are simulated without being told to: some ten seconds a run."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the simulations of a pool found, and the seconds that they took."""

    found: SearchResult
    seconds: float


def way_to(work: Workload, confirm: bool | None) -> str:
    """Return what the user may do to have the trace simulated, in words; "" where it is going to be.

    Args:
        work: the trace.
        confirm: as given; None: where it takes seconds and can be done.
    """
    if confirm is False:
        return "leave out --no-confirm, and simulations find the number"
    if find_spec("numba") is None:
        if confirm:
            raise UserError(
                "--confirm: numba is not installed", "pip install 'tierserve[simulate]', or leave --confirm out", code=1
            )
        return "pip install 'tierserve[simulate]', and simulations find the number"
    if confirm is None and len(work) > MANY:
        return f"give --confirm, and simulations find the number; {len(work):,} requests take longer than seconds"
    return ""


def simulated(work: Workload, pools: Sequence[ReplayResult], *, show: bool) -> tuple[Simulated, ...]:
    """Look for the least replicas of each pool from the formula's on; pools that differ in their names alone once.

    Args:
        work: the trace.
        pools: what the formula says of each.
        show: whether to draw a bar, on a terminal.
    """
    with Progress(console=Console(stderr=True), transient=True, disable=not show) as bar:
        task = bar.add_task("", total=work.length_s)

        def began(one: Placement, replicas: int) -> None:
            bar.reset(task, description=f"{one.tier}, {replicas:,} replicas simulated", total=work.length_s)

        @lru_cache
        def of(nameless: Placement, start: int | None) -> Simulated:
            begin = time.perf_counter()
            found = _search(
                nameless, work, start, lambda r: began(nameless, r), lambda t: bar.update(task, completed=t)
            )
            return Simulated(found, time.perf_counter() - begin)

        return tuple(of(replace(one.placement, site=""), one.needed) for one in pools)


def _search(
    one: Placement,
    work: Workload,
    start: int | None,
    began: Callable[[int], None],
    progress: Callable[[float], None],
) -> SearchResult:
    def at(replicas: int) -> Seen:
        began(replicas)
        return _run(one, work, replicas, progress)

    most = most_of_use(one.profile, work.times_s, work.input_tokens, work.output_tokens)
    return search(at, start, most, min_replicas=one.min_replicas, max_replicas=one.max_replicas)


def _run(one: Placement, work: Workload, replicas: int, progress: Callable[[float], None]) -> Seen:
    """So many replicas behind one queue, all there from the start."""
    from tierserve.simulate.cluster import Setup
    from tierserve.simulate.policies.static import Static
    from tierserve.simulate.run import simulate

    goal = Objective(one.target_s, percentile=one.percentile)
    pool = Pool(one.profile, one.slots, 0.0, goal, one.input_tokens, one.output_tokens, max_replicas=replicas)
    run = simulate(work, pool, Static(pool, replicas), Setup(initial=replicas), progress=progress)
    return seen_of(one, run.response_s)


def judged(one: ReplayResult, by: Simulated) -> ReplayResult:
    """Return the pool with need, replicas and p95 of the simulation in place of the formula's."""
    found = by.found
    return replace(
        one,
        needed=found.needed,
        replicas=found.replicas,
        meets=found.seen.meets,
        response_s=found.seen.response_s,
        within=found.seen.within,
    )


def table(out: Console, percentile: float, pools: Sequence[ReplayResult], by: Sequence[Simulated]) -> Table:
    """Return what the formula and the simulations found, a row per pool."""
    p = f"p{percentile:g}"
    heads = (
        "tier/site", "needed,\nby formula", "confirmed", f"{p}\nms", "within", f"one fewer:\n{p}, ms", "\nwithin",
        "replicas\nof max", "runs", "time\ns",
    )  # fmt: skip
    return fitted(out, heads, [_row(one, each) for one, each in zip(pools, by, strict=True)])


def _row(one: ReplayResult, by: Simulated) -> tuple[str, ...]:
    found, place = by.found, one.placement
    return (
        f"{place.tier}/{place.site}",
        number(one.needed),
        number(found.needed),
        *_seen(found.at),
        *(("-", "-") if found.fewer is None else _seen(found.fewer)),
        f"{found.replicas}/{place.max_replicas}",
        f"{found.runs}",
        f"{by.seconds:.1f}",
    )


def _seen(one: Seen) -> tuple[str, str]:
    return ms(one.response_s) if one.meets else f"[red]{ms(one.response_s)}[/red]", f"{one.within:.2%}"


def number(replicas: int | None) -> str:
    """Return the number, or that there is none, in words."""
    return "none do" if replicas is None else f"{replicas:,}"


def sentences(pools: Sequence[ReplayResult], by: Sequence[Simulated]) -> Iterator[str]:
    """Yield what "confirmed" is worth."""
    yield (
        '"confirmed": the least replicas that keep the target in a simulation of every token, all there from the '
        "start. It is as good as the profile, and of this trace. The table above it is the formula's."
    )
    if any(each.found.needed is None for each in by):
        yield '"none do": the figures beside it are those of requests that each have a replica to themselves.'
    if len(pools) > 1:
        yield "Pools that differ in their names alone are simulated once."
