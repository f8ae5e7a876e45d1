"""Settings in which each formula of tierserve.queueing is compared with its reference, for bench/queueing/truth.py.

The truth is a Markov chain solved as it is (chains.py) where there is one, else the simulator of `tierserve.simulate`:
the mean over eight seeds and half of its 95% interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.queueing import chains
from tierserve.queueing import (
    BatchProfile,
    batch_queue,
    closed_rate,
    erlang_c,
    halfin_whitt,
    hayward_c,
    loss_queue,
    mean_response,
    mean_wait,
    mean_wait_general,
    peakedness,
    power_of_choices,
    response_quantile,
    wait_quantile,
)
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload

SEEDS = range(8)
STUDENT = 2.365  # 95%, 7 degrees of freedom
PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
INPUT, OUTPUT = 1000, 200
REPLICAS = (
    ("1000+200 tokens", PROFILE, INPUT, OUTPUT),
    ("4000+100 tokens", BatchProfile(0.0112, 1.03e-4, 9.2e-8), 4000, 100),
)
Floats = np.ndarray


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one formula in one setting.

    Attributes:
        formula: and the kind of setting, of which each has a bound in `queueing_truth.STATED`.
        half: half of the 95% interval of the truth, 0 where it is a chain's.
        relative: whether the error is a share of the truth.
    """

    formula: str
    setting: str
    figure: str
    predicted: float
    truth: float
    half: float = 0.0
    relative: bool = True

    @property
    def error(self) -> float:
        gap = self.predicted - self.truth
        return gap / self.truth if self.relative else gap

    @property
    def noise(self) -> float:
        """The error with the interval of the reference."""
        return self.half / self.truth if self.relative else self.half


# simulation


class Fixed:
    """Always the same number of replicas."""

    interval_s = 1e6

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas

    def decide(self, seen: Snapshot) -> int:
        return self.replicas


def run(
    times: Floats, replicas: int, slots: int, router: str, service: Floats | None, seed: int,
    tokens: tuple[Floats, Floats] | None = None, profile: BatchProfile = PROFILE,
) -> Result:  # fmt: skip
    """One run: the slot model with `service` seconds each, or the token model."""
    ones = np.ones(times.size, dtype=np.int64)
    inputs, outputs = tokens or (ones, ones)
    work = Workload(times, inputs, outputs, float(times[-1]))
    pool = Pool(profile, slots, 0.0, Objective(), 1.0, 1.0)
    setup = Setup("tokens" if service is None else "slots", router, replicas, seed=seed)
    return simulate(work, pool, Fixed(replicas), setup, service_s=service)


def poisson_times(lam: float, n: int, rng: np.random.Generator) -> Floats:
    return np.cumsum(rng.exponential(1.0 / lam, n))


def services(cs2: float, n: int, rng: np.random.Generator) -> Floats:
    """Service times of mean 1 as of `chains.service_of`; cs2 = 0 is constant."""
    if cs2 == 0.0:
        return np.ones(n)
    if cs2 <= 1.0:
        return rng.gamma(1.0 / cs2, cs2, n)
    p, (fast, slow) = chains.balanced(cs2)
    return rng.exponential(1.0, n) / np.where(rng.random(n) < p, fast, slow)


def over_seeds(one: Callable[[int], Sequence[float]]) -> list[tuple[float, float]]:
    """Mean and half of the 95% interval of each figure that `one` returns for a seed."""
    found = np.array([one(seed) for seed in SEEDS])
    half = STUDENT * found.std(axis=0, ddof=1) / math.sqrt(len(SEEDS))
    return list(zip(found.mean(axis=0).tolist(), half.tolist(), strict=True))


