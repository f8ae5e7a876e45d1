"""The error budget: late responses make the decision more cautious, and few of them less, slowly."""

from __future__ import annotations

import pytest

from tierserve.autoscale.budget import MOST, MOST_MARGIN, ErrorBudget, Full, update_budget
from tierserve.autoscale.decide import Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.types import GatewaySample
from tierserve.queueing.batching.profile import BatchProfile

BLOCK_S, MAY_MISS = 60.0, 0.05


def sample(answered: float, late: float) -> GatewaySample:
    return GatewaySample(0.0, answered, 0.0, 0.0, answered=answered, late=late, bypassed=0.0)


def busy(t: float, rate: float, replicas: int = 4) -> Full | None:
    """A pool with requests that wait, from which `rate` responses a block are to be expected."""
    return Full(t, replicas, rate / BLOCK_S, service_s=1.0) if rate else None


def after(
    blocks: list[tuple[float, float]], budget: ErrorBudget | None = None, t: float = 0.0, expected: float = 0.0
) -> ErrorBudget:
    """The budget after blocks of (responses, late ones)."""
    answered, late = 1.0, 0.0
    start = sample(answered, late)
    budget = update_budget(budget or ErrorBudget(), start, t, BLOCK_S, MAY_MISS, full=busy(t, expected))
    for new, new_late in blocks:
        answered, late, t = answered + new, late + new_late, t + BLOCK_S
        budget = update_budget(budget, sample(answered, late), t, BLOCK_S, MAY_MISS, full=busy(t, expected))
    return budget


def test_caution_grows_in_each_block_over_the_budget_up_to_its_maximum():
    grown = [after([(1000.0, 200.0)] * n).caution for n in range(4)]
    assert grown == sorted(set(grown))
    assert after([(1000.0, 200.0)] * 50).caution == MOST


def test_caution_falls_slowly_when_few_are_late():
    missed = after([(1000.0, 200.0)] * 5)
    first = after([(1000.0, 0.0)] * 60, missed._replace(since=None), 300.0)
    later = after([(1000.0, 0.0)] * 200, missed._replace(since=None), 300.0)
    assert missed.caution > first.caution > later.caution == 1.0


def test_a_handful_of_late_responses_changes_nothing():
    assert after([(5.0, 2.0)]).caution == 1.0


def test_late_responses_of_the_past_do_not_raise_it_while_none_is_late_now():
    missed = after([(1000.0, 900.0)])
    assert after([(1000.0, 0.0)] * 3, missed._replace(since=None), 60.0).caution <= missed.caution


def test_without_reports_nothing_changes():
    known = after([(1000.0, 200.0)])
    assert update_budget(known, None, 1e6, BLOCK_S, MAY_MISS, full=busy(1e6, 9.0)) == known._replace(
        last=None, full=None
    )


def test_a_gateway_that_restarted_begins_a_new_block():
    known = after([(1000.0, 200.0)] * 3)
    restarted = update_budget(known, sample(10.0, 0.0), 1000.0, BLOCK_S, MAY_MISS, full=None)
    assert (restarted.caution, restarted.answered, restarted.late) == (known.caution, known.answered, known.late)
    assert restarted.counted == (10.0, 0.0)


def test_full_slots_that_serve_less_than_promised_bring_a_margin():
    fewer = [after([(750.0, 0.0)] * n, expected=1000.0).margin for n in range(5)]
    assert fewer == sorted(set(fewer))
    assert fewer[-1] == pytest.approx(1000.0 / 750.0, rel=0.05)
    assert after([(100.0, 0.0)] * 50, expected=1000.0).margin == MOST_MARGIN


def test_full_slots_that_serve_as_promised_or_more_bring_none():
    assert after([(1000.0, 200.0)] * 9, expected=1000.0).margin == pytest.approx(1.0)
    assert after([(1500.0, 200.0)] * 9, expected=1000.0).margin == pytest.approx(1.0)


