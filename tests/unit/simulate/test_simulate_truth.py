"""The simulator beside a simulator of others (ciw), request by request and by seeds, and beside exact chains."""

from __future__ import annotations

from types import ModuleType

import ciw
import numpy as np
import pytest

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes, bursts

pytestmark = pytest.mark.slow  # long runs, beside exact chains

SEEDS = range(16)
STUDENT, STUDENT_OF_TWO = 4.07, 3.65  # standard errors that 1 in 1,000 lies beyond: of one mean and of two
H2 = (0.8872983346207417, 2 * 0.8872983346207417, 2 * (1 - 0.8872983346207417))  # mean 1, variance 4: p, both rates


class Fixed:
    interval_s = 1e6

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas

    def decide(self, seen: Snapshot) -> int:
        return self.replicas


def slots(
    times: np.ndarray, service: np.ndarray, replicas: int, each: int, router: str = "central", seed: int = 1
) -> Result:
    ones = np.ones(times.size, dtype=np.int64)
    pool = Pool(BatchProfile(1.0, 0.0, 0.0), each, 0.0, Objective(), 1.0, 1.0)
    work = Workload(times, ones, ones, float(times[-1]))
    return simulate(work, pool, Fixed(replicas), Setup("slots", router, replicas, seed=seed), service_s=service)


def services(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "D":
        return np.ones(n)
    if kind == "M":
        return rng.exponential(1.0, n)
    p, fast, slow = H2
    return rng.exponential(1.0, n) / np.where(rng.random(n) < p, fast, slow)


def of_ciw(gaps: object, service: object, servers: int, customers: int) -> np.ndarray:
    """Waits in order of arrival, as ciw has them."""
    network = ciw.create_network(
        arrival_distributions=[gaps], service_distributions=[service], number_of_servers=[servers]
    )
    run = ciw.Simulation(network)
    run.simulate_until_max_customers(customers)
    records = sorted(run.get_all_records(), key=lambda r: r.arrival_date)
    return np.array([r.waiting_time for r in records])[: customers - 200]  # the last ones may not all be done


def figures(waits: np.ndarray) -> list[float]:
    """P(wait) and mean wait, the first tenth left out."""
    kept = waits[waits.size // 10 :]
    return [float((kept > 1e-9).mean()), float(kept.mean())]


def mean_and_error(rows: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array(rows)
    return found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(rows))


@pytest.mark.parametrize("kind", ["M", "D", "H2"])
@pytest.mark.parametrize(("replicas", "each"), [(1, 1), (2, 3)])
def test_every_request_waits_as_long_as_in_ciw(kind: str, replicas: int, each: int) -> None:
    n, rng = 6_000, np.random.default_rng(11)
    gaps, service = rng.exponential(1.0 / (0.9 * replicas * each), n), services(kind, n, rng)
    sequential = ciw.dists.Sequential
    theirs = of_ciw(sequential(gaps.tolist()), sequential(service.tolist()), replicas * each, n)
    found = slots(np.cumsum(gaps), service, replicas, each)
    ours = (found.start_s - found.arrive_s)[: theirs.size]
    assert 0.3 < (theirs > 1e-9).mean() < 0.99
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("kind", ["M", "D", "H2"])
def test_with_dice_of_its_own_ciw_has_the_same_waits(kind: str) -> None:
    lam, n, c = 2.8, 2_000, 4
    p, fast, slow = H2
    service = {
        "M": ciw.dists.Exponential(1.0),
        "D": ciw.dists.Deterministic(1.0),
        "H2": ciw.dists.HyperExponential([fast, slow], [p, 1 - p]),
    }[kind]
    theirs, ours = [], []
    for seed in SEEDS:
        ciw.seed(seed)
        theirs.append(figures(of_ciw(ciw.dists.Exponential(lam), service, c, n)))
        rng = np.random.default_rng(seed)
        found = slots(np.cumsum(rng.exponential(1.0 / lam, 10_000)), services(kind, 10_000, rng), 2, 2)
        ours.append(figures(found.start_s - found.arrive_s))
    (one, error), (other, same) = mean_and_error(theirs), mean_and_error(ours)
    assert (np.abs(one - other) < STUDENT_OF_TWO * np.hypot(error, same)).all()
    assert (error / one < 0.15).all()  # the sharp one is the test above


def beside(truth: object, rows: list[list[float]], within: float) -> None:
    """P(wait) and mean wait are those of an exact chain, as near as the seeds tell, which is `within`."""
    mean, error = mean_and_error(rows)
    exact = np.array([truth.p_wait, truth.mean_wait])  # type: ignore[attr-defined]
    assert (STUDENT * error / exact < within).all()
    assert (np.abs(mean - exact) < STUDENT * error).all()


@pytest.mark.parametrize(
    ("router", "replicas", "each"),
    [("shortest", 2, 2), ("shortest", 3, 4), ("two-choices", 3, 4), ("random", 3, 4)],
)
def test_routers_are_the_chains_of_their_replicas(chains: ModuleType, router: str, replicas: int, each: int) -> None:
    lam = 0.7 * replicas * each
    room = chains.room_for(0.49 if router == "two-choices" else 0.7)
    if router == "random":  # each replica is alone
        truth = chains.pool(lam / replicas, range(1, each + 1), 1, "central", room)
    else:
        truth = chains.pool(lam, range(1, each + 1), replicas, router, room)
    rows = []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, replicas])
        times = np.cumsum(rng.exponential(1.0 / lam, 15_000))
        found = slots(times, rng.exponential(1.0, times.size), replicas, each, router, seed)
        rows.append(figures(found.start_s - found.arrive_s))
    beside(truth, rows, 0.2)


