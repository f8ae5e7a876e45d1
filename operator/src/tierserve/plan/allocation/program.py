"""The allocation as a mixed-integer programme; `plan.allocation.solver` has HiGHS solve it.

For each group of like sites g, option o and level k (replicas R_k .. R_(k+1) - 1, see `plan.allocation.candidates`):

    y(g, o, k)   whole: sites that run o at this level           sum over o, k (and "nothing") = sites of g
    x(g, o, k)   whole: replicas above R_k at these sites        x <= (R_(k+1) - 1 - R_k) y
    q(g, o, j)   rate of class j, as a part of all demand        sum over g, o = share of j
    capacity     sum_j weight(o, j) q + overflow <= sum_k most(k) y + step(k) x

The curve is convex, so no linear inequality bounds it from above without a choice: y is that choice, in place of a
special ordered set. Up to twelve numbers of replicas each is a level and the programme is exact; beyond that a level
takes in several, at the loss of rate that is stated there. Convexity also says that of the sites that run an option all
but one may be taken to have the floor or the ceiling, and where a site may also be idle, nothing or the ceiling. That
keeps twenty like sites from being twenty times the work.

Watts are linear in replicas and in rate, so caps are rows. Latency is network + requests in service / rate (Little);
requests in a batch are a convex function of rate and replicas of degree one and are taken as the highest of its
tangents: below it by 1% at most where a full batch takes twice as long as one request alone, by 5% where ten times.
Waits are left out there, since the target keeps them short; the figures of the answer have them.

Ties go to the higher quality, then to the order of overflow, then to the model named first, by small additions to the
objective: a plan may lose up to a hundredth of the cheapest replica to a better one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.allocation.candidates import Group, Level, Option
from tierserve.queueing._arrays import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

QUALITY = 1e-2
"""Cheapest replicas that a plan may lose to one of higher quality."""
_ORDER, _MODEL, _SPARE = 1e-3, 1e-4, 1e-4
_DUST = 1e-6
_EVEN = 1e-6
_TANGENTS = tuple((k / 10) ** 2.5 for k in range(11))  # parts of the way from one in a batch to a full one
_FLAT = 1e-3  # where steps cost nothing but their tokens, a batch of any size has one rate, and no slope


@dataclass(frozen=True, slots=True)
class Overflow:
    """What comes by blocking.

    Attributes:
        parts: by group that takes it: (group it comes from, class, part of the rate of that class sent there).
        peakedness: by group that takes it, of all that arrives at one of its sites.
    """

    parts: Mapping[int, tuple[tuple[int, str, float], ...]] = field(default_factory=dict)
    peakedness: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An option in use: the replicas of each site that runs it (`room`: work each can take), and rates by class."""

    group: int
    option: int
    replicas: tuple[int, ...]
    room: tuple[float, ...]
    rates: Mapping[str, float]
    overflow: float