def after_start(values: Floats) -> Floats:
    return values[values.size // 10 :]


# the formulas


def erlang(n: int = 60_000) -> Iterator[Row]:
    for c, rho in ((1, 0.5), (8, 0.8), (64, 0.9)):
        lam = rho * c

        def one(seed: int, c: int = c, lam: float = lam) -> list[float]:
            rng = np.random.default_rng(seed)
            found = run(poisson_times(lam, n, rng), 1, c, "central", rng.exponential(1.0, n), seed)
            wait, response = after_start(found.start_s - found.arrive_s), after_start(found.end_s - found.arrive_s)
            tails = float(np.quantile(wait, 0.95)), float(np.quantile(response, 0.95))
            return [float((wait > 1e-9).mean()), float(wait.mean()), *tails]

        predicted = (
            ("erlang_c", "P(wait)", erlang_c(c, lam)),
            ("mean_wait", "mean wait", mean_wait(c, lam, 1.0)),
            ("wait_quantile", "p95 of the wait", wait_quantile(c, lam, 1.0, 0.95)),
            ("response_quantile", "p95 of the response", response_quantile(c, lam, 1.0, 0.95)),
        )
        for (name, figure, value), (truth, half) in zip(predicted, over_seeds(one), strict=True):
            yield Row(f"{name}, M/M/c", f"M/M/{c} load {rho}", figure, value, truth, half)


def constant_response(n: int = 60_000) -> Iterator[Row]:
    for c, rho in ((1, 0.7), (8, 0.8), (8, 0.95), (64, 0.95)):
        for cs2 in (0.0, 0.25):

            def one(seed: int, c: int = c, rho: float = rho, cs2: float = cs2) -> list[float]:
                rng = np.random.default_rng(seed)
                found = run(poisson_times(rho * c, n, rng), 1, c, "central", services(cs2, n, rng), seed)
                return [float(np.quantile(after_start(found.end_s - found.arrive_s), 0.95))]

            ((truth, half),) = over_seeds(one)
            alone = float(np.quantile(services(cs2, 1_000_000, np.random.default_rng(1)), 0.95))
            value = response_quantile(c, rho * c, 1.0, 0.95, service_quantile_s=alone)
            name = "response_quantile, service_quantile_s"
            yield Row(name, f"M/G/{c} load {rho} cs2 {cs2}", "p95 of the response", value, truth, half)


def hayward() -> Iterator[Row]:
    for c, rho in product((4, 16, 64), (0.7, 0.8, 0.9)):
        for name, stream, z, long in bursty(rho * c):
            room = chains.room_for(1.0 - 2.0 * (1.0 - rho) / (4.0 * z + 2.0), 100)
            truth = chains.queue_of(stream, chains.service_of(1.0), c, room)
            chance = hayward_c(c, rho * c, z)
            formula, setting = (
                f"hayward_c, {'long bursts' if long else f'c = {c}'}",
                f"c {c} load {rho} z {z:.2f} {name}",
            )
            yield Row(formula, setting, "P(wait)", chance, truth.p_wait, relative=False)
            yield Row(formula, setting, "mean wait, C z / (c - a)", chance * z / (c - rho * c), truth.mean_wait)


def bursty(lam: float) -> Iterator[tuple[str, chains.Arrivals, float, bool]]:
    """Name, arrivals, z, and whether bursts outlast the service, which is 1 s."""
    for ca2 in (2.0, 4.0, 9.0):
        yield f"H2 ca2 {ca2:g}", chains.renewals(lam, ca2), renewal_peakedness(lam, ca2), False
    for swing, hold_s in ((0.3, 1.0), (0.6, 0.3), (0.6, 3.0)):
        stream = chains.two_rates(lam * (1.0 - swing), lam * (1.0 + swing), hold_s, hold_s)
        z = 1.0 + swing**2 * lam / (1.0 + 2.0 / hold_s)
        yield f"MMPP +-{swing:.0%} {hold_s:g} s", stream, z, hold_s > 1.0


def renewal_peakedness(lam: float, ca2: float) -> float:
    """z of renewals with exponential service of mean 1: 1 / (1 - E e^-gap) - lam."""
    p, rates = chains.balanced(ca2)
    transform = sum(q * lam * r / (lam * r + 1.0) for q, r in zip((p, 1.0 - p), rates, strict=True))
    return 1.0 / (1.0 - transform) - lam


def general(sizes: Sequence[int] = (1, 2, 4, 8, 16, 64)) -> Iterator[Row]:
    for c, cs2, rho in product(sizes, (0.0, 0.5, 2.0, 4.0, 9.0), (0.5, 0.7, 0.8, 0.9, 0.95)):
        if c > 16 and cs2 not in (0.0, 4.0):
            continue  # many states, and nothing new
        lam, room = rho * c, chains.room_for(rho ** min(1.0, 2.0 / (1.0 + cs2)))
        if cs2 == 0.0:
            truth = chains.constant_service(lam, c)
        else:
            truth = chains.queue_of(chains.poisson_arrivals(lam), chains.service_of(cs2), c, room)
        if truth.mean_wait >= 1.0 / 40.0:  # shorter ones matter to nobody
            name = f"mean_wait_general, cs2 {'<= 4' if cs2 <= 4.0 else '= 9'}"
            value = mean_wait_general(c, lam, 1.0, cs2)
            yield Row(name, f"c {c} load {rho} cs2 {cs2:g}", "mean wait", value, truth.mean_wait)


def counted(windows: int = 20_000) -> Iterator[Row]:
    for lam, swing, hold_s in ((20.0, 0.0, 1.0), (20.0, 0.6, 0.1), (20.0, 0.6, 1.0), (20.0, 0.6, 10.0)):

        def one(seed: int, lam: float = lam, swing: float = swing, hold_s: float = hold_s) -> list[float]:
            return [peakedness(two_rate_counts(lam, swing, hold_s, windows, np.random.default_rng(seed)))]

        ((seen, half),) = over_seeds(one)
        fade = 2.0 / hold_s  # 1/s at which the two rates forget which was on
        index = 1.0 + 2.0 * swing**2 * lam / fade * (1.0 - (1.0 - math.exp(-fade)) / fade)
        z = 1.0 + swing**2 * lam / (1.0 + fade)
        setting = f"20/s +-{swing:.0%} {hold_s:g} s"
        yield Row("peakedness", setting, "z, constant service", seen, index, half)
        if hold_s < 0.2:
            yield Row(
                "(peakedness + 1) / 2, short bursts",
                setting,
                "z, exponential service",
                (seen + 1.0) / 2.0,
                z,
                half / 2.0,
            )
        elif swing:
            yield Row("peakedness, long bursts", setting, "z, exponential service", seen, z, half)


def two_rate_counts(lam: float, swing: float, hold_s: float, windows: int, rng: np.random.Generator) -> Floats:
    """Arrivals in windows of 1 s of a stream whose rate is lam (1 +- swing) in alternating phases of mean hold_s."""
    edges = np.cumsum(rng.exponential(hold_s, int(1.3 * windows / hold_s) + 1000))
    edges = np.concatenate([[0.0], edges])
    rate = lam * (1.0 + swing * np.where(np.arange(edges.size) % 2, 1.0, -1.0))
    passed = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(edges))])
    expected = np.interp(np.arange(windows + 1.0), edges, passed)
    counts: Floats = rng.poisson(np.diff(expected)).astype(float)
    return counts


