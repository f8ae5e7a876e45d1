"""When nothing is feasible: the smallest change of the file that makes a plan possible.

The soft bounds are `replicas.max` and `network.downlink` of each tier, the caps, and the target of the response time.
Changes are compared by |after - before| / before, and are found with the planner itself, since slots and curves change
with target and downlink and no linear slack would show:

    one field     each alone is stretched as little as is enough: a cap by minimising what it bounds without it, the
                  others by bisection (whole numbers; the target in steps of 5%; the downlink to 1%)
    several       where no field alone is enough, all are stretched by one factor, the smallest that is enough; then
                  those that need no stretching are put back, and the rest is made as small as it can be

Every change that is returned has been solved with. No quality is asked of models by the file, so none is relaxed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tierserve.api.units import BitRate, Duration, Mass, Power
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.objective import Caps
from tierserve.plan.allocation.candidates import groups_of
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.program import caps_of
from tierserve.plan.allocation.types import CAP_NAMES, Change, Infeasible

_MOST_REPLICAS = 100_000  # what the file allows
_TARGET_STEP, _DOWNLINK_STEP, _FACTOR_STEP, _CAP_STEP = 1.05, 1.01, 1.1, 1.001
_LONGEST, _WIDEST, _LARGEST_FACTOR = 20.0, 1e4, 1e4
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Soft:
    """A bound that may be stretched.

    Attributes:
        path: of the field.
        before: its value in base units.
        most: the largest value tried.
        put: the service with another value there.
        show: the value as the file writes it.
        ladder: the k-th value above `before`, k >= 1.
        at_least: the smallest value on the ladder's grid that is not below a number.
        measure: what a cap bounds: cost, energy or carbon; empty for other fields.
    """

    path: str
    before: float
    most: float
    put: Callable[[GenAIDeployment, float], GenAIDeployment]
    show: Callable[[float], str]
    ladder: Callable[[int], float]
    at_least: Callable[[float], float]
    measure: str = ""

    def relative(self, after: float) -> float:
        """How far `after` is from the value now, in parts of it."""
        return abs(after - self.before) / (self.before or 1.0)

    def change(self, after: float) -> Change:
        """The change in words."""
        old, new = self.show(self.before), self.show(after)
        return Change(self.path, old, new, self.relative(after), f"raise {self.path} from {old} to {new}")


def advise(gaid: GenAIDeployment, rate: float, *, bursty: bool = True) -> Infeasible:
    """Return why nothing is feasible, and the smallest change that makes a plan possible."""

    def works(changed: GenAIDeployment) -> bool:
        return find(changed, rate, bursty=bursty) is not None

    soft = soft_bounds(gaid)
    made = _single(gaid, rate, soft, works, bursty=bursty) or _several(gaid, soft, works)
    changed = _put(gaid, made) if made else None
    return Infeasible(rate, _reason(gaid, rate), tuple(one.change(after) for one, after in made), changed)


def soft_bounds(gaid: GenAIDeployment) -> list[Soft]:
    """Return the bounds that may be stretched: caps, replicas.max and downlink by tier, and the target."""
    out = [_cap(name, before) for name, before in caps_of(gaid).items()]
    for index, tier in enumerate(gaid.spec.tiers):
        out += [_replicas(index, tier.max_replicas), _downlink(index, tier.downlink_bps)]
    return [*out, _target(gaid.spec.objective.response_time.target.value)]


def _single(
    gaid: GenAIDeployment,
    rate: float,
    soft: Sequence[Soft],
    works: Callable[[GenAIDeployment], bool],
    *,
    bursty: bool,
) -> list[tuple[Soft, float]]:
    best: list[tuple[Soft, float]] = []
    for one in soft:
        limit = best[0][0].relative(best[0][1]) if best else math.inf
        after = _least_cap(gaid, rate, one, works, bursty=bursty) if one.measure else _least(gaid, one, limit, works)
        if after is not None and one.relative(after) < limit:
            best = [(one, after)]
    return best


def _least(gaid: GenAIDeployment, one: Soft, limit: float, works: Callable[[GenAIDeployment], bool]) -> float | None:
    """The first rung of the ladder that is enough and changes less than `limit`; None where there is none."""

    def good(k: int) -> bool:
        return works(one.put(gaid, one.ladder(k)))

    def within(k: int) -> bool:
        return one.ladder(k) <= one.most and one.relative(one.ladder(k)) < limit

    low, high = 0, 1
    if not within(high):
        return None
    while not good(high):
        low = high
        high *= 4
        if not within(high):
            high = _last(within, low, high)
            if high == low or not good(high):
                return None
            break
    return one.ladder(_bisect(good, low, high))


def _least_cap(
    gaid: GenAIDeployment, rate: float, one: Soft, works: Callable[[GenAIDeployment], bool], *, bursty: bool
) -> float | None:
    """The smallest cap: the least that can be had of what it bounds, the cap being taken away."""
    objective = gaid.spec.objective.model_copy(
        update={"optimize": gaid.spec.objective.optimize.model_copy(update={"by": one.measure})}
    )
    free = one.put(gaid.model_copy(update={"spec": gaid.spec.model_copy(update={"objective": objective})}), math.inf)
    found = find(free, rate, bursty=bursty)
    if found is None:
        return None
    after = one.at_least(found.value * (1.0 + 1e-8))
    for _ in range(20):  # the passes may differ a little with the cap in place
        if works(one.put(gaid, after)):
            return after
        after = one.at_least(after * _CAP_STEP)
    return None


def _several(
    gaid: GenAIDeployment, soft: Sequence[Soft], works: Callable[[GenAIDeployment], bool]
) -> list[tuple[Soft, float]]:
    some = list(soft)
    factor = _factor(gaid, some, works)
    if factor is None:
        return []
    for one in soft:
        rest = [other for other in some if other is not one]
        if works(_put(gaid, _stretched(rest, factor))):
            some = rest
    factor = _factor(gaid, some, works) or factor
    made = _stretched(some, factor)
    for at, (one, after) in enumerate(made):  # the factor rounds whole numbers up: take back what is not needed
        others = _put(gaid, [pair for pair in made if pair[0] is not one])
        least = _least(others, one, one.relative(after), works)
        made[at] = (one, after if least is None else least)
    return made


def _factor(gaid: GenAIDeployment, soft: Sequence[Soft], works: Callable[[GenAIDeployment], bool]) -> float | None:
    """The smallest factor, in steps of 10%, by which all must be stretched."""

    def good(k: int) -> bool:
        return works(_put(gaid, _stretched(soft, _FACTOR_STEP**k)))

    last = math.floor(math.log(_LARGEST_FACTOR, _FACTOR_STEP))
    high = 1
    while not good(high):
        if high == last:
            return None
        high = min(2 * high, last)
    return float(_FACTOR_STEP ** _bisect(good, high // 2, high))


def _stretched(soft: Sequence[Soft], factor: float) -> list[tuple[Soft, float]]:
    return [(one, min(one.at_least((one.before or 1.0) * factor), one.most)) for one in soft]


def _put(gaid: GenAIDeployment, made: Sequence[tuple[Soft, float]]) -> GenAIDeployment:
    for one, after in made:
        gaid = one.put(gaid, after)
    return gaid


def _bisect(good: Callable[[int], bool], low: int, high: int) -> int:
    """Least whole number in low + 1 .. high that is good; `high` is."""
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (low, mid) if good(mid) else (mid, high)
    return high


def _last(within: Callable[[int], bool], low: int, high: int) -> int:
    """Largest whole number that is within; `low` is or is 0, `high` is not."""
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (mid, high) if within(mid) else (low, mid)
    return low


def _reason(gaid: GenAIDeployment, rate: float) -> str:
    reached = {name for group in groups_of(gaid) for option in group.options for name in option.uses}
    lost = [one.name for one in gaid.spec.traffic if one.share > 0 and rate > 0 and one.name not in reached]
    if lost:
        return f"no tier that may see class {lost[0]} has a model that answers it within the target"
    caps = f" under the caps {', '.join(CAP_NAMES[name] for name in caps_of(gaid))}" if caps_of(gaid) else ""
    shown = f"{rate:.4g}" if rate < 1e4 else f"{rate:,.0f}"
    return f"{shown} requests per second cannot be served within the target by the replicas allowed{caps}"


def _replicas(index: int, before: int) -> Soft:
    def put(gaid: GenAIDeployment, after: float) -> GenAIDeployment:
        tier = gaid.spec.tiers[index]
        return _tier(gaid, index, "replicas", tier.replicas.model_copy(update={"max": int(after)}))

    return Soft(
        path=f"spec.tiers[{index}].replicas.max",
        before=before,
        most=_MOST_REPLICAS,
        put=put,
        show=lambda value: str(int(value)),
        ladder=lambda k: before + k,
        at_least=math.ceil,
    )


def _downlink(index: int, before: float) -> Soft:
    def put(gaid: GenAIDeployment, after: float) -> GenAIDeployment:
        network = gaid.spec.tiers[index].network.model_copy(update={"downlink": BitRate(_bits(after))})
        return _tier(gaid, index, "network", network)

    return Soft(
        path=f"spec.tiers[{index}].network.downlink",
        before=before,
        most=before * _WIDEST,
        put=put,
        show=_bits,
        ladder=lambda k: _up(before * _DOWNLINK_STEP**k),
        at_least=_up,
    )


def _target(before: float) -> Soft:
    def put(gaid: GenAIDeployment, after: float) -> GenAIDeployment:
        objective = gaid.spec.objective
        response = objective.response_time.model_copy(update={"target": Duration(_milliseconds(after))})
        return _spec(gaid, "objective", objective.model_copy(update={"response_time": response}))

    return Soft(
        path="spec.objective.responseTime.target",
        before=before,
        most=before * _LONGEST,
        put=put,
        show=_milliseconds,
        ladder=lambda k: _up(before * _TARGET_STEP**k),
        at_least=_up,
    )


def _cap(measure: str, before: float) -> Soft:
    field, path, suffix = {
        "cost": ("cost_per_hour", "costPerHour", ""),
        "energy": ("power", "power", "W"),
        "carbon": ("carbon_per_hour", "carbonPerHour", "g"),
    }[measure]

    def show(value: float) -> str:
        return f"{_plain(value)}{suffix}"

    def typed(value: float) -> float | Power | Mass:
        return Power(show(value)) if suffix == "W" else Mass(show(value)) if suffix else value

    def put(gaid: GenAIDeployment, after: float) -> GenAIDeployment:
        caps = gaid.spec.objective.caps or Caps()
        value = typed(after) if math.isfinite(after) else None
        caps = caps.model_copy(update={field: value})
        return _spec(gaid, "objective", gaid.spec.objective.model_copy(update={"caps": caps}))

    return Soft(
        path=f"spec.objective.caps.{path}",
        before=before,
        most=math.inf,
        put=put,
        show=show,
        ladder=lambda k: _up((before or 1.0) * _CAP_STEP**k),
        at_least=_up,
        measure=measure,
    )


def _tier(gaid: GenAIDeployment, index: int, field: str, value: object) -> GenAIDeployment:
    tiers = list(gaid.spec.tiers)
    tiers[index] = tiers[index].model_copy(update={field: value})
    return _spec(gaid, "tiers", tuple(tiers))


def _spec(gaid: GenAIDeployment, field: str, value: object) -> GenAIDeployment:
    return gaid.model_copy(update={"spec": gaid.spec.model_copy(update={field: value})})


def _up(value: float) -> float:
    """Rounded up to four digits, as people write numbers."""
    if not math.isfinite(value) or value <= 0.0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return float(f"{math.ceil(value / unit * (1 - 1e-12)) * unit:.{_DIGITS}g}")


def _plain(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def _milliseconds(value: float) -> str:
    return f"{_plain(value * 1e3)}ms" if value < 10.0 else f"{_plain(value)}s"


def _bits(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{_plain(value / factor)}{prefix}bit"
    return f"{_plain(value)}bit"
