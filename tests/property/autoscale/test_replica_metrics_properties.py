"""Samples as columns and one by one lead to the same decisions, and to what one counts sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.autoscale.decide import Observation, ReplicaMetrics, ReplicaSample, Settings, State, decide

pytestmark = pytest.mark.slow  # many examples of many ticks

SETTINGS = Settings(target_s=1.5, service_s=1.0, slots=4)
FORGET_S, MOST = 600.0, 1e12
NAMES = "abcdef"
nonsense = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e13])
odd = st.sampled_from(["stale", "frozen", "restarted", "fell", "nonsense", "silent"])


@st.composite
def told(draw: st.DrawFn) -> list[tuple[float, dict[str, ReplicaSample]]]:
    """What up to six replicas tell: they join, leave and come back in any order, restart, stop and tell nonsense."""
    t, out = 1000.0, []
    live = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    last = {name: ReplicaSample(t, 0.0) for name in NAMES}
    for k in range(draw(st.integers(2, 25))):
        t += draw(st.sampled_from([0.5, 0.5, 0.5, 1.0, 2.0, 0.0, -1.0, 7.0, 650.0]))
        if draw(st.integers(0, 3)) == 0:
            live = draw(st.lists(st.sampled_from(NAMES), unique=True))
        ails = draw(st.dictionaries(st.sampled_from(NAMES), odd, max_size=2))
        now = {}
        for place, name in enumerate(live):
            old, n = last[name], float(k + place)
            new = ReplicaSample(
                t, old.arrivals + n, old.completions + n / 2.0, old.service_s + n, old.service_sq_s2 + 2.0 * n,
                old.gateway_wait_s + n / 8.0, n % 5.0, place / 2.0, (None, 20.0 + n, -1.0)[place % 3],
            )  # fmt: skip
            match ails.get(name):
                case "stale":
                    new = replace(new, t=t - 100.0)
                case "frozen":
                    new = old
                case "restarted":
                    new = ReplicaSample(t, 1.0, 1.0, 0.5, 0.5, 0.0, 1.0)
                case "fell":
                    new = replace(new, service_s=0.0, gateway_wait_s=0.0)
            last[name] = new
            if ails.get(name) == "nonsense":
                figure = draw(st.sampled_from(("t", "arrivals", "service_sq_s2", "waiting", "startup_s")))
                new = replace(new, **{figure: draw(nonsense)})
            if ails.get(name) != "silent":
                now[name] = new
        out.append((t, now))
    return out


def columns(last: ReplicaMetrics | None, replicas: Mapping[str, ReplicaSample]) -> ReplicaMetrics:
    """What an observer fills that keeps the names while they are the same."""
    rows = [[math.nan if v is None else v for v in row] for row in zip(*map(astuple, replicas.values()), strict=True)]
    rows = rows or [[]] * 9
    return (
        last.with_values(rows)
        if last is not None and last.names == tuple(replicas)
        else ReplicaMetrics(list(replicas), rows)
    )


@given(told())
@settings(max_examples=150, deadline=None)
def test_columns_lead_to_the_same_decisions_as_samples_one_by_one(seen):
    by_name, by_column, last = State(), State(), None
    for t, replicas in seen:
        last = columns(last, replicas)
        one = Observation(t, 3, 3, 1, 100, replicas)
        a, by_name = decide(one, by_name, SETTINGS)
        b, by_column = decide(replace(one, replicas=last), by_column, SETTINGS)
        assert a == b
        assert by_name.history.marks == by_column.history.marks


COUNTERS = ("arrivals", "completions", "service_s", "service_sq_s2", "gateway_wait_s")


def believed(s: ReplicaSample, now: float) -> bool:
    return all(0.0 <= v <= MOST for v in astuple(s)[:-1]) and now - s.t <= SETTINGS.stale_after_s


class OneByOne:
    """The same sums, made in the plainest way."""

    def __init__(self) -> None:
        self.kept: dict[str, ReplicaSample] = {}
        self.sums = dict.fromkeys(COUNTERS, 0.0)
        self.began: float | None = None
        self.now = 0.0

    def tell(self, t: float, replicas: Mapping[str, ReplicaSample]) -> None:
        fresh = {name: s for name, s in replicas.items() if believed(s, t)}
        if not fresh or (self.began is not None and t <= self.now):
            return
        if self.began is None:
            self.began = t
        else:
            for name, sample in fresh.items():
                self._count(sample, self.kept.get(name), t, len(replicas) / len(fresh))
        self.kept = {name: s for name, s in (self.kept | fresh).items() if t - s.t < FORGET_S}
        self.now = t

    def _count(self, sample: ReplicaSample, before: ReplicaSample | None, t: float, missing: float) -> None:
        stale = SETTINGS.stale_after_s
        if before is None and t - self.began <= stale:
            return
        gap = sample.t - before.t if before else 0.0
        share = min(1.0, (t - self.now) / gap) if gap > stale else 1.0
        if before is None or sample.arrivals < before.arrivals or sample.completions < before.completions:
            before = ReplicaSample(0.0, 0.0)
        for name in COUNTERS:
            new = max(getattr(sample, name) - getattr(before, name), 0.0) * share
            self.sums[name] += new * (missing if name == "arrivals" else 1.0)


@given(told())
@settings(max_examples=150, deadline=None)
def test_what_columns_count_is_what_one_counts_sample_by_sample(seen):
    state, plain, last = State(), OneByOne(), None
    for t, replicas in seen:
        last = columns(last, replicas)
        _, state = decide(Observation(t, 3, 3, 1, 100, last), state, SETTINGS)
        plain.tell(t, replicas)
        counted = state.history.marks[-1] if state.history.marks else None
        found = {name: getattr(counted, name, 0.0) for name in COUNTERS}
        assert found == pytest.approx(plain.sums, rel=1e-9, abs=1e-9)
