"""Solved in steps, an allocation has the value that the plain programme has, solved at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from bench.queueing.allocation import service

from tierserve.api import GenAIDeployment
from tierserve.plan.allocation import program as allocation_milp
from tierserve.plan.allocation.candidates import Group, groups_of
from tierserve.plan.allocation.optimum import overflow_of
from tierserve.plan.allocation.program import Overflow, programme
from tierserve.plan.allocation.solver import GAP, Solution, _asks_more, _outdone, solve

DEMANDS = [float(rate) for rate in np.geomspace(1.0, 1500.0, 30)]  # those of bench/queueing/allocation.py
_ROWS = 1e-6
KINDS = ["cost", "energy", "carbon", "latency"]


class Plain:
    """The value of the programme as its file describes it: no cuts, no bounds, no steps, HiGHS as it comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, keep_middle: bool = False) -> None:
        self._patch = monkeypatch
        # twenty sites without the cut for levels between floor and ceiling take minutes
        self._between = (lambda _, levels: range(1, len(levels) - 1)) if keep_middle else (lambda *_: range(0))

    def __call__(
        self, gaid: GenAIDeployment, groups: Sequence[Group], rate: float, overflow: Overflow | None = None
    ) -> float | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        with self._patch.context() as patch:
            patch.setattr(allocation_milp, "_between", self._between)
            made = programme(gaid, groups, rate, overflow or Overflow())
        if made is None:
            return None
        rows = LinearConstraint(made.matrix, made.low, made.high)
        whole, bounds, gap = made.whole.astype(int), Bounds(0.0, made.upper), {"mip_rel_gap": GAP}
        found = milp(made.goal, integrality=whole, bounds=bounds, constraints=rows, options=gap)
        return None if found.x is None else float(found.fun)


def same(found: Solution | None, plain: float | None) -> bool:
    """Each of the two may miss the best by the gap, or by what HiGHS allows itself: rows are kept to a millionth."""
    if found is None or plain is None:
        return found is None and plain is None
    proven = found.gap * found.value <= max(GAP * found.value, _ROWS)
    return proven and found.value == pytest.approx(plain, rel=2.0 * GAP, abs=10.0 * _ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_thirty_demands_of_twenty_sites_have_the_values_of_the_plain_programme(monkeypatch, part):
    gaid, plain = service(), Plain(monkeypatch, keep_middle=True)
    groups = groups_of(gaid)
    for rate in DEMANDS[part::3]:
        fresh = solve(gaid, groups, rate)
        assert same(fresh, plain(gaid, groups, rate)), rate
        assert fresh is not None
        overflow = overflow_of(gaid, groups, fresh)
        if overflow.parts:
            assert same(solve(gaid, groups, rate, overflow, fresh), plain(gaid, groups, rate, overflow)), rate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_any_service_has_the_value_of_the_plain_programme(monkeypatch, made, a_model, a_tier, kind, seed):
    gaid = anything(made, a_model, a_tier, kind, random.Random(f"{kind}{seed}"))
    groups, plain = groups_of(gaid), Plain(monkeypatch)
    for rate in (0.0, 0.7, 6.0, 21.0, 45.0, 90.0, 200.0):
        fresh = solve(gaid, groups, rate)
        assert same(fresh, plain(gaid, groups, rate)), rate
        overflow = overflow_of(gaid, groups, fresh) if fresh is not None else Overflow()
        if overflow.parts:
            assert same(solve(gaid, groups, rate, overflow, fresh), plain(gaid, groups, rate, overflow)), rate


def anything(made: Any, a_model: Any, a_tier: Any, kind: str, draw: random.Random) -> GenAIDeployment:
    """A service of three tiers, up to five sites, three models and two classes, drawn."""

    def tier(name: str, place: str, most: int, sites: int) -> dict[str, Any]:
        return a_tier(
            name,
            place,
            most=draw.randint(1, most),
            least=draw.choice([0, 0, 0, 1]),
            price=round(draw.uniform(0.2, 4.0), 2),
            power={"idle": f"{draw.randint(5, 150)}W", "max": f"{draw.randint(150, 400)}W"},
            carbonIntensity=draw.randint(20, 800),
            sites=[{"name": f"{name}{k}"} for k in range(sites)],
        )

    tiers = [tier("edge", "edge", 5, draw.randint(2, 5)), tier("near", "edge", 3, 1), tier("cloud", "cloud", 40, 1)]
    models = [a_model(n, f"{draw.randint(10, 30)}ms", round(draw.random(), 2)) for n in ("one", "two", "three")]
    traffic = [
        {"name": "open", "share": 0.6, "input": 128},
        {"name": "own", "share": 0.4, "input": 64, "output": 48, "privacy": "site"},
    ]
    caps = {"caps": {"costPerHour": round(draw.uniform(5.0, 60.0), 1)}} if draw.random() < 0.4 else {}
    for one in tiers:
        one["replicas"]["min"] = min(one["replicas"]["min"], one["replicas"]["max"])
    order = {"overflow": draw.sample(["edge", "near", "cloud"], 3)}
    return made(tiers, models, traffic, {"optimize": {"by": kind}, **caps}, routing=order)


def test_an_option_is_left_out_at_first_only_where_another_takes_more_of_all_its_classes(made, a_model, a_tier):
    traffic = [{"name": "open", "share": 0.5, "input": 128}, {"name": "long", "share": 0.5, "input": 64, "output": 64}]
    gaid = made([a_tier("cloud", most=6)], [a_model("slow", "25ms", 1.0), a_model("quick", "10ms", 0.0)], traffic)
    model = programme(gaid, groups_of(gaid), 5.0, Overflow())
    assert model is not None
    out = [(block.one.model.name, set(block.one.uses)) for block in _outdone(model)]
    left = [(block.one.model.name, set(block.one.uses)) for block in model.blocks if block not in _outdone(model)]
    assert {name for name, _ in out} == {"slow"}
    assert ("quick", {"open", "long"}) in left


def test_of_two_options_that_are_alike_one_stays(made, a_model, a_tier):
    gaid = made([a_tier("cloud", most=6)], [a_model("a", quality=0.1), a_model("b", quality=0.9)])
    model = programme(gaid, groups_of(gaid), 5.0, Overflow())
    assert model is not None
    assert [block.one.model.name for block in _outdone(model)] == ["a"]
    best = solve(gaid, groups_of(gaid), 5.0)
    assert best is not None
    assert [model.blocks[one.option].one.model.name for one in best.chosen] == ["b"]


def test_idle_sites_count_as_the_floor_only_where_sites_may_be_idle(made, a_tier):
    sites = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    for least, between in ((0, range(0, 3)), (1, range(1, 3))):
        group = groups_of(made([a_tier("edge", "edge", most=4, least=least, sites=sites)]))[0]
        assert allocation_milp._between(group, group.options[0].levels()) == between


def test_the_first_answer_bounds_the_second_only_where_bursts_take_from_what_pools_can_do(made, a_tier):
    gaid = made([a_tier("edge", "edge", most=3), a_tier("cloud", most=6)])
    groups = groups_of(gaid)
    fresh, bursty = (programme(gaid, groups, 9.0, Overflow(peakedness=z)) for z in ({}, {0: 1.5}))
    assert fresh is not None
    assert bursty is not None
    assert _asks_more(fresh, bursty)
    assert not _asks_more(bursty, fresh)