@pytest.mark.parametrize("kind", ["D", "H2"])
def test_other_services_than_exponential_are_the_exact_queue(chains: ModuleType, kind: str) -> None:
    c, lam, rows = 4, 3.2, []
    if kind == "D":
        truth = chains.constant_service(lam, c)
    else:
        truth = chains.queue_of(chains.poisson_arrivals(lam), chains.service_of(4.0), c, chains.room_for(0.9))
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 7])
        times = np.cumsum(rng.exponential(1.0 / lam, 20_000))
        found = slots(times, services(kind, times.size, rng), 2, 2)
        rows.append(figures(found.start_s - found.arrive_s))
    beside(truth, rows, 0.3)


def test_bursts_are_the_exact_queue_of_two_rates_in_turns(chains: ModuleType) -> None:
    c, low, high, low_s, high_s = 16, 6.0, 20.0, 3.0, 2.0
    truth = chains.queue_of(chains.two_rates(low, high, low_s, high_s), chains.service_of(1.0), c, 600)
    rows = []
    for seed in SEEDS:
        work = bursts(low, high, low_s=low_s, high_s=high_s, length_s=2_500.0, sizes=Sizes(1.0, 1.0), seed=seed)
        service = np.random.default_rng([seed, 5]).exponential(1.0, len(work))
        found = slots(work.times_s, service, 2, 8, seed=seed)
        rows.append(figures(found.start_s - found.arrive_s))
    beside(truth, rows, 0.3)


@pytest.mark.parametrize("router", ["central", "shortest"])
def test_replicas_that_work_step_by_step_are_the_chain_of_their_rates(
    chains: ModuleType, stated: ModuleType, router: str
) -> None:
    """Geometric outputs make a request as likely to end at each step as at any other: a chain but for the steps."""
    rows_of = stated.rows_of
    rates, replicas = rows_of.step_rates(4), 2
    lam = 0.8 * replicas * rates[-1]
    truth = chains.pool(lam, rates, replicas, router, chains.room_for(0.8))
    seen = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        n = 10_000
        tokens = np.full(n, rows_of.INPUT), rng.geometric(1.0 / rows_of.OUTPUT, n)
        found = rows_of.run(rows_of.poisson_times(lam, n, rng), replicas, 4, router, None, seed, tokens)
        seen.append([float(rows_of.after_start(found.end_s - found.arrive_s).mean())])
    ((mean,), (error,)) = mean_and_error(seen)
    assert mean == pytest.approx(truth.mean_response, rel=0.01, abs=STUDENT * error)
    assert STUDENT * error < 0.07 * mean