def test_what_chance_can_make_of_a_count_brings_none():
    assert after([(97.0, 0.0)] * 5, expected=100.0).margin == 1.0
    assert after([(97_000.0, 0.0)] * 5, expected=100_000.0).margin > 1.02


def test_late_responses_without_a_queue_bring_none():
    """The service itself is too slow for the target: more replicas would change nothing."""
    budget = after([(1000.0, 200.0)] * 9)
    assert budget.margin == 1.0
    assert budget.caution > 1.0


def test_without_new_evidence_the_margin_goes_back():
    missed = after([(500.0, 200.0)] * 5, expected=1000.0)
    first = after([(1000.0, 0.0)] * 60, missed._replace(since=None, last=None), 300.0)
    later = after([(1000.0, 0.0)] * 400, missed._replace(since=None, last=None), 300.0)
    assert missed.margin > first.margin > later.margin == pytest.approx(1.0, abs=1e-3)


def test_a_time_without_reports_is_no_evidence():
    known = after([(1000.0, 0.0)], expected=1000.0)
    silent = update_budget(known, None, 1000.0, BLOCK_S, MAY_MISS, full=busy(1000.0, 1000.0))
    again = update_budget(silent, sample(1001.0, 0.0), 9000.0, BLOCK_S, MAY_MISS, full=busy(9000.0, 1000.0))
    assert again.margin == known.margin == 1.0


def test_slots_that_have_just_filled_are_no_evidence():
    """A replica that was added answers nothing for a service time."""
    budget = ErrorBudget()
    for k in range(100):  # every second another number of replicas
        full = Full(float(k), 4 + k % 2, 100.0, service_s=2.0)
        budget = update_budget(budget, sample(1.0 + k, 0.0), float(k), BLOCK_S, MAY_MISS, full=full)
    assert budget.margin == 1.0


def test_a_gateway_that_counts_no_responses_gives_no_evidence():
    budget = ErrorBudget()
    for k in range(100):
        budget = update_budget(budget, sample(0.0, 0.0), float(k), BLOCK_S, MAY_MISS, full=busy(float(k), 1000.0))
    assert budget.margin == 1.0


def test_a_pool_whose_sizing_is_too_small_gets_replicas_until_it_holds():
    """The service takes half longer than configured, and no replica reports steps: only the late responses show it."""
    settings = Settings(
        target_s=4.0, slots=8, startup_s=5.0, service_s=1.0, profile=BatchProfile(0.01, 0.0, 0.0), output_tokens=100
    )
    state, target, queue, late, margins = State(), 8, 0.0, 0.0, []
    for k in range(2000):
        t = 1e9 + k
        queue = max(queue + 50.0 - target * settings.slots / 1.5, 0.0)
        waiting = queue > 0.0
        late += 50.0 if queue > 100.0 else 0.0
        busy = float(min(target * settings.slots, 75))
        gateway = GatewaySample(t, 50.0 * k, queue, busy, answered=50.0 * k, late=late, bypassed=0.0)
        obs = Observation(t, target, target, 1, 99, {}, gateway)
        decision, state = decide(obs, state, settings)
        target = decision.replicas
        margins.append((decision.margin, waiting))
    assert max(margin for margin, _ in margins) > 1.0
    assert not any(waiting for _, waiting in margins[-600:])


def test_while_the_gateway_is_silent_caution_stays():
    settings, state, caution = Settings(target_s=4.0, slots=8, startup_s=5.0), State(), []
    for k in range(1200):
        t = 1e9 + k
        gateway = GatewaySample(t, 10.0 * k, 0.0, 8.0, answered=10.0 * k, late=2.0 * min(k, 300), bypassed=0.0)
        replicas = {"a": ReplicaSample(t, 10.0 * k, 10.0 * k, 8.0 * k, 6.4 * k, running=8.0)}
        obs = Observation(t, 4, 4, 1, 99, replicas, gateway if k < 900 else None)
        decision, state = decide(obs, state, settings)
        assert not decision.stale
        caution.append(decision.caution)
    assert max(caution) > caution[899] > 1.0, "few are late again"
    assert caution[-1] == caution[905]
