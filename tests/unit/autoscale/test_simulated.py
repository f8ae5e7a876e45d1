"""The decision in a simulated pool: what users of other autoscalers complain about must not happen."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import pytest

from tierserve.autoscale.decide import Settings

SETTINGS = Settings(target_s=1.5, service_s=1.0, slots=8, startup_s=3.0)
STEPS = [1, 2, 4, 8, 16, 32, 64, 128]


def test_a_closed_loop_gets_a_slot_for_each_connection_in_every_step(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0))
    for n, start, result in sim.steps(pool, STEPS, 20.0):
        exact = math.ceil(n / SETTINGS.slots)
        assert exact <= result.targets(start + 2.0)[-1] <= exact + 1
        assert result.targets(start + 2.1)[0] >= exact, "the step is answered before the first new replica serves"
        assert result.share_within(1.5, start + 8.0, start + 18.0) > 0.99


@pytest.mark.parametrize("startup_s", [1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 4, 5])
def test_connections_that_double_never_want_more_than_a_slot_for_each(sim, seed, startup_s):
    """While replicas come one by one, those who were answered together ask together, and the rate jumps about."""
    pool = sim.Pool(SETTINGS, sim.lognormal(1.0, 0.02), seed=seed, startup_s=startup_s, one_by_one=True)
    for n, start, result in sim.steps(pool, [8, 16, 32, 64, 128], 40.0):
        assert max(result.targets(start + 1.0)) == math.ceil(n / SETTINGS.slots), n


@pytest.mark.parametrize("seed", [0, 4])
def test_headroom_keeps_slots_for_connections_to_come(sim, seed):
    settings = replace(SETTINGS, headroom=1.0)
    pool = sim.Pool(settings, sim.lognormal(1.0, 0.02), seed=seed, startup_s=2.0)
    for n, start, result in sim.steps(pool, [8, 16, 32, 64, 128], 40.0):
        assert result.targets(start + 10.0)[-1] == 2 * n // SETTINGS.slots, n
        assert result.share_within(1.5, start, start + 40.0) == 1.0, "who comes at once finds a slot"


def test_headroom_staffs_an_open_stream_for_the_load_that_it_may_become(sim):
    wanted = []
    for headroom in (0.0, 0.5):
        pool = sim.Pool(replace(SETTINGS, headroom=headroom), sim.constant(1.0))
        pool.poisson(40.0)
        wanted.append(pool.run(120.0).targets(100.0)[-1])
    assert 1.3 <= wanted[1] / wanted[0] <= 1.7


@pytest.mark.parametrize("feed", ["replicas", "ray"])
def test_without_a_gateway_a_closed_loop_is_followed_all_the_same(sim, feed):
    pool = sim.Pool(SETTINGS, sim.constant(1.0), feed=feed)
    for n, _, result in sim.steps(pool, [8, 32, 128], 40.0):
        exact = math.ceil(n / SETTINGS.slots)
        assert exact <= result.targets(0)[-1] <= exact * 1.4 + 1


def test_a_closed_loop_with_exponential_service_is_not_given_headroom_for_a_poisson_stream(sim):
    pool = sim.Pool(SETTINGS, sim.exponential(1.0))
    pool.connect(64)
    result = pool.run(120.0)
    assert set(result.targets(70.0)) <= {8, 9}


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "slots"), [(4.0, 1), (4.0, 8), (12.0, 4), (25.0, 8)])
@pytest.mark.parametrize("service", ["constant", "lognormal"])
def test_at_a_constant_poisson_load_removals_are_seldom_regretted(sim, rate, slots, service):
    draw = sim.constant(1.0) if service == "constant" else sim.lognormal(1.0, 0.5)
    settings = replace(SETTINGS, slots=slots, target_s=1.5 if service == "constant" else 2.5)
    runs = []
    for seed in range(5):
        pool = sim.Pool(settings, draw, seed=seed)
        pool.poisson(rate)
        runs.append(pool.run(300.0))
    assert max(r.reversals(60.0) for r in runs) <= 2
    assert all(r.share_within(settings.target_s, 30.0) >= 0.95 for r in runs)


def test_load_gone_goes_back_to_the_floor_and_no_further(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0), floor=2)
    pool.connect(64)
    pool.run(40.0)
    pool.connect(0)
    result = pool.run(90.0)
    assert result.targets(85.0)[-1] == 2
    assert result.targets(40.0, 65.0)[-1] == 8, "held for the window"


def test_a_step_down_is_followed_once_the_window_has_passed(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0))
    pool.poisson(40.0)
    pool.run(90.0)
    pool.poisson(8.0)
    result = pool.run(400.0)
    assert result.targets(80.0, 90.0)[0] >= 6
    assert result.targets(90.0, 119.0)[-1] >= 6, "held for the window"
    assert min(result.targets(90.0, 185.0)) == 2
    assert result.targets(390.0)[-1] <= 3, "a third one while chance asks for it"


def test_a_step_up_of_an_open_stream_is_answered_within_a_start_up_time(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0))
    pool.poisson(4.0)
    pool.run(60.0)
    pool.poisson(60.0)
    result = pool.run(63.1)
    assert result.targets(60.0)[-1] >= 8


def test_replicas_that_start_slowly_do_not_make_the_target_run_away(sim):
    pool = sim.Pool(replace(SETTINGS, startup_s=60.0), sim.constant(1.0), startup_s=60.0, ceiling=1000)
    pool.poisson(16.0)
    pool.run(150.0)
    pool.poisson(32.0)
    result = pool.run(320.0)
    assert max(result.targets(150.0)) <= 16, "32 erlangs and the backlog of a minute, not many times that"
    assert result.rows[-1].decision.startup_s == pytest.approx(60.0, rel=0.3)


def test_a_steady_climb_is_met_ahead_by_the_start_up_time(sim):
    settings = replace(SETTINGS, startup_s=20.0)
    pool = sim.Pool(settings, sim.constant(1.0), startup_s=20.0, initial=2)
    for k in range(150):
        pool.poisson(8.0 + k * 0.4)
        result = pool.run(1.0 + k)
    late = result.rows[200:]  # until then no forecast is known to be better than the mean
    ratios = [row.decision.arrival_rate / (8.0 + 0.4 * (row.t + 20.0)) for row in late]
    assert median(ratios) == pytest.approx(1.0, abs=0.15)
    assert result.share_within(1.5, 80.0, 145.0) > 0.98


def outage(begin: float, end: float):
    """Take away all figures between two times."""

    def tweak(pool, obs):
        if begin <= pool.clock < end:
            return replace(obs, replicas={}, gateway=None, ongoing=None)
        return obs

    return tweak


def test_missing_metrics_hold_the_target_and_say_so(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0), floor=1, tweak=outage(60.0, 180.0))
    pool.poisson(40.0)
    result = pool.run(240.0)
    during = [row for row in result.rows if 62.0 <= row.t < 179.0]
    assert {row.target for row in during} == {during[0].target}
    assert all(row.decision.stale for row in during)
    assert "no metrics for 100 s" in {row.decision.reason.split(": ")[1] for row in during}
    assert result.changes(180.0) == 0
    assert not result.rows[-1].decision.stale


def test_samples_of_long_ago_are_no_metrics(sim):
    frozen = {}

    def tweak(pool, obs):
        if pool.clock < 60.0:
            frozen.update(replicas=obs.replicas)
            return obs
        return replace(obs, replicas=frozen["replicas"], gateway=None)

    pool = sim.Pool(SETTINGS, sim.constant(1.0), feed="replicas", tweak=tweak)
    pool.poisson(30.0)
    result = pool.run(160.0)
    assert result.rows[-1].decision.stale
    assert result.changes(66.0) == 0


def test_one_replica_with_broken_figures_does_not_move_the_target(sim):
    def tweak(pool, obs):
        if pool.clock < 60.0 or not obs.replicas:
            return obs
        name = min(obs.replicas)
        broken = replace(obs.replicas[name], arrivals=math.nan, running=-1.0)
        return replace(obs, replicas={**obs.replicas, name: broken})

    pool = sim.Pool(SETTINGS, sim.constant(1.0), feed="replicas", tweak=tweak)
    pool.connect(60)
    result = pool.run(150.0)
    assert result.targets(50.0, 60.0)[-1] - 1 <= min(result.targets(60.0))
    assert max(result.targets(90.0)) <= 9


def test_counters_that_begin_again_at_zero_do_not_move_the_target(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0), feed="replicas")
    pool.connect(60)
    before = pool.run(90.0).targets(89.0)[-1]
    pool.restart_counters()
    result = pool.run(150.0)
    assert set(result.targets(90.0)) <= {before, 8}


def test_a_gateway_that_restarts_does_not_move_the_target(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0))
    pool.poisson(30.0)
    before = pool.run(90.0).targets(89.0)[-1]
    pool.offered = 0
    assert set(pool.run(150.0).targets(90.0)) == {before}


def test_a_replica_that_dies_is_ridden_out(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0))
    pool.connect(60)
    pool.run(60.0)
    pool.kill()
    result = pool.run(120.0)
    assert max(result.targets(60.0)) <= 9
    assert result.share_within(1.5, 75.0, 115.0) > 0.99


def test_a_policy_that_starts_over_keeps_the_replicas_it_finds_for_the_window(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0), initial=12)
    pool.connect(16)
    result = pool.run(60.0)
    assert set(result.targets(0.0, 29.0)) == {12}
    assert result.targets(50.0)[-1] == 2


def test_bursts_get_more_replicas_than_a_poisson_stream_of_the_same_rate(sim):
    targets = []
    for batch in (1, 8):
        pool = sim.Pool(replace(SETTINGS, slots=2), sim.constant(1.0))
        pool.poisson(20.0, batch=batch)
        result = pool.run(200.0)
        targets.append(result.targets(190.0)[-1])
        assert result.share_within(1.5, 60.0) > 0.93
    assert targets[1] > targets[0]


def test_the_ceiling_is_kept_and_named(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0), ceiling=3)
    pool.connect(64)
    row = pool.run(20.0).rows[-1]
    assert row.target == 3
    assert "maximum, 8 required" in row.decision.reason


def test_the_reason_tells_by_how_much_one_fewer_would_miss(sim):
    pool = sim.Pool(SETTINGS, sim.constant(1.0))
    pool.poisson(30.0)
    decision = pool.run(59.0).rows[-1].decision
    assert "would miss the target by" in decision.reason or "cannot carry" in decision.reason
    assert decision.reason.startswith(f"{decision.replicas} replicas: {decision.replicas - 1} ")


def test_the_predicted_percentile_holds(sim):
    pool = sim.Pool(replace(SETTINGS, slots=4), sim.lognormal(1.0, 0.4), seed=5)
    pool.poisson(20.0)
    result = pool.run(240.0)
    seen = sorted(x for t, x in result.responses if t > 60.0)
    predicted = result.rows[-1].decision.predicted_p95_s
    assert predicted == pytest.approx(seen[int(0.95 * len(seen))], rel=0.1)