def levels(kind: str, slots: int) -> list[float]:
    """Rates of a replica: each request as if alone, of `PROFILE`, or with a batch that slows down threefold."""
    if kind == "profile":
        return [PROFILE.rate(n, INPUT, OUTPUT) for n in range(1, slots + 1)]
    return [n / (1.0 + (0.3 * (n - 1) if kind == "steep" else 0.0)) for n in range(1, slots + 1)]


def pooled() -> Iterator[Row]:
    for (replicas, slots), kind, load in product(
        ((2, 2), (2, 4), (2, 8), (3, 2), (3, 4)), ("alone", "profile", "steep"), (0.3, 0.6, 0.8, 0.9)
    ):
        rates = levels(kind, slots)
        lam = load * replicas * rates[-1]
        found = batch_queue(lam, replicas, rates)
        for router in ("central", "shortest"):
            if replicas == 3 and router == "shortest" and load > 0.8:
                continue  # some 40,000 states
            truth = chains.pool(lam, rates, replicas, router, chains.room_for(load))
            setting = f"{replicas} x {slots} {kind} load {load}"
            name = f"batch_queue, {router}, {kind}"
            yield Row(name, setting, "P(wait)", found.p_wait, truth.p_wait, relative=False)
            wait, true_wait = (x.mean_wait / truth.mean_service for x in (found, truth))
            yield Row(name, setting, "mean wait, in services", wait, true_wait, relative=False)
            yield Row(name, setting, "mean service", found.mean_service, truth.mean_service)
            yield Row(name, setting, "mean response", found.mean_response, truth.mean_response)


