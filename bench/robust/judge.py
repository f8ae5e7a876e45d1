"""One run of a rule on a load, and what it is compared with: the cheapest fixed pool and the oracle, in hindsight."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bench.autoscaling.measure import ROOT, Oracle, rules, with_itl_target, work_of
from bench.robust.loads import Load
from bench.robust.plan import planned
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Floats, Policy

OUT = ROOT / "out" / "robust"
CHEAPEST, ORACLE = "cheapest-fixed", "oracle"
PLANS = {"plan": 1.0, "plan-1.25": 1.25}
"""Fixed pools that are known before the run, as multiples of what the planner gives."""
ORACLE_SHARES = (0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
ORACLE_SMOOTH_S = (15.0, 60.0)
LEAST_IN_MINUTE = 10
"""A minute with fewer requests has no share worth showing."""


@dataclass(frozen=True)
class Row:
    """Results of a rule on the judged part of a load.

    Attributes:
        load, family, rule: names; `digest` identifies the load's definition.
        share: of the requests, those within both targets; `met`: whether that is the objective's percentile.
        gpu_hours: accelerators held.
        reversals: changes of direction of the target, per hour.
        worst_minute: the least share within target in a minute of 10 requests or more; NaN without one.
        cpu_s: processor seconds of the run.
        stationary, daily: as in `Load`.
        replicas: of a fixed pool; 0 otherwise.
    """

    load: str
    family: str
    digest: str
    rule: str
    share: float
    met: bool
    gpu_hours: float
    reversals: float
    worst_minute: float
    cpu_s: float
    stationary: bool
    daily: bool
    replicas: int = 0


def digest(load: Load) -> str:
    """Return what identifies the load's definition."""
    work, hashed = load.workload, hashlib.sha256()
    for array in (work.times_s, work.input_tokens, work.output_tokens):
        hashed.update(np.ascontiguousarray(array).tobytes())
    hashed.update(repr((load.pool, work.length_s, load.judged_from_s, load.judged_to_s)).encode())
    return hashed.hexdigest()[:16]


def initial_replicas(load: Load) -> int:
    """Return the replicas that serve at the start, whatever the rule: 1.3 times the load of the first 5 minutes."""
    early = int((load.workload.times_s < 300.0).sum())
    return max(1, math.ceil(1.3 * early / 300.0 * work_of(load.pool)))


def run_of(load: Load, policy: Policy, initial: int | None = None) -> Result:
    """Return the whole run."""
    start = initial_replicas(load) if initial is None else initial
    return simulate(load.workload, load.pool, policy, Setup(initial=start, seed=1))


def within(load: Load, found: Result) -> np.ndarray:
    """Return which requests kept both targets."""
    goal = load.pool.objective
    good: np.ndarray = (found.response_s <= goal.response_s) & (found.ttft_s <= goal.ttft_s)
    return good


def per_minute(load: Load, found: Result) -> tuple[Floats, Floats]:
    """Return requests that arrived in each minute of the load, and the share of them within target."""
    minutes = math.ceil(load.workload.length_s / 60.0)
    minute = np.minimum((found.arrive_s / 60.0).astype(int), minutes - 1)
    count = np.bincount(minute, minlength=minutes).astype(np.float64)
    good = np.bincount(minute, weights=within(load, found), minlength=minutes)
    return count, good / np.maximum(count, 1.0)


def row_of(load: Load, rule: str, found: Result, cpu_s: float, replicas: int = 0) -> Row:
    """Return the row of a run."""
    begin, end = load.judged_from_s, load.judged_to_s
    judged = found.among(begin, end)
    share = float(within(load, found)[judged].mean()) if judged.any() else 1.0
    count, good = per_minute(load, found)
    minutes = np.arange(count.size) * 60.0
    full = (count >= LEAST_IN_MINUTE) & (minutes >= begin) & (minutes + 60.0 <= end)
    return Row(
        load=load.name,
        family=load.family,
        digest=digest(load),
        rule=rule,
        share=share,
        met=share >= load.pool.objective.percentile / 100.0,
        gpu_hours=found.gpu_hours(begin, end),
        reversals=found.reversals_per_hour(begin, end),
        worst_minute=float(good[full].min()) if full.any() else math.nan,
        cpu_s=cpu_s,
        stationary=load.stationary,
        daily=load.daily,
        replicas=replicas,
    )


