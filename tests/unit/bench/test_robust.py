"""Random loads, how they are judged, and the page of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.robust import judge as judging
from bench.robust.judge import CHEAPEST, ORACLE, Row, cheapest_fixed, digest, fixed, judge_rule, row_of, run_of
from bench.robust.loads import (
    DEVELOP,
    FAMILIES,
    JUDGE,
    MOST_REQUESTS,
    TTFTS_S,
    Load,
    least_ttft_s,
    load_of,
    services_s,
    trace_of,
)
from bench.robust.page import OURS, best_peer, rules_on, write_page
from bench.robust.plan import busiest_rate, planned
from bench.robust.summary import SUBSET, figures, load_named, names_of, summary

from tierserve.simulate.policies.static import Static
from tierserve.simulate.types import Workload

SMALL = "long-prompts-10"


@pytest.fixture(scope="module")
def small() -> Load:
    return load_named("develop", SMALL)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_load_is_the_same_for_the_same_seed(family: str) -> None:
    assert digest(load_of(4, family)) == digest(load_of(4, family))
    assert digest(load_of(4, family)) != digest(load_of(5, family))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [2, 7, 12])
def test_a_load_is_bounded_and_its_objective_leaves_time_for_a_full_batch(family: str, seed: int) -> None:
    load = load_of(seed, family)
    work, pool, goal = load.workload, load.pool, load.pool.objective
    assert load.family == family
    assert 100 < len(work) < 1.1 * MOST_REQUESTS
    assert np.all(np.diff(work.times_s) >= 0.0)
    assert work.times_s[-1] <= work.length_s
    assert work.input_tokens.size == work.output_tokens.size == len(work)
    assert load.judged_from_s == 2.0 * pool.startup_s < load.judged_to_s == work.length_s
    least = least_ttft_s(work, pool.profile, pool.slots, goal.percentile, long=family == "long-prompts")
    assert goal.ttft_s >= least
    assert goal.ttft_s in TTFTS_S or goal.ttft_s > max(TTFTS_S)
    service = services_s(work, pool.profile, max(0.7 * pool.slots, 1.0))
    assert np.mean(goal.ttft_s + 1.3 * service <= goal.response_s) >= goal.percentile / 100.0 - 0.01


def test_services_of_a_load_are_those_of_the_profile_for_its_mixture(small: Load) -> None:
    work = small.workload
    few = Workload(work.times_s[:50], work.input_tokens[:50], work.output_tokens[:50], work.length_s)
    sizes = tuple((1 / 50, float(i), float(o)) for i, o in zip(few.input_tokens, few.output_tokens, strict=True))
    expected = small.pool.profile.service_times(3.0, sizes)
    assert services_s(few, small.pool.profile, 3.0) == pytest.approx(expected)


def test_the_loads_to_judge_by_are_none_of_those_to_develop_on() -> None:
    assert not set(DEVELOP) & set(JUDGE)
    assert not set(names_of("develop", None, list(FAMILIES))) & set(names_of("judge", None, list(FAMILIES)))
    assert names_of("develop", [101], None) == []
    first, second = trace_of("azure-code-x1", "develop"), trace_of("azure-code-x1", "judge")
    assert first.judged_to_s == second.judged_from_s
    assert digest(first) != digest(second)


def test_all_families_take_turns() -> None:
    names = names_of("develop", list(range(1, 13)), None)
    assert {name.rsplit("-", 1)[0] for name in names} == set(FAMILIES)
    assert [load_named("develop", name).seed for name in names[:3]] == [1, 2, 3]


def test_the_cheapest_fixed_pool_is_the_smallest_that_meets_the_objective(
    small: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "OUT", tmp_path)
    best = cheapest_fixed(small)
    assert best.met
    assert not fixed(small, best.replicas - 1).met
    assert best.gpu_hours == pytest.approx(best.replicas * small.judged_hours)
    monkeypatch.setattr(judging, "_cheapest", None)  # the second answer comes from the disk
    assert cheapest_fixed(small) == best


def test_only_the_judged_part_counts(small: Load) -> None:
    found = run_of(small, Static(small.pool, 2), 2)
    middle = replace(small, judged_from_s=1000.0, judged_to_s=2000.0)
    row = row_of(middle, "static", found, 0.0)
    inside = (found.arrive_s >= 1000.0) & (found.arrive_s < 2000.0)
    goal = small.pool.objective
    good = (found.ttft_s <= goal.ttft_s) & (found.response_s <= goal.response_s)
    assert row.share == pytest.approx(good[inside].mean())
    assert row.gpu_hours == pytest.approx(2.0 / 3.6)


def test_a_rule_may_have_another_setting_than_the_published_one(small: Load) -> None:
    few, many = judge_rule(small, "hpa=1.0"), judge_rule(small, "hpa=0.25")
    assert few.gpu_hours < many.gpu_hours


def test_the_plan_is_a_fixed_pool_for_the_busiest_hour(small: Load) -> None:
    assert busiest_rate(small) >= len(small.workload) / small.workload.length_s
    row = judge_rule(small, "plan")
    assert row.replicas == planned(small) >= 1
    assert row.reversals == 0.0


def row(load: str, rule: str, hours: float, *, met: bool = True, turns: float = 0.0) -> Row:
    family = load.rsplit("-", 1)[0]
    return Row(load, family, "d", rule, 0.99, met, hours, turns, 0.9, 1.0, family == "poisson", family == "daily")


def table(*rows: Row) -> dict[tuple[str, str], Row]:
    return {(one.load, one.rule): one for one in rows}


ROWS = table(
    row("poisson-12", CHEAPEST, 2.0), row("daily-6", CHEAPEST, 4.0),
    row("poisson-12", ORACLE, 1.0), row("daily-6", ORACLE, 1.0, met=False),
    row("poisson-12", OURS, 2.0, turns=3.0), row("daily-6", OURS, 1.0, met=False),
    row("poisson-12", "hpa", 4.0), row("daily-6", "hpa", 4.0),
    row("poisson-12", "kpa", 3.0), row("daily-6", "kpa", 3.0),
)  # fmt: skip
LOADS = ["poisson-12", "daily-6"]


def test_figures_are_over_the_loads_and_the_oracle_only_where_it_meets() -> None:
    one = figures([ROWS[name, OURS] for name in LOADS], ROWS)
    assert one is not None
    assert (one.loads, one.met, one.turns, one.most_turns) == (2, 0.5, 1.5, 3.0)
    assert one.over_fixed == pytest.approx(0.5)  # of 1 and 1/4
    assert one.over_oracle == pytest.approx(2.0)
    assert figures([], ROWS) is None


def test_the_best_of_the_others_meets_most_and_costs_least() -> None:
    best = best_peer(ROWS, LOADS)
    assert best is not None
    assert best[0] == "kpa"


def test_the_summary_lists_what_was_missed() -> None:
    assert "daily-6 (99.0%)" in summary(ROWS, LOADS, OURS)


def test_the_page_has_all_rules_that_were_run(tmp_path: Path) -> None:
    text = write_page(ROWS, LOADS, "develop", tmp_path).read_text()
    assert (tmp_path / "robust.png").exists()
    for part in ("**TierServe**", "Kubernetes HPA", "Knative KPA", "oracle, in hindsight", "**daily.**"):
        assert part in text
    assert "**poisson.** Constant rate, Poisson." in text


def test_the_rules_of_others_may_be_run_on_fewer_loads() -> None:
    assert "hpa" in rules_on("poisson-12", 0, 2, None)
    assert "hpa" not in rules_on("poisson-24", 1, 2, None)
    assert "hpa" in rules_on("servegen", 1, 2, None)


def test_the_subset_is_of_loads_to_develop_on() -> None:
    assert set(SUBSET) <= set(names_of("develop", None, None))