def pooled_tokens(n: int = 15_000) -> Iterator[Row]:
    """Eight replicas that batch step by step, outputs geometric: nearly the chain with the rates of a full batch."""
    slots, replicas = 16, 8
    rates = step_rates(slots)
    for load, router in product((0.6, 0.9), ("central", "shortest")):
        lam = load * replicas * rates[-1]

        def one(seed: int, lam: float = lam, router: str = router) -> list[float]:
            rng = np.random.default_rng(seed)
            tokens = np.full(n, INPUT), rng.geometric(1.0 / OUTPUT, n)
            found = run(poisson_times(lam, n, rng), replicas, slots, router, None, seed, tokens)
            return [float(after_start(found.end_s - found.arrive_s).mean())]

        ((truth, half),) = over_seeds(one)
        value = batch_queue(lam, replicas, rates).mean_response
        setting = f"{replicas} x {slots} load {load}"
        yield Row(f"batch_queue, {router}, step by step", setting, "mean response", value, truth, half)


def step_rates(slots: int) -> list[float]:
    """Requests a second of a replica of `PROFILE` with n in the batch, outputs geometric, from its steps themselves."""
    steps, context = OUTPUT + 1.0, OUTPUT * INPUT + INPUT + OUTPUT * (OUTPUT - 1.0)  # of a geometric output
    each = (PROFILE.beta * (INPUT + OUTPUT) + PROFILE.gamma * context) / steps
    return [n / (steps * (PROFILE.alpha + n * each)) for n in range(1, slots + 1)]


def bounded() -> Iterator[Row]:
    for (replicas, slots), kind, load, room in product(
        ((1, 4), (2, 2), (2, 4), (3, 4)), ("alone", "profile", "steep"), (0.6, 0.9, 1.3), (0, 3, 10)
    ):
        rates = levels(kind, slots)
        lam = load * replicas * rates[-1]
        found, truth = loss_queue(lam, replicas, rates, room), chains.pool(lam, rates, replicas, "central", room)
        setting = f"{replicas} x {slots} {kind} load {load} room {room}"
        name = f"loss_queue, {'one replica' if replicas == 1 else kind}"
        yield Row(name, setting, "P(loss)", found.p_loss, truth.p_loss, relative=False)
        yield Row(name, setting, "P(wait)", found.p_wait, truth.p_wait, relative=False)
        yield Row(name, setting, "mean response", found.mean_wait + found.mean_service, truth.mean_response)


