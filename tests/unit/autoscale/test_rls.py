"""What a replica's seen times teach about its step-time coefficients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tierserve.autoscale.calibration.rls import DRIFT_SHOWN, Calibration, StepSample, calibrate, prior
from tierserve.queueing.batching.profile import BatchProfile

TRUE = BatchProfile(alpha=0.012, beta=6e-5, gamma=2e-7)
PRIOR = BatchProfile(alpha=0.007, beta=1.1e-4, gamma=1e-7)
SEEDS = range(8)


def learn(
    samples: int,
    seed: int,
    state: Calibration | None = None,
    noise: float = 0.05,
    outliers: float = 0.0,
    speed: float = 1.0,
    at: tuple[float, float, float] | None = None,
) -> Calibration:
    """Feed times of the true profile, `speed` times as fast, of varied batches or always of the one `at`."""
    chance = random.Random(seed)
    state = state or prior(PRIOR)
    for _ in range(samples):
        n, i, o = at or (chance.uniform(1, 64), chance.uniform(50, 2000), chance.uniform(20, 500))
        ttft, itl = (
            time(n, i, o) / speed * (1 + chance.gauss(0, noise)) * (10 if chance.random() < outliers else 1)
            for time in (TRUE.prefill, TRUE.decode)
        )
        state = calibrate(state, StepSample(n, i, o, ttft, itl))
    return state


def errors(state: Calibration, speed: float = 1.0) -> list[float]:
    got = state.profile
    pairs = ((got.alpha, TRUE.alpha), (got.beta, TRUE.beta), (got.gamma, TRUE.gamma))
    return [abs(g * speed / t - 1) for g, t in pairs]


def worst_service(state: Calibration, speed: float = 1.0) -> float:
    times: list[Callable[[float, float, float], float]] = [state.profile.service_time, TRUE.service_time]
    return max(abs(times[0](n, 500, 200) * speed / times[1](n, 500, 200) - 1) for n in (1, 16, 64))


@pytest.mark.parametrize("seed", SEEDS)
def test_varied_batches_teach_all_three_coefficients(seed):
    assert max(errors(learn(20, seed))) < 0.35
    alpha, beta, gamma = errors(learn(1000, seed))
    assert alpha < 0.02
    assert beta < 0.02
    assert gamma < 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_and_the_noise_are_those_of_the_samples(seed):
    state = learn(1000, seed)
    assert state.noise == pytest.approx(0.05, rel=0.3)
    assert state.error == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.5)
    assert prior(PRIOR, sd=0.3).error == 0.3


def test_one_batch_only_is_predicted_well_and_nothing_winds_up():
    at = (16.0, 500.0, 200.0)
    state = learn(5000, 1, at=at)
    assert state.profile.decode(*at) == pytest.approx(TRUE.decode(*at), rel=0.02)
    assert state.profile.prefill(*at) == pytest.approx(TRUE.prefill(*at), rel=0.02)
    for j in range(3):
        assert state.covariance[j][j] <= (state.prior_sd * max(state.ratio[j], 1.0)) ** 2 * (1 + 1e-9)
    assert not state.drifts
    later = learn(200, 2, state)  # varied batches afterwards still teach the rest
    assert max(errors(later)) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_outliers_do_not_move_it(seed):
    state = learn(1000, seed, outliers=0.05)
    assert max(errors(state)) < 0.06
    assert state.drifts == 0
    assert 60 <= state.rejected <= 150


@pytest.mark.parametrize("speed", [0.5, 2.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_speed_is_reported_after_five_samples_and_learned_within_thirty(seed, speed):
    before = learn(500, seed)
    assert not before.drift
    half_way = learn(3, 100 + seed, before, speed=speed)
    assert not half_way.drift
    assert math.copysign(1, half_way.drift_score) == (1 if speed < 1 else -1)
    after = learn(30, 100 + seed, before, speed=speed)
    assert learn(5, 100 + seed, before, speed=speed).drift
    assert after.drift
    assert worst_service(after, speed) < 0.1
    assert not learn(DRIFT_SHOWN, seed, after, speed=speed).drift


def test_a_change_of_speed_at_one_batch_moves_all_coefficients_by_about_one_factor():
    at = (16.0, 500.0, 200.0)
    before = learn(300, 3)
    after = learn(30, 4, before, speed=0.5, at=at)
    assert worst_service(after, 0.5) < 0.15


def test_one_kind_of_time_alone_is_enough_to_learn_and_to_find_a_drift():
    def only_itl(state: Calibration, seed: int, speed: float) -> Calibration:
        chance = random.Random(seed)
        for _ in range(200):
            n, i, o = chance.uniform(1, 64), chance.uniform(50, 2000), chance.uniform(20, 500)
            itl = TRUE.decode(n, i, o) / speed * (1 + chance.gauss(0, 0.03))
            state = calibrate(state, StepSample(n, i, o, None, itl))
        return state

    state = only_itl(prior(PRIOR), 1, 1.0)
    assert state.profile.decode(32, 400, 100) == pytest.approx(TRUE.decode(32, 400, 100), rel=0.02)
    assert only_itl(state, 2, 0.5).drifts == 1


def test_a_prior_wrong_by_ten_is_left_behind():
    wrong = BatchProfile(TRUE.alpha / 10, TRUE.beta / 10, TRUE.gamma / 10)
    assert worst_service(learn(300, 1, prior(wrong))) < 0.05
    wrong = BatchProfile(TRUE.alpha * 10, TRUE.beta * 10, TRUE.gamma * 10)
    assert worst_service(learn(300, 1, prior(wrong))) < 0.05


def test_a_coefficient_at_its_bound_leaves_the_others_right():
    """gamma is a hundredth of its prior, so it ends at its bound of a twentieth; alpha and beta are not led astray."""
    state = learn(1000, 5, prior(replace(TRUE, gamma=TRUE.gamma * 100)))
    assert state.profile.gamma == pytest.approx(5 * TRUE.gamma, rel=0.3)
    assert state.profile.decode(16, 500, 200) == pytest.approx(TRUE.decode(16, 500, 200), rel=0.1)


def test_a_coefficient_that_is_zero_in_the_prior_stays_zero():
    state = learn(200, 1, prior(BatchProfile(0.007, 1.1e-4, 0.0)))
    assert state.profile.gamma == 0.0
    assert state.profile.alpha > 0.007


NAN, INF = math.nan, math.inf
GOOD = StepSample(8.0, 300.0, 100.0, 0.05, 0.02)


@pytest.mark.parametrize(
    "sample",
    [
        *(GOOD._replace(batch=v) for v in (0.0, 0.5, -1.0, NAN, INF, 1e300, "8", None, True)),
        *(GOOD._replace(input_tokens=v) for v in (-1.0, NAN, INF, 1e300, "8")),
        *(GOOD._replace(output_tokens=v) for v in (-1.0, NAN, 1e300, None)),
        *(GOOD._replace(ttft_s=v, itl_s=v) for v in (0.0, -1.0, NAN, INF, 1e300, "0.1", True)),
        GOOD._replace(ttft_s=None, itl_s=None),
    ],
)
def test_nonsense_is_counted_and_changes_nothing_else(sample):
    before = learn(50, 1)
    after = calibrate(before, sample)
    assert after.ignored > before.ignored
    assert replace(after, ignored=before.ignored) == before


def test_a_sample_with_one_sound_time_teaches_by_that_one():
    before = prior(PRIOR)
    after = calibrate(before, GOOD._replace(ttft_s=NAN))
    assert (after.ignored, after.accepted) == (1, 1)
    assert after.ratio != before.ratio


@pytest.mark.parametrize("sd", [0.0, -1.0, NAN, INF])
def test_a_prior_without_a_proper_spread_is_refused(sd):
    with pytest.raises(ValueError, match="sd"):
        prior(PRIOR, sd=sd)


def test_a_prior_beyond_all_measure_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        prior(BatchProfile(1e9, 0.0, 0.0))
    with pytest.raises(ValueError, match="forgetting"):
        prior(PRIOR, forgetting=0.5)