@dataclass(slots=True)
class Columns:
    """Where the variables of one option are, and its levels."""

    group: int
    option: int
    one: Option
    levels: tuple[Level, ...]
    sites: dict[int, int] = field(default_factory=dict)
    extra: dict[int, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    busy: int = -1
    overflow: int = -1


@dataclass(frozen=True, slots=True)
class Programme:
    """min (main + ties) x with low <= matrix x <= high, 0 <= x <= upper, and x whole where `whole` says so.

    Attributes:
        blocks: where the variables of each option are.
        unit: requests per second that a rate of 1 stands for.
        upper, whole: shape (n,).
        matrix: sparse, shape (m, n).
        low, high: shape (m,).
        main: what is minimised, in cheapest replicas, shape (n,).
        ties: what decides between plans that are as good, shape (n,).
    """

    blocks: tuple[Columns, ...]
    unit: float
    upper: Array
    whole: Array
    matrix: csr_matrix
    low: Array
    high: Array
    main: Array
    ties: Array

    @property
    def goal(self) -> Array:
        """What is minimised, with what decides ties."""
        return self.main + self.ties


class _Model:
    """Columns and rows as they are gathered."""

    def __init__(self) -> None:
        self.upper: list[float] = []
        self.whole: list[int] = []
        self.rows: list[tuple[dict[int, float], float, float]] = []

    def column(self, upper: float, *, whole: bool = False) -> int:
        self.upper.append(upper)
        self.whole.append(int(whole))
        return len(self.upper) - 1

    def row(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append((terms, low, high))


def programme(gaid: GenAIDeployment, groups: Sequence[Group], rate: float, inflow: Overflow) -> Programme | None:
    """Return the programme for `rate` requests per second; None where a class that is asked for may go nowhere."""
    from scipy.sparse import csr_matrix  # with HiGHS half a second to import

    model = _Model()
    unit = rate if rate > 0.0 else 1.0
    blocks = [
        _columns(model, groups, (g, o), inflow) for g, group in enumerate(groups) for o in range(len(group.options))
    ]
    _sites(model, groups, blocks)
    if not _demand(model, gaid, blocks, 1.0 if rate > 0.0 else 0.0):
        return None
    for block in blocks:
        _capacity(model, block, unit)
    _inflow(model, blocks, inflow)
    measures = {name: _measure(groups, blocks, unit, name, len(model.upper)) for name in ("cost", "energy", "carbon")}
    _caps(model, gaid, measures)
    main = _main(gaid, groups, blocks, measures=measures, model=model, unit=unit)
    terms = [row[0] for row in model.rows]
    data = np.array([value for row in terms for value in row.values()])
    where = np.array([at for row in terms for at in row])
    starts = np.cumsum([0, *(len(row) for row in terms)])
    return Programme(
        blocks=tuple(blocks),
        unit=unit,
        upper=np.array(model.upper),
        whole=np.array(model.whole, dtype=bool),
        matrix=csr_matrix((data, where, starts), shape=(len(terms), len(model.upper))),
        low=np.array([row[1] for row in model.rows]),
        high=np.array([row[2] for row in model.rows]),
        main=main,
        ties=_ties(gaid, groups, blocks, len(model.upper)),
    )


def _columns(model: _Model, groups: Sequence[Group], at: tuple[int, int], inflow: Overflow) -> Columns:
    g, o = at
    group, one = groups[g], groups[g].options[o]
    block = Columns(g, o, one, one.levels(inflow.peakedness.get(g, 1.0)))
    count, between = len(group.sites), _between(group, block.levels)
    for k, level in enumerate(block.levels):
        block.sites[k] = model.column(1 if k in between else count, whole=True)
        if level.span > 1:
            block.extra[k] = model.column(count * (level.span - 1), whole=True)
            model.row({block.extra[k]: 1.0, block.sites[k]: 1.0 - level.span}, -math.inf, 0.0)
    if count > 1 and len(between) > 1:
        model.row({block.sites[k]: 1.0 for k in between}, 0.0, 1.0)
    for name in one.uses:
        block.classes[name] = model.column(1.0)
    block.busy = model.column(math.inf)
    if g in inflow.parts:
        block.overflow = model.column(math.inf)
    return block


def _between(group: Group, levels: Sequence[Level]) -> range:
    """Levels at which no two sites of an option need be; empty where the curve does not rise ever faster.

    Where each replica adds at least what the one before it added, one more at the larger of two sites and one less at
    the smaller loses nothing. So all sites but one may be taken to have the floor or the ceiling: far fewer plans to
    look at. Where a site may be idle and its first replica adds no more than the second, nothing is the floor.
    """
    added = [(b.most - a.most) / (b.replicas - a.replicas) for a, b in pairwise(levels)]
    if levels[0].span > 1 or any(a > b * (1.0 + _EVEN) for a, b in pairwise(added)):
        return range(0)
    from_nothing = group.idle and added and levels[0].most <= added[0] * levels[0].replicas * (1.0 + _EVEN)
    return range(0 if from_nothing else 1, len(levels) - 1)


def _sites(model: _Model, groups: Sequence[Group], blocks: Sequence[Columns]) -> None:
    """Every site runs one option, or nothing where it may."""
    for g, group in enumerate(groups):
        terms = {at: 1.0 for block in blocks if block.group == g for at in block.sites.values()}
        model.row(terms, 0.0 if group.idle else len(group.sites), len(group.sites))


def _demand(model: _Model, gaid: GenAIDeployment, blocks: Sequence[Columns], scale: float) -> bool:
    total = sum(one.share for one in gaid.spec.traffic) or 1.0
    for traffic in gaid.spec.traffic:
        terms = {block.classes[traffic.name]: 1.0 for block in blocks if traffic.name in block.classes}
        share = scale * traffic.share / total
        if share > 0.0 and not terms:
            return False
        if terms:
            model.row(terms, share, share)
    return True


def _replicas(block: Columns) -> dict[int, float]:
    """Coefficients of the replicas that an option takes."""
    terms = {at: float(block.levels[k].replicas) for k, at in block.sites.items()}
    return {**terms, **dict.fromkeys(block.extra.values(), 1.0)}


def _capacity(model: _Model, block: Columns, unit: float) -> None:
    terms = {block.classes[name]: use.weight for name, use in block.one.uses.items()}
    if block.overflow >= 0:
        terms[block.overflow] = 1.0
    for k, level in enumerate(block.levels):
        terms[block.sites[k]] = -level.most / unit
        if k in block.extra:
            terms[block.extra[k]] = -level.step / unit
    model.row(terms, -math.inf, 0.0)


def _inflow(model: _Model, blocks: Sequence[Columns], inflow: Overflow) -> None:
    """What overflows into a group is shared by its options; its work is that of the option where it is dearest."""
    for g, parts in inflow.parts.items():
        takers = [block for block in blocks if block.group == g]
        terms = dict.fromkeys((block.overflow for block in takers), 1.0)
        for source, name, part in parts:
            weight = max(block.one.uses[name].weight for block in takers if name in block.one.uses)
            for block in blocks:
                if block.group == source and name in block.classes:
                    terms[block.classes[name]] = terms.get(block.classes[name], 0.0) - part * weight
        model.row(terms, 0.0, math.inf)


def _measure(groups: Sequence[Group], blocks: Sequence[Columns], unit: float, name: str, size: int) -> Array:
    """Coefficients of money per hour, watts or grams per hour."""
    out = np.zeros(size)
    for block in blocks:
        tier = groups[block.group].tier
        hardware = tier.hardware
        each, more = hardware.price, 0.0
        if name != "cost":
            grams = tier.carbon_g_per_kwh / 1e3 if name == "carbon" else 1.0
            grams *= tier.pue
            # Linear in the utilisation: a measured curve (power.halfBatch) is concave there, and counted afterwards.
            each, more = hardware.idle_w * grams, (hardware.max_w - hardware.idle_w) * grams
        for at, count in _replicas(block).items():
            out[at] = count * each * hardware.per_replica
        for at, work in _work(block).items():
            out[at] = work * more * hardware.per_replica * unit / block.one.placement.rate
    return out


def _work(block: Columns) -> dict[int, float]:
    """Coefficients of the mean requests per unit of demand that an option serves."""
    terms = {block.classes[name]: use.weight for name, use in block.one.uses.items()}
    return {**terms, block.overflow: 1.0} if block.overflow >= 0 else terms


def _caps(model: _Model, gaid: GenAIDeployment, measures: Mapping[str, Array]) -> None:
    for name, cap in caps_of(gaid).items():
        terms = {int(at): float(measures[name][at]) for at in np.flatnonzero(measures[name])}
        model.row(terms, -math.inf, cap * (1.0 - 1e-9))


def caps_of(gaid: GenAIDeployment) -> dict[str, float]:
    """Caps by what they bound: cost (per hour), energy (watts) and carbon (grams per hour)."""
    caps = gaid.spec.objective.caps
    if caps is None:
        return {}
    given = {
        "cost": caps.cost_per_hour,
        "energy": caps.power.value if caps.power else None,
        "carbon": caps.carbon_per_hour.value if caps.carbon_per_hour else None,
    }
    return {name: cap for name, cap in given.items() if cap is not None}


def _main(
    gaid: GenAIDeployment,
    groups: Sequence[Group],
    blocks: Sequence[Columns],
    *,
    unit: float,
    measures: Mapping[str, Array],
    model: _Model,
) -> Array:
    kind = gaid.spec.objective.optimize.by
    size = len(model.upper)
    if kind == "latency":
        goal = _latency(model, blocks, unit, size)
        scale = gaid.spec.objective.response_time.target.value
        price = measures["cost"]
        goal = goal + price * (_MODEL * scale / max(_dearest(groups, blocks, price), 1e-9))
    else:
        goal = measures[kind].copy()
        single = [goal[at] / block.levels[k].replicas for block in blocks for k, at in block.sites.items()]
        scale = min((value for value in single if value > 0.0), default=1.0)
    return goal / scale  # in replicas: the solver's tolerances are absolute


def _dearest(groups: Sequence[Group], blocks: Sequence[Columns], price: Array) -> float:
    """What all levels of all options would cost at all sites: more than any plan does."""
    return sum(
        len(groups[block.group].sites)
        * (
            sum(float(price[at]) for at in block.sites.values())
            + sum(float(price[at]) * (block.levels[k].span - 1) for k, at in block.extra.items())
        )
        for block in blocks
    )


def _ties(gaid: GenAIDeployment, groups: Sequence[Group], blocks: Sequence[Columns], size: int) -> Array:
    out = np.zeros(size)
    order = {one.name: [tier.name for tier in gaid.tiers_for(one)] for one in gaid.spec.traffic}
    for block in blocks:
        group = groups[block.group]
        named = gaid.models_of(group.tier).index(block.one.model)
        worse = QUALITY * (1.0 - (block.one.model.quality or 0.0)) + _MODEL * named / 16
        for name, at in block.classes.items():
            out[at] = worse + _ORDER * order[name].index(group.tier.name) / 16
        for at, count in _replicas(block).items():
            out[at] = _SPARE * count / max(group.tier.max_replicas, 1) / len(group.sites)
    return out


def _latency(model: _Model, blocks: Sequence[Columns], unit: float, size: int) -> Array:
    """Mean seconds of a request: its network, and by Little the requests in batches over the rate."""
    goal = np.zeros(size)
    for block in blocks:
        for name, at in block.classes.items():
            goal[at] = block.one.uses[name].network_s
        goal[block.busy] = 1.0
        for level, slope in _tangents(block.one):  # busy unit >= level replicas + slope rate, busy per unit of rate
            terms = {at: count * level / unit for at, count in _replicas(block).items()}
            for at, weight in _work(block).items():
                terms[at] = slope * weight
            model.row({**terms, block.busy: -1.0}, -math.inf, 0.0)
    return goal


def _tangents(one: Option) -> list[tuple[float, float]]:
    """(l, s) with requests in service >= l R + s rate for R replicas: n = u T(n), u = rate / R, and u T(1) below 1."""
    place = one.placement
    alone = place.profile.mean_service_time(1.0, place.mixture)
    rise = (place.service_s - alone) / max(place.slots - 1, 1)  # of T with n
    out = [(0.0, alone)]
    if alone - rise < _FLAT * alone:
        return out
    for part in _TANGENTS:
        batch = 1.0 + part * (place.slots - 1)
        time = alone + (batch - 1.0) * rise
        gradient = time * time / (alone - rise)  # dn / du
        out.append((batch - gradient * batch / time, gradient))
    return out


def read(blocks: Sequence[Columns], x: Array, unit: float) -> tuple[Chosen, ...]:
    """Whole numbers from the solver's floats; a trace of rate goes to the pool with the most of its class."""
    out: list[Chosen] = []
    lost: dict[str, float] = {}
    whole: dict[str, float] = {}
    for block in blocks:
        for name, at in block.classes.items():
            whole[name] = whole.get(name, 0.0) + float(x[at]) * unit
    for block in blocks:
        replicas: list[int] = []
        room: list[float] = []
        for k, at in block.sites.items():
            level, count = block.levels[k], round(float(x[at]))
            extra = round(float(x[block.extra[k]])) if k in block.extra else 0
            more = [extra // count + (s < extra % count) for s in range(count)] if count else []
            replicas += [level.replicas + one for one in more]
            room += [level.most + level.step * one for one in more]
        rates = {name: float(x[at]) * unit for name, at in block.classes.items()}
        if not replicas:
            for name, part in rates.items():
                lost[name] = lost.get(name, 0.0) + part
            continue
        over = float(x[block.overflow]) * unit if block.overflow >= 0 else 0.0
        pairs = sorted(zip(replicas, room, strict=True), reverse=True)
        kept = {name: part for name, part in rates.items() if part > _DUST * whole[name]}
        for name, part in rates.items():
            if name not in kept:
                lost[name] = lost.get(name, 0.0) + part
        out.append(
            Chosen(block.group, block.option, tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), kept, over)
        )
    return tuple(_with(one, out, lost) for one in out)


def _with(one: Chosen, all_of: Sequence[Chosen], lost: Mapping[str, float]) -> Chosen:
    rates = dict(one.rates)
    for name, part in lost.items():
        biggest = max(all_of, key=lambda other: other.rates.get(name, 0.0))
        if biggest is one and name in rates:
            rates[name] += part
    return Chosen(one.group, one.option, one.replicas, one.room, rates, one.overflow)


def mean_work(one: Option, rates: Mapping[str, float]) -> float:
    """Mean requests per second that `rates` by class amount to."""
    return sum(one.uses[name].weight * part for name, part in rates.items())
