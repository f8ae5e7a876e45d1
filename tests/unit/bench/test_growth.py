"""Connections that grow by 10% a minute: replicas are there before they are needed; and the page that says so."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.ours import Ours
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool, Workload
from tierserve.simulate.workload import Sizes, growing, poisson

pytestmark = pytest.mark.slow  # runs are simulated

SIZES = Sizes(1000, 300, 0.5)
STEP_S = 0.03
GOAL = Objective(ttft_s=STEP_S + 1.0)


def played(work: Workload, startup_s: float, initial: int) -> Result:
    """TierServe's rule on requests of 9 s in slots."""
    pool = Pool(BatchProfile(STEP_S, 0.0, 0.0), 32, startup_s, GOAL, 1000, 300)
    service_s = STEP_S * (1.0 + work.output_tokens)
    return simulate(work, pool, Ours(pool), Setup("slots", initial=initial), service_s=service_s)


@pytest.mark.parametrize("startup_s", [30.0, 103.0])
def test_replicas_that_start_slowly_are_there_for_a_load_that_grows_by_a_tenth_a_minute(startup_s: float) -> None:
    found = played(growing(10.0, 60.0, 0.10, SIZES), startup_s, 4)
    assert found.attainment(GOAL, 400.0) >= 0.98
    needed = 60.0 * 1.1 ** (startup_s / 60.0) * STEP_S * 301 / 32  # when the last that are asked for serve
    assert found.target.max() <= 1.3 * needed


@pytest.mark.parametrize("seed", [2, 3])
def test_services_of_many_seconds_hardly_move_the_target_at_a_constant_load(seed: int) -> None:
    found = played(poisson(40.0, 3600.0, SIZES, seed=seed), 103.0, 16)
    assert found.reversals_per_hour(900.0) <= 2.0
    assert found.attainment(GOAL, 900.0) >= 0.99


@pytest.fixture
def bench() -> ModuleType:
    return importlib.import_module("bench.growth.measure")


def test_the_small_benchmark_writes_the_page_with_p95_by_decade_the_oracle_and_the_time_of_a_decision(
    bench: ModuleType, tmp_path: Path
) -> None:
    rules = ["--rule", "ours", "--rule", "hpa", "--rule", "oracle"]
    importlib.import_module("bench.growth.page").main(
        ["--quick", "--jobs", "1", "--out", str(tmp_path), "--case", "slots-103", *rules]
    )
    page = (tmp_path / "growth.md").read_text()
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    for promised in ("make bench-growth", "10 to 100 | 100 to 300", "Kubernetes HPA", "| Oracle |", "1.00 x",
                     "service alone", "15,625 replicas", "seeds"):  # fmt: skip
        assert promised in page, promised
    (row,) = (line for line in page.splitlines() if line.startswith("| **TierServe"))
    assert all(float(cell) > 10.0 for cell in row.split("|")[2:4])


def test_arrivals_of_the_benchmark_are_as_many_as_its_connections_ask(bench: ModuleType) -> None:
    case = bench.CASES[0]
    work = bench.growth(20_000.0, 3, case)
    connections = bench.FIRST * bench.np.exp(bench.SPEED * (work.times_s - bench.WARM_S))
    late = (connections >= 10_000.0).sum()
    expected = 10_000.0 / bench.SPEED / (bench.THINK_S + bench.service_s(case))
    assert late == pytest.approx(expected, rel=0.02)
    assert work.length_s == pytest.approx(bench.WARM_S + 60.0 * bench.math.log(2000.0) / bench.math.log(1.1))
