"""Random loads: families of arrivals, sizes, replicas and objectives, all from a seed; and the recorded traces.

A load is reachable by construction: the targets leave time for the prefill in a full batch, and 1.3 times the service
at 70% of the slots. Seeds 1 to 100 and the first halves of the traces are to develop on. The others are to judge by,
and are run once, when the rules are final.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.autoscaling.measure import A100_8B, servegen
from tierserve.api.presets import ACCELERATORS, RESERVE
from tierserve.api.v1alpha1.models import Model
from tierserve.api.v1alpha1.tiers import Hardware
from tierserve.loadgen.traces import trace_names
from tierserve.loadgen.workloads import traced
from tierserve.plan.hardware import ENGINE_SLOTS, Tokens, memory_slots, roofline
from tierserve.queueing import BatchProfile
from tierserve.simulate.types import Floats, Ints, Objective, Pool, Workload
from tierserve.simulate.workload import Sizes, bursts, stream, thickened

Part = Literal["develop", "judge"]
DEVELOP = range(1, 101)
JUDGE = range(101, 301)
STARTUPS_S = (10.0, 30.0, 103.0, 439.0)
PERCENTILES = (90.0, 95.0, 99.0)
TTFTS_S = (2.0, 5.0, 10.0, 30.0)
LEAST_RATE, MOST_RATE = 0.2, 200.0
MOST_REQUESTS, MOST_REQUESTS_DAILY = 500_000, 400_000
MEAN_REPLICAS, PEAK_REPLICAS = 300.0, 1000.0
"""Rates are lowered until the mean and the peak need no more replicas than this: larger pools take long to simulate."""
MOST_STARTUPS = 540.0
"""Start-up times in a load at most (but for the daily ones, whose start-up is 103 s or more): rules that decide in time
with it make so many more decisions, which is what takes the time."""
SMALL_SHARE = 0.1
"""Share of the loads that one replica may serve; the mean of the others needs a replica at least."""
MOST_INPUT, MOST_OUTPUT = 32_768, 8192
SHORT_DWELL_S = 120.0
"""A load that alternates faster than this counts as stationary: most replicas take longer to start."""
TRACE_FACTORS = (1, 3, 10, 30)
SPREAD_S = 5.0
DAY_S = 86_400.0


@dataclass(frozen=True)
class Load:
    """A workload and the pool that serves it.

    Attributes:
        name: as on the command line and in tables.
        seed: of all random numbers; 0: a trace.
        family: which kind of load.
        about: its parameters, for people.
        workload: the requests.
        pool: replicas and objective; `input_tokens` and `output_tokens` are the means over the load.
        judged_from_s, judged_to_s: requests that arrive in between count.
        stationary: whether its rate is constant, or alternates faster than replicas start.
        daily: whether it repeats by the day.
    """

    name: str
    seed: int
    family: str
    about: str
    workload: Workload
    pool: Pool
    judged_from_s: float
    judged_to_s: float
    stationary: bool
    daily: bool

    @property
    def judged_hours(self) -> float:
        """Length of the judged part."""
        return (self.judged_to_s - self.judged_from_s) / 3600.0


@dataclass(frozen=True)
class Frame:
    """What a family gets: mean rate, length, sizes, and the mean service of a request at 70% of the slots."""

    rate: float
    length_s: float
    sizes: Sizes
    service_s: float
    work_s: float
    """Seconds of a full replica that a request takes."""

    @property
    def most(self) -> float:
        """The highest rate of any moment."""
        return PEAK_REPLICAS / self.work_s


@dataclass(frozen=True)
class Drawn:
    """Arrivals of a family, with their parameters; `stationary` as in `Load`."""

    workload: Workload
    about: str
    stationary: bool = False


Dice = np.random.Generator
Family = Callable[[Frame, Dice], Drawn]


def log_uniform(dice: Dice, low: float, high: float) -> float:
    return float(np.exp(dice.uniform(math.log(low), math.log(high))))


def _seed(dice: Dice) -> int:
    return int(dice.integers(1 << 31))


def _piecewise(frame: Frame, dice: Dice, ends: Floats, levels: Floats, *, jumps: bool) -> Workload:
    """A stream through levels relative to each other, scaled to the mean rate: in jumps at `ends`, or in ramps."""
    if jumps:
        spans = np.diff(np.concatenate([[0.0], np.minimum(ends, frame.length_s)]))
        mean = float((levels * spans).sum() / frame.length_s)
    else:
        grid = np.linspace(0.0, frame.length_s, 2000)
        mean = float(np.interp(grid, ends, levels).mean())
    scaled = np.minimum(levels * frame.rate / mean, frame.most)

    def rate(t: Floats) -> Floats:
        if jumps:
            found: Floats = scaled[np.minimum(np.searchsorted(ends, t, side="right"), scaled.size - 1)]
            return found
        return np.interp(t, ends, scaled)

    return stream(rate, float(scaled.max()), frame.length_s, frame.sizes, seed=_seed(dice), name="")


def poisson(frame: Frame, dice: Dice) -> Drawn:
    """Constant rate, Poisson."""
    work = _piecewise(frame, dice, np.array([frame.length_s]), np.ones(1), jumps=True)
    return Drawn(work, "", stationary=True)


def _alternating(frame: Frame, dice: Dice, low_share: float, ratio: float, low_s: float, high_s: float) -> Workload:
    mean = (low_share * low_s + ratio * high_s) / (low_s + high_s)
    high = min(frame.rate * ratio / mean, frame.most)
    return bursts(
        high * low_share / ratio, high, low_s=low_s, high_s=high_s, length_s=frame.length_s, sizes=frame.sizes,
        seed=_seed(dice),
    )  # fmt: skip


def mmpp(frame: Frame, dice: Dice) -> Drawn:
    """Markov-modulated Poisson: two rates of ratio 2 to 8, held 20 s to 15 min each."""
    ratio = dice.uniform(2.0, 8.0)
    low_s, high_s = (log_uniform(dice, 20.0, 900.0) for _ in range(2))
    work = _alternating(frame, dice, 1.0, ratio, low_s, high_s)
    about = f"rates 1:{ratio:.1f}, held {low_s:.0f} and {high_s:.0f} s"
    return Drawn(work, about, max(low_s, high_s) < SHORT_DWELL_S)


def on_off(frame: Frame, dice: Dice) -> Drawn:
    """Nothing, then everything: a rate and 0, held 20 s to 15 min each, on for at least a seventh of the time."""
    off_s = log_uniform(dice, 20.0, 900.0)
    on_s = log_uniform(dice, max(20.0, off_s / 6.0), 900.0)
    work = _alternating(frame, dice, 0.0, 1.0, off_s, on_s)
    return Drawn(work, f"on {on_s:.0f} s, off {off_s:.0f} s", max(on_s, off_s) < SHORT_DWELL_S)


def steps(frame: Frame, dice: Dice) -> Drawn:
    """Steps up and down: levels within a factor of 10, held 3 to 40 min each."""
    spans: list[float] = []
    while sum(spans) < frame.length_s:
        spans.append(log_uniform(dice, 180.0, 2400.0))
    levels = np.exp(dice.uniform(0.0, math.log(10.0), len(spans)))
    work = _piecewise(frame, dice, np.cumsum(spans), levels, jumps=True)
    return Drawn(work, f"{len(spans)} levels")


def ramps(frame: Frame, dice: Dice) -> Drawn:
    """Ramps: straight lines between levels within a factor of 10, of 3 to 40 min each."""
    ends = [0.0]
    while ends[-1] < frame.length_s:
        ends.append(ends[-1] + log_uniform(dice, 180.0, 2400.0))
    levels = np.exp(dice.uniform(0.0, math.log(10.0), len(ends)))
    work = _piecewise(frame, dice, np.array(ends), levels, jumps=False)
    return Drawn(work, f"{len(ends) - 1} ramps")


def growth(frame: Frame, dice: Dice) -> Drawn:
    """Growth by 2% to 30% a minute, up to 100 times, from a constant rate to a constant rate."""
    begin_s = frame.length_s * dice.uniform(0.1, 0.4)
    share = log_uniform(dice, 0.02, 0.3)
    times = min(log_uniform(dice, 3.0, 100.0), (1.0 + share) ** ((frame.length_s - begin_s) / 60.0))
    grid = np.linspace(0.0, frame.length_s, 1000)
    levels = np.minimum((1.0 + share) ** (np.maximum(grid - begin_s, 0.0) / 60.0), times)
    work = _piecewise(frame, dice, grid, levels, jumps=False)
    return Drawn(work, f"{share:.1%} a minute from {begin_s:.0f} s, {times:.0f} times")


def daily(frame: Frame, dice: Dice) -> Drawn:
    """Two to three days: a wave, or a working day with steep mornings; nights 3 to 20 times lower; noise; days differ.

    Nights, hours and the noise (per ten minutes) are the load's own; each day has its own height and delay.
    """
    days = math.ceil(frame.length_s / DAY_S)
    peak, noise = log_uniform(dice, 3.0, 20.0), dice.uniform(0.02, 0.15)
    up, wave = dice.uniform(6.0, 10.0), bool(dice.random() < 0.5)
    rise = log_uniform(dice, 0.25, 3.0)
    late = dice.normal(0.0, 0.1, days)
    height = np.exp(dice.normal(0.0, 0.1, days))
    grid = np.arange(0.0, frame.length_s + 600.0, 600.0)
    day = np.minimum((grid / DAY_S).astype(int), days - 1)
    hour = (grid - day * DAY_S) / 3600.0 - late[day]
    shape = (
        0.5 - 0.5 * np.cos((hour - up + 6.0) * math.pi / 12.0)
        if wave
        else np.interp(hour, (up, up + rise, up + 10.0, up + 14.0), (0.0, 1.0, 1.0, 0.0))
    )
    levels = (1.0 + (peak - 1.0) * shape) * height[day] * np.exp(dice.normal(0.0, noise, grid.size))
    work = _piecewise(frame, dice, grid, levels, jumps=False)
    kind = "wave" if wave else f"working day, up within {rise:.1f} h"
    return Drawn(work, f"{kind}, 1:{peak:.0f}, noise {noise:.0%}")


def spikes(frame: Frame, dice: Dice) -> Drawn:
    """Constant rate with isolated spikes: 3 to 10 times the rate for 10 to 120 s, 1 to 4 an hour."""
    count = max(1, round(frame.length_s / 3600.0 * dice.uniform(1.0, 4.0)))
    begins = np.sort(dice.uniform(0.0, frame.length_s, count))
    spans, heights = np.exp(dice.uniform(math.log(10.0), math.log(120.0), count)), dice.uniform(3.0, 10.0, count)
    ends: list[float] = []
    levels: list[float] = []
    for begin, span, high in zip(begins, spans, heights, strict=True):
        if ends and begin < ends[-1]:
            continue  # isolated: one at a time
        ends += [float(begin), float(begin + span)]
        levels += [1.0, float(high)]
    work = _piecewise(frame, dice, np.array([*ends, frame.length_s]), np.array([*levels, 1.0]), jumps=True)
    return Drawn(work, f"{len(ends) // 2} spikes")


def batches(frame: Frame, dice: Dice) -> Drawn:
    """Compound Poisson: batches of geometric size, 3 to 30 on average, each at one moment."""
    mean = log_uniform(dice, 3.0, 30.0)
    moments = np.sort(dice.uniform(0.0, frame.length_s, dice.poisson(frame.rate / mean * frame.length_s)))
    times = np.repeat(moments, dice.geometric(1.0 / mean, moments.size))
    work = Workload(times, *frame.sizes.draw(times.size, dice), frame.length_s)
    return Drawn(work, f"batches of {mean:.0f}", stationary=True)


def heavy_tailed(frame: Frame, dice: Dice) -> Drawn:
    """Poisson with heavy-tailed sizes: lognormal with a coefficient of variation of 2 to 4, or Pareto."""
    work = poisson(frame, dice).workload
    if dice.random() < 0.5:
        cv = dice.uniform(2.0, 4.0)
        sizes = replace(frame.sizes, cv=cv)
        return Drawn(replace_sizes(work, *sizes.draw(len(work), dice)), f"lognormal, cv {cv:.1f}", stationary=True)
    shape = dice.uniform(1.6, 2.2)  # up to 2 without a variance; what is beyond the model's context is cut

    def pareto(mean: float) -> Ints:
        return np.maximum(np.rint(mean * (shape - 1.0) / shape * (1.0 + dice.pareto(shape, len(work)))), 1.0).astype(
            np.int64
        )

    drawn = replace_sizes(work, pareto(frame.sizes.input), pareto(frame.sizes.output))
    return Drawn(drawn, f"Pareto, exponent {shape:.1f}", stationary=True)


def long_prompts(frame: Frame, dice: Dice) -> Drawn:
    """Poisson with prompts of 8k to 32k tokens and short answers."""
    return Drawn(poisson(frame, dice).workload, "", stationary=True)


def closed(frame: Frame, dice: Dice) -> Drawn:
    """Closed loop: N connections that think (exponential, 5 to 60 s) between requests; N changes at 2 or 3 moments.

    A request takes as long as in a batch of 70% of the slots: the simulator's arrivals cannot depend on its answers.
    """
    think_s = log_uniform(dice, 5.0, 60.0)
    cycle_s = think_s + frame.service_s
    changes = int(dice.integers(2, 4))
    ends = np.append(np.sort(dice.uniform(0.1, 0.9, changes)), 1.0) * frame.length_s
    levels = np.exp(dice.uniform(0.0, math.log(6.0), ends.size))
    begins = np.concatenate([[0.0], ends[:-1]])
    mean = float((levels * (ends - begins)).sum() / frame.length_s)
    counts = np.maximum(np.rint(levels * frame.rate * cycle_s / mean), 1).astype(int)
    times: list[Floats] = []
    for connection in range(int(counts.max())):
        free_s, moments = 0.0, []
        for begin, end, count in zip(begins, ends, counts, strict=True):
            if connection >= count:
                continue
            t = max(free_s, float(begin)) + dice.exponential(think_s)
            while t < end:
                moments.append(t)
                free_s = t + frame.service_s
                t = free_s + dice.exponential(think_s)
        times.append(np.array(moments))
    merged = np.sort(np.concatenate(times))
    work = Workload(merged, *frame.sizes.draw(merged.size, dice), frame.length_s)
    return Drawn(work, f"{', '.join(str(n) for n in counts)} connections, thinking {think_s:.0f} s")


FAMILIES: dict[str, Family] = {
    "poisson": poisson,
    "mmpp": mmpp,
    "on-off": on_off,
    "steps": steps,
    "ramps": ramps,
    "growth": growth,
    "daily": daily,
    "spikes": spikes,
    "batches": batches,
    "heavy-tailed": heavy_tailed,
    "long-prompts": long_prompts,
    "closed": closed,
}


def replace_sizes(work: Workload, inputs: Ints, outputs: Ints) -> Workload:
    return replace(work, input_tokens=np.clip(inputs, 1, MOST_INPUT), output_tokens=np.clip(outputs, 1, MOST_OUTPUT))


def _bytes(text: str) -> float:
    return float(text.removesuffix("Gi")) * 2**30


def _hardware(preset: str, gpus: int) -> Hardware:
    a = ACCELERATORS[preset]
    memory, flops = _bytes(a.memory), float(a.flops.removesuffix("T")) * 1e12
    return Hardware(a.name, memory, RESERVE * memory, flops, a.bandwidth, a.idle_w, a.max_w, a.price, gpus, a.resource)


@dataclass(frozen=True)
class Replica:
    """A model on its accelerators."""

    name: str
    model: str
    preset: str
    gpus: int

    def of(self, i: float, o: float) -> tuple[BatchProfile, int]:
        """Step times and slots, for requests of i input and o output tokens."""
        if self.preset == "A100":
            return A100_8B, 32
        model, hardware, tokens = Model(name=self.model, engine="vllm"), _hardware(self.preset, self.gpus), Tokens(i, o)
        slots = min(memory_slots(model, hardware, tokens), ENGINE_SLOTS[model.engine])
        return roofline(model, hardware, tokens), max(slots, 1)


REPLICAS = (
    Replica("8B on A100", "8b", "A100", 1),
    Replica("8B on L4", "8b", "L4", 1),
    Replica("70B on 4 H100", "70b", "H100", 4),
)


def services_s(work: Workload, profile: BatchProfile, n: float) -> Floats:
    """Return the service time of each request of the load, in a batch of n of the same load."""
    i, o = work.input_tokens.astype(np.float64), work.output_tokens.astype(np.float64)
    # as `BatchProfile.service_times`, over many sizes
    adds = profile.beta * (i + o) + profile.gamma * (1.0 + o) * (i + o / 2.0)
    step = profile.alpha + (n - 1.0) * adds.mean() / (1.0 + o).mean()
    own = (profile.beta + profile.gamma) * i + o * (profile.beta + profile.gamma * (i + o / 2.0))
    found: Floats = (1.0 + o) * step + own
    return found


def response_s(work: Workload, profile: BatchProfile, slots: int, ttft_s: float, percentile: float) -> float:
    """Return the target of the response: that of the first token, and 1.3 times the service at 70% of the slots."""
    service = services_s(work, profile, max(0.7 * slots, 1.0))
    return ttft_s + 1.3 * float(np.quantile(service, percentile / 100.0))


def least_ttft_s(work: Workload, profile: BatchProfile, slots: int, percentile: float, *, long: bool) -> float:
    """Return the least target for the first token: what a user would set who has seen the prompts.

    It is twice the mean prefill in a full batch, 4 times where prompts are long, as they wait for each other's. And it
    is 1.5 times the prefill of the longest prompts that must keep it, at 70% of the slots.
    """
    i, o = float(work.input_tokens.mean()), float(work.output_tokens.mean())
    longest = float(np.quantile(work.input_tokens, percentile / 100.0))
    others_s = profile.iteration(max(0.7 * slots, 1.0) - 1.0, i, o)
    alone_s = (profile.beta + profile.gamma) * longest
    return max((4.0 if long else 2.0) * profile.prefill(slots, i, o), 1.5 * (others_s + alone_s))


def _target_s(dice: Dice, least_s: float) -> float:
    """A target for the first token at random, one that leaves `least_s`."""
    enough = [one for one in TTFTS_S if one >= least_s]
    return float(dice.choice(enough)) if enough else float(math.ceil(least_s))


def _drawn(family: str, dice: Dice, startup_s: float) -> tuple[Replica, Sizes, float, float]:
    """Return replicas, sizes, rate and length at random, for a bounded number of requests."""
    replica = REPLICAS[dice.integers(len(REPLICAS))]
    sizes = Sizes(log_uniform(dice, 100.0, 4000.0), log_uniform(dice, 30.0, 800.0), dice.uniform(0.2, 1.2))
    if family == "long-prompts":
        sizes = Sizes(dice.uniform(8000.0, 32_000.0), log_uniform(dice, 20.0, 200.0), dice.uniform(0.1, 0.4))
    if family == "daily":
        length_s = DAY_S * float(dice.integers(2, 4))
        return replica, sizes, min(log_uniform(dice, LEAST_RATE, 10.0), MOST_REQUESTS_DAILY / length_s), length_s
    rate, length_s = (
        log_uniform(dice, LEAST_RATE, MOST_RATE),
        dice.uniform(3600.0, min(3 * 3600.0, MOST_STARTUPS * startup_s)),
    )
    length_s = max(min(length_s, MOST_REQUESTS / rate), 3600.0)
    return replica, sizes, min(rate, MOST_REQUESTS / length_s), length_s


def load_of(seed: int, family: str | None = None) -> Load:
    """Return the load of a seed; its family follows from the seed unless given."""
    names = list(FAMILIES)
    family = family or names[seed % len(names)]
    dice = np.random.default_rng([seed, names.index(family)])
    startup_s = float(dice.choice(STARTUPS_S[2:] if family == "daily" else STARTUPS_S))
    percentile = float(dice.choice(PERCENTILES))
    small = bool(dice.random() < SMALL_SHARE)
    while True:
        replica, sizes, rate, length_s = _drawn(family, dice, startup_s)
        profile, slots = replica.of(sizes.input, sizes.output)
        work_s = profile.service_time(slots, sizes.input, sizes.output) / slots
        rate = min(rate, MEAN_REPLICAS / work_s)
        if small or rate * work_s >= 1.0:
            break
    service_s = profile.service_time(max(0.7 * slots, 1.0), sizes.input, sizes.output)
    drawn = FAMILIES[family](Frame(rate, length_s, sizes, service_s, work_s), dice)
    work = replace_sizes(drawn.workload, drawn.workload.input_tokens, drawn.workload.output_tokens)
    work = replace(work, name=f"{family}-{seed}", source="synthetic")
    i, o = float(work.input_tokens.mean()), float(work.output_tokens.mean())
    profile, slots = replica.of(i, o)
    ttft_s = _target_s(dice, least_ttft_s(work, profile, slots, percentile, long=family == "long-prompts"))
    goal = Objective(response_s(work, profile, slots, ttft_s, percentile), ttft_s, percentile=percentile)
    pool = Pool(profile, slots, startup_s, goal, i, o, max_replicas=2000, gpus=float(replica.gpus))
    about = (
        f"{replica.name}, {slots} slots, start-up {startup_s:g} s; {len(work) / length_s:.3g}/s for "
        f"{length_s / 3600.0:.1f} h, {i:.0f} + {o:.0f} tokens; p{percentile:g} within {ttft_s:g} s (first token) and "
        f"{goal.response_s:.0f} s{'; ' if drawn.about else ''}{drawn.about}"
    )
    begin_s = 2.0 * startup_s
    return Load(work.name, seed, family, about, work, pool, begin_s, length_s, drawn.stationary, family == "daily")


_TRACE_TARGETS = {"azure-code": Objective(30.0, 5.0), "mooncake-conversation": Objective(120.0, 30.0)}
TRACE_STARTUP_S = 103.0
TRACE_SLOTS = 32
TRACES = (*(f"{name}-x{factor}" for name in trace_names() for factor in TRACE_FACTORS), "servegen")


def trace_of(name: str, part: Part) -> Load:
    """Return a trace by its name in `TRACES`, the first half judged to develop on, the second one to judge by."""
    if name == "servegen":
        work = servegen()
        goal = Objective(response_s(work, A100_8B, TRACE_SLOTS, 5.0, 95.0), 5.0)
        about = "ServeGen m-small, 2 days, mean 3/s"
    else:
        trace, factor = name.rsplit("-x", 1)
        work = thickened(traced(trace), int(factor), SPREAD_S)
        goal = _TRACE_TARGETS[trace]
        about = f"{trace}, each request as {factor} within {SPREAD_S:g} s"
    goal = replace(goal, percentile=95.0)
    i, o = float(work.input_tokens.mean()), float(work.output_tokens.mean())
    pool = Pool(A100_8B, TRACE_SLOTS, TRACE_STARTUP_S, goal, i, o, max_replicas=2000)
    half_s = work.length_s / 2.0
    begin_s, end_s = (2.0 * TRACE_STARTUP_S, half_s) if part == "develop" else (half_s, work.length_s)
    about = (
        f"{about}; 8B on A100, start-up {TRACE_STARTUP_S:g} s; p95 within {goal.ttft_s:g} s (first token) and "
        f"{goal.response_s:.0f} s"
    )
    return Load(name, 0, "trace", about, work, pool, begin_s, end_s, stationary=False, daily=name == "servegen")


def traces(part: Part = "develop") -> list[Load]:
    """Return all traces, for one half."""
    return [trace_of(name, part) for name in TRACES]