def judge(load: Load, policy: Policy, rule: str = "") -> Row:
    """Run a policy on a load and return its row."""
    started = time.process_time()
    found = run_of(load, policy)
    return row_of(load, rule, found, time.process_time() - started)


def policy_of(load: Load, rule: str) -> tuple[Policy, int]:
    """Return the policy of a rule by name and the replicas that it starts with.

    `name` has the rule's published setting, `name=0.7` another one. Rules have a target between tokens too, for those
    that need one. `plan` and `plan-1.25` are fixed pools that start as they are.
    """
    if rule in PLANS:
        replicas = math.ceil(PLANS[rule] * planned(load))
        return Static(load.pool, replicas), replicas
    name, _, value = rule.partition("=")
    one = rules()[name]
    policy = one.make(with_itl_target(load.pool), float(value) if value else one.default)
    return policy, initial_replicas(load)


def judge_rule(load: Load, rule: str) -> Row:
    """Return the row of a rule by name; those in hindsight come from the cache on disk if they are in it."""
    if rule == CHEAPEST:
        return cheapest_fixed(load)
    if rule == ORACLE:
        return oracle(load)
    return run_rule(load, rule)[0]


def run_rule(load: Load, rule: str) -> tuple[Row, Result]:
    """Return the row and the whole run of a rule by name, of those that are not in hindsight."""
    started = time.process_time()
    policy, initial = policy_of(load, rule)
    found = run_of(load, policy, initial)
    cpu_s = time.process_time() - started
    return row_of(load, rule, found, cpu_s, initial if rule in PLANS else 0), found


def fixed(load: Load, replicas: int, rule: str = CHEAPEST) -> Row:
    """Return the row of a pool that never changes."""
    started = time.process_time()
    found = run_of(load, Static(load.pool, replicas), replicas)
    return row_of(load, rule, found, time.process_time() - started, replicas)


def cheapest_fixed(load: Load) -> Row:
    """Return the row of the fewest fixed replicas that meet the objective, in hindsight; the most where none do."""
    return _cached(load, CHEAPEST, lambda: _cheapest(load))


def _cheapest(load: Load) -> Row:
    times, begin, end = load.workload.times_s, load.judged_from_s, load.judged_to_s
    arrived = int(((times >= begin) & (times < end)).sum())
    guess = max(1, math.ceil(arrived / (end - begin) * work_of(load.pool)))
    low, high, best = 0, guess, fixed(load, guess)
    while not best.met and high < load.pool.max_replicas:
        low, high = high, min(math.ceil(1.4 * high), load.pool.max_replicas)
        best = fixed(load, high)
    while best.met and high - low > 1:
        middle = (low + high) // 2
        row = fixed(load, middle)
        if row.met:
            high, best = middle, row
        else:
            low = middle
    return best


def oracle(load: Load) -> Row:
    """Return the row of the cheapest oracle that meets the objective: it has all arrivals and the best of its settings.

    Where none meets it, the row of the one with the largest share.
    """
    return _cached(load, ORACLE, lambda: _oracle(load))


def _oracle(load: Load) -> Row:
    rows: list[Row] = []
    for smooth_s in ORACLE_SMOOTH_S:
        for share in ORACLE_SHARES:  # the first that meets is the cheapest: more replicas cost more
            rows.append(judge(load, Oracle(load.workload, load.pool, share, smooth_s), ORACLE))
            if rows[-1].met:
                break
    good = [row for row in rows if row.met]
    return min(good, key=lambda row: row.gpu_hours) if good else max(rows, key=lambda row: row.share)


def _cached(load: Load, rule: str, make: Callable[[], Row]) -> Row:
    path = OUT / "hindsight" / f"{load.name}-{rule}-{digest(load)}.json"
    if path.exists():
        kept = json.loads(path.read_text())
        # a row of an older form lacks what follows from the load
        known = {"stationary": load.stationary, "daily": load.daily, "cpu_s": kept.pop("wall_s", 0.0)}
        return Row(**known | kept)
    started = time.process_time()
    row = make()
    row = replace(row, cpu_s=time.process_time() - started)  # of all runs of the search
    write(path, json.dumps(asdict(row)))
    return row


def write(path: Path, text: str) -> None:
    """Write a file in one step, so that an interrupted run leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
