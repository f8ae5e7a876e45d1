"""The programme of an allocation solved by HiGHS (through scipy.optimize.milp), in steps that each take little.

Most of the time would go to proving that no plan of the same cost serves a little more in a better variant. So:

1.  What is minimised, without what decides ties, and without the options that another of the same sites outdoes: it
    takes more of every class with as many replicas, for no more watts. What is left is a few variables. The bound that
    is proven for it holds for every plan, and its plan is one of those to choose from.
2.  The whole programme between that bound and that plan. Its answer is the one without these two rows.
3.  The programme with overflow asks for more and can do less than that without. If the whole numbers of the first
    answer bear the overflow at the value that was proven for it, nothing can be better. Else it is solved from there.

Mean response is minimised in one step: no option outdoes another at it, and ties are rare. HiGHS is kept from
heuristics that take longer here than all the rest; a scipy whose HiGHS has none of them leaves the options out.

Nothing is lost by it: values are those of the whole programme solved at once, within its gap of 1e-7
(tests/unit/plan/allocation/test_allocation_solve.py). `bench/queueing/allocation.py` times it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.allocation.candidates import Group
from tierserve.plan.allocation.program import QUALITY, Chosen, Columns, Overflow, Programme, programme, read
from tierserve.queueing._arrays import Array

GAP = 1e-7
"""Relative, to which the value is proven."""
_SLACK = 1e-7  # of rows that only say what is known, beside the tolerance of the solver
_OPTIONS = {
    "mip_rel_gap": GAP,
    "time_limit": 20.0,
    # more than half of the time of so small a programme, for a first plan that is far from the best
    "mip_heuristic_run_feasibility_jump": False,
}
_NO_PLANS_NEARBY = {"mip_heuristic_run_rins": False, "mip_heuristic_run_rens": False}


@dataclass(frozen=True, slots=True)
class Solution:
    """A plan and what is proven of it.

    Attributes:
        chosen: the options in use.
        value: of the objective with what decides ties, in cheapest replicas.
        gap: by how much `value` may miss the best (relative; 0 where proven within `GAP`).
        least_main, least: no plan has less, without and with what decides ties.
        made: the programme.
        x: its variables.
    """

    chosen: tuple[Chosen, ...]
    value: float
    gap: float
    least_main: float
    least: float
    made: Programme
    x: Array


def solve(
    gaid: GenAIDeployment,
    groups: Sequence[Group],
    rate: float,
    overflow: Overflow | None = None,
    before: Solution | None = None,
) -> Solution | None:
    """Return the best allocation of `rate` requests per second, or None where there is none.

    Args:
        gaid: the service.
        groups: as `groups_of(gaid)` gives them.
        rate: requests per second, >= 0.
        overflow: what comes by blocking, none if left out.
        before: the answer for the same demand without overflow; it saves most of the work.
    """
    made = programme(gaid, groups, rate, overflow or Overflow())
    if made is None:
        return None
    found = _from(made, before) if before is not None and _asks_more(before.made, made) else None
    if found is not None:
        return found
    outdone = _outdone(made) if gaid.spec.objective.optimize.by != "latency" else []
    return _in_steps(made, outdone) if outdone else _best(made)


def _from(made: Programme, before: Solution) -> Solution | None:
    """The best plan if the one without overflow, which cannot be dearer, leads to it at once; else None."""
    low, high = np.zeros(len(made.upper)), made.upper.copy()
    low[made.whole] = high[made.whole] = np.round(before.x[before.made.whole])
    borne = _run(made, made.goal, bounds=(low, high), whole=False)  # the same whole numbers, other rates
    near = before.least_main + 2.0 * QUALITY  # further than ties decide
    if borne.x is not None:
        value = float(made.goal @ borne.x)
        if _over(value, before.least) <= GAP:
            return _solution(made, borne.x, before.least_main, before.least)
        if value > near:
            return None
    if not math.isfinite(near):
        return None
    found = _within(made, before.least_main, near)
    return found if found is not None and found.value <= near else None  # whatever is beyond has more than this


def _in_steps(made: Programme, outdone: Sequence[Columns]) -> Solution | None:
    """First what is best but for ties, of the options that are not outdone; then the whole up to the value of that."""
    upper = made.upper.copy()
    for block in outdone:
        upper[[*block.sites.values(), *block.extra.values(), *block.classes.values()]] = 0.0
    rough = _run(made, made.main, bounds=(np.zeros(len(upper)), upper))
    if rough.x is None:
        return None
    return _within(made, float(rough.mip_dual_bound), float(made.goal @ rough.x)) or _best(made)


def _within(made: Programme, least: float, most: float) -> Solution | None:
    """The best plan of those whose main objective is from `least`, below which there is none, to `most`."""
    slack = _SLACK * (1.0 + abs(most))
    found = _run(made, made.goal, (made.main, least - slack, most + slack))
    return None if found.x is None else _solution(made, found.x, least, float(found.mip_dual_bound))


def _best(made: Programme) -> Solution | None:
    """The whole programme at once. Plans are soon found; to look for more near them would be half of the time."""
    found = _run(made, made.goal, options=_NO_PLANS_NEARBY)
    return None if found.x is None else _solution(made, found.x, -math.inf, float(found.mip_dual_bound))


def _solution(made: Programme, x: Array, least_main: float, least: float) -> Solution:
    value = float(made.goal @ x)
    gap = _over(value, least)
    return Solution(
        chosen=read(made.blocks, x, made.unit),
        value=value,
        gap=gap if gap > GAP else 0.0,
        least_main=least_main,
        least=least,
        made=made,
        x=x,
    )


def _over(value: float, least: float) -> float:
    """By how much a value may miss the best, relative; a trace of rounding is none."""
    over = value - least
    return over / max(abs(value), 1e-9) if over > 1e-9 else 0.0


def _run(
    made: Programme,
    goal: Array,
    row: tuple[Array, float, float] | None = None,
    *,
    bounds: tuple[Array, Array] | None = None,
    whole: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The result of scipy.optimize.milp for a goal; with a row more, other bounds, or no variable asked to be whole."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second to import

    limits = [LinearConstraint(made.matrix, made.low, made.high)]
    if row is not None:
        limits.append(LinearConstraint(*row))
    with warnings.catch_warnings():  # scipy hands on options that it does not know, with a warning
        warnings.simplefilter("ignore")
        return milp(
            goal,
            integrality=made.whole.astype(int) if whole else None,
            bounds=Bounds(*bounds) if bounds is not None else Bounds(0.0, made.upper),
            constraints=limits,
            options={**_OPTIONS, **(options or {})},
        )


def _outdone(made: Programme) -> list[Columns]:
    """Options without which the least of the main objective is the same."""
    out: list[Columns] = []
    left = list(made.blocks)
    for block in made.blocks:
        if any(_outdoes(one, block) for one in left if one.group == block.group and one is not block):
            out.append(block)
            left = [one for one in left if one is not block]
    return out


def _outdoes(one: Columns, other: Columns) -> bool:
    """Return whether what `other` does, `one` does with as many replicas at each site, for no more watts.

    Replicas of a group cost alike, and so do all of them that are idle.
    """
    if not set(other.classes) <= set(one.classes) or not _same_steps(one, other):
        return False
    pairs = [(one.one.uses[name].weight, other.one.uses[name].weight) for name in other.classes]
    pairs += [(1.0, 1.0)] if other.overflow >= 0 else []
    factor = max((mine / its for mine, its in pairs), default=0.0)  # work of `one` over that of `other`, at most
    mine, its = one.one.placement.rate, other.one.placement.rate
    return factor / mine <= 1.0 / its and _takes(one, other, factor)


def _same_steps(one: Columns, other: Columns) -> bool:
    """Return whether two options have the same levels, whatever they take."""
    return [(a.replicas, a.span) for a in one.levels] == [(b.replicas, b.span) for b in other.levels]


def _takes(one: Columns, other: Columns, factor: float) -> bool:
    """Return whether `one` takes at least `factor` of what `other` does, at either end of each of their levels."""
    return all(
        a.most >= factor * b.most and a.most + a.step * (a.span - 1) >= factor * (b.most + b.step * (b.span - 1))
        for a, b in zip(one.levels, other.levels, strict=True)
    )


def _asks_more(fresh: Programme, bursty: Programme) -> bool:
    """Return whether any plan of the programme with overflow is one of that without, at no higher value."""
    pairs = list(zip(fresh.blocks, bursty.blocks, strict=True))
    return all(_same_steps(a, b) and _takes(a, b, 1.0) for a, b in pairs)
