"""The error budget: late responses make the decision more cautious, and few of them less, slowly."""

from __future__ import annotations

from tierserve.autoscale.budget import MOST, ErrorBudget, update_budget
from tierserve.autoscale.decide import Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.types import GatewaySample

BLOCK_S, MAY_MISS = 60.0, 0.05


def sample(answered: float, late: float) -> GatewaySample:
    return GatewaySample(0.0, answered, 0.0, 0.0, answered=answered, late=late, bypassed=0.0)


def after(blocks: list[tuple[float, float]], budget: ErrorBudget | None = None, t: float = 0.0) -> ErrorBudget:
    """The budget after blocks of (responses, late ones)."""
    answered = late = 0.0
    budget = update_budget(budget or ErrorBudget(), sample(0.0, 0.0), t, BLOCK_S, MAY_MISS)
    for more, more_late in blocks:
        answered, late, t = answered + more, late + more_late, t + BLOCK_S
        budget = update_budget(budget, sample(answered, late), t, BLOCK_S, MAY_MISS)
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
    assert update_budget(known, None, 1e6, BLOCK_S, MAY_MISS) == known


def test_a_gateway_that_restarted_begins_a_new_block():
    known = after([(1000.0, 200.0)] * 3)
    restarted = update_budget(known, sample(10.0, 0.0), 1000.0, BLOCK_S, MAY_MISS)
    assert (restarted.caution, restarted.answered, restarted.late) == (known.caution, known.answered, known.late)
    assert restarted.counted == (10.0, 0.0)


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
