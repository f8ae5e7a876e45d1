from __future__ import annotations

import numpy as np
import pytest

from tierserve.queueing.batching.fitting import NAMES, Cell, fit_profile, largest_useful_batch
from tierserve.queueing.batching.profile import BatchProfile

TRUE = BatchProfile(0.012, 0.0018, 3e-6)
GRID = [(n, i, 32) for n in (1, 2, 4, 8) for i in (16, 128, 512)] + [(n, 128, 96) for n in (1, 2, 4, 8)]


def cells(profile=TRUE, grid=GRID, *, noise=0.0, seed=1, rounds=4):
    rng = np.random.default_rng(seed)

    def times(n, i, o):
        return tuple(profile.service_time(n, i, o) * (1.0 + noise * rng.standard_normal(max(6, rounds * n))))

    return [Cell(n, i, o, times(n, i, o)) for n, i, o in grid]


@pytest.mark.parametrize("profile", [TRUE, BatchProfile(0.02, 0.0, 0.0), BatchProfile(0.0, 1e-4, 2e-7)])
def test_without_noise_the_coefficients_are_exact(profile):
    fit = fit_profile(cells(profile))
    for name in NAMES:
        assert getattr(fit.profile, name) == pytest.approx(getattr(profile, name), rel=1e-9, abs=1e-12)
    assert fit.largest_error < 1e-9


def test_the_fitted_times_are_those_of_the_queueing_model():
    measured = cells(noise=0.1)
    fit = fit_profile(measured)
    times = [fit.profile.service_time(cell.batch, cell.input, cell.output) for cell in measured]
    assert fit.fitted == pytest.approx(times, rel=1e-12)


def test_with_noise_alpha_and_beta_are_within_a_tenth():
    fit = fit_profile(cells(noise=0.1))
    assert fit.profile.alpha == pytest.approx(TRUE.alpha, rel=0.1)
    assert fit.profile.beta == pytest.approx(TRUE.beta, rel=0.1)
    assert fit.mean_error < 0.05


def test_the_intervals_cover_the_true_coefficients_in_nineteen_of_twenty_runs():
    fits = [fit_profile(cells(noise=0.1, seed=seed), seed=seed) for seed in range(40)]
    for name in NAMES:
        covered = [fit.intervals[name].low <= getattr(TRUE, name) <= fit.intervals[name].high for fit in fits]
        assert sum(covered) >= 34, name  # of 40 with a chance of 0.95 each: fewer in 1 of 1,000 runs


def test_noise_that_all_requests_of_a_round_share_makes_the_intervals_wider():
    rng = np.random.default_rng(1)
    shared, alone = [], []
    for n, i, o in GRID:
        rounds = TRUE.service_time(n, i, o) * (1.0 + 0.1 * rng.standard_normal(4))
        shared.append(Cell(n, i, o, tuple(np.repeat(rounds, n))))
        alone.append(Cell(n, i, o, tuple(np.tile(rounds, n))))

    def width(cells):
        return sum(interval.high - interval.low for interval in fit_profile(cells).intervals.values())

    assert width(shared) > 1.5 * width(alone)


def test_the_error_of_each_cell_shows_an_engine_that_does_not_follow_the_model():
    measured = cells()
    slow = measured[-1]
    measured[-1] = Cell(slow.batch, slow.input, slow.output, tuple(1.5 * time for time in slow.times))
    fit = fit_profile(measured)
    assert fit.errors[-1] == min(fit.errors)
    assert fit.errors[-1] < -0.15


@pytest.mark.parametrize(
    "grid",
    [
        [(1, 16, 32), (2, 16, 32)],
        [(n, 128, 32) for n in (1, 2, 4, 8)],
        [(1, 128, 32), (1, 128, 32), (1, 128, 32)],
    ],
)
def test_cells_that_do_not_determine_the_coefficients_are_an_error(grid):
    with pytest.raises(ValueError, match="cells must differ in batch, input and output"):
        fit_profile(cells(grid=grid))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell(1, 16, 32, (1.0,)), "times must be at least 2"),
        (Cell(1, 16, 32, (1.0, float("nan"))), "times must be finite"),
        (Cell(0, 16, 32, (1.0, 1.0)), "cell must be"),
        (Cell(1, 16, 0, (1.0, 1.0)), "cell must be"),
    ],
)
def test_a_cell_that_is_no_measurement_is_an_error(cell, message):
    with pytest.raises(ValueError, match=message):
        fit_profile([*cells(), cell])


def test_the_largest_useful_batch_is_that_beyond_which_throughput_stays():
    def at(n, rate):
        return Cell(n, 128, 32, (n * 32 / rate,) * 2)

    assert largest_useful_batch([at(1, 50.0), at(2, 80.0), at(4, 99.0), at(8, 100.0)]) == 4
    assert largest_useful_batch([at(1, 50.0), at(2, 80.0), at(4, 120.0), at(8, 180.0)]) == 8
    assert largest_useful_batch([at(1, 50.0), at(2, 45.0)]) == 1