def routed(n: int = 12_000) -> Iterator[Row]:
    for (replicas, slots), load in product(((2, 2), (2, 4), (3, 4), (4, 2)), (0.5, 0.7, 0.9)):
        if load > {2: 0.9, 3: 0.7, 4: 0.5}[replicas]:
            continue  # too many states
        rates = levels("alone", slots)
        truth = chains.pool(load * replicas * slots, rates, replicas, "two-choices", chains.room_for(load**2, 4))
        found, setting = power_of_choices(load * slots, rates), f"{replicas} x {slots} load {load}"
        yield Row("power_of_choices, few", setting, "P(wait)", found.p_wait, truth.p_wait, relative=False)
        yield Row("power_of_choices, few", setting, "mean wait", found.mean_wait, truth.mean_wait)
    for replicas, load in product((8, 16, 32, 100), (0.7, 0.9, 0.95)):
        lam = load * 8

        def one(seed: int, replicas: int = replicas, lam: float = lam) -> list[float]:
            rng, many = np.random.default_rng(seed), n * replicas // 16
            service = rng.exponential(1.0, many)
            found = run(poisson_times(lam * replicas, many, rng), replicas, 8, "two-choices", service, seed)
            wait = after_start(found.start_s - found.arrive_s)
            return [float((wait > 1e-9).mean()), float(wait.mean())]

        (p_wait, half), (wait, wide) = over_seeds(one)
        found, setting = power_of_choices(lam, levels("alone", 8)), f"{replicas} x 8 load {load}"
        name = "power_of_choices, 100" if replicas == 100 else "power_of_choices, 8 to 32"
        yield Row(name, setting, "P(wait)", found.p_wait, p_wait, half, relative=False)
        yield Row(name, setting, "mean wait", found.mean_wait, wait, wide)


def closed() -> Iterator[Row]:
    for c, think_s, part in product((1, 4, 16, 64), (0.5, 4.0, 20.0), (0.5, 0.8, 1.0, 1.2, 2.0)):
        n = max(1, round(part * c * (1.0 + think_s)))
        truth = chains.repairmen(n, think_s, c, 1.0)
        rate = closed_rate(n, think_s, c=c, mu=1.0)
        setting, name = f"{n} users think {think_s:g} c {c}", f"closed_rate, c = {c}"
        yield Row(name, setting, "rate", rate, n / (think_s + truth.mean_response))
        yield Row(name, setting, "mean response", mean_response(c, rate, 1.0), truth.mean_response)


def heavy() -> Iterator[Row]:
    for a, beta in product((10.0, 100.0, 1e4, 1e6), (0.2, 1.0, 2.0)):
        c = a + beta * math.sqrt(a)
        yield Row(
            f"halfin_whitt, a = {a:g}", f"beta {beta}", "P(wait)", halfin_whitt(beta), erlang_c(c, a), relative=False
        )


def batch(n: int = 3000) -> Iterator[Row]:
    """One replica that is always full: its rate by its steps."""
    for (kind, profile, i, o), slots in product(REPLICAS, (1, 4, 16, 64)):
        setting = f"n {slots} {kind}"
        yield Row(
            "BatchProfile.rate", setting, "requests per second", profile.rate(slots, i, o), full(profile, i, o, slots)
        )
        many = min(n, 600 * slots)

        def one(
            seed: int, profile: BatchProfile = profile, i: int = i, o: int = o, slots: int = slots, many: int = many
        ) -> list[float]:
            outputs = np.random.default_rng(seed).geometric(1.0 / o, many)
            found = run(np.zeros(many), 1, slots, "central", None, seed, (np.full(many, i), outputs), profile)
            ends = np.sort(found.end_s)
            low, high = many // 5, many - many // 5
            counted = zip(*np.unique(outputs, return_counts=True), strict=True)
            sizes = tuple((float(p) / many, float(i), float(k)) for k, p in counted)
            return [(high - low) / float(ends[high] - ends[low]) * profile.mean_service_time(slots, sizes) / slots]

        ((truth, half),) = over_seeds(one)
        yield Row("BatchProfile.mean_service_time", setting, "rate, of the predicted", 1.0, truth, half)


def full(profile: BatchProfile, i: int, o: int, slots: int) -> float:
    """Requests per second of a full replica, all alike: the first arrive evenly spread over a service time."""
    many = 12 * slots
    times = np.minimum(np.arange(many), slots - 1) * profile.service_time(slots, i, o) / slots
    found = run(times, 1, slots, "central", None, 1, (np.full(many, i), np.full(many, o)), profile)
    return slots / float((found.end_s - found.start_s)[2 * slots : -slots].mean())
