"""The cost of a wrong profile, with and without calibration: desired replicas and late responses, in virtual time.

    python -m bench.autoscaling.calibration

Replicas are batches of the emulated engine (`tierserve_serving.engines.batch`), the decision is the real one every half
second, with the metrics that gateway and replicas report. The requests are the same in each run: the rate rises and
falls between that of one replica and that of eleven. Written to docs/benchmarks/calibration.md with `--write`.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from tierserve.autoscale.decide import Decision, GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.types import StepCounts
from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.engines.base import Usage
from tierserve_serving.engines.batch import Batch, Job
from tierserve_serving.replica.stats import ReplicaStats

TRUE = BatchProfile(alpha=0.012, beta=4e-4, gamma=6e-6)
SLOTS, INPUT, OUTPUT = 8, 60.0, 40.0
FULL_S = TRUE.service_time(SLOTS, INPUT, OUTPUT)
TARGET_S, STARTUP_S, SECONDS, WARM_S = 1.6 * FULL_S, 10.0, 900.0, 60.0
MOST = 12.0
PROFILES = {
    "right": TRUE,
    "all coefficients 40% too fast": BatchProfile(0.6 * TRUE.alpha, 0.6 * TRUE.beta, 0.6 * TRUE.gamma),
    "beta and gamma 60% too fast": BatchProfile(TRUE.alpha, 0.4 * TRUE.beta, 0.4 * TRUE.gamma),
    "all coefficients 40% too slow": BatchProfile(1.4 * TRUE.alpha, 1.4 * TRUE.beta, 1.4 * TRUE.gamma),
}
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "calibration.md"


@dataclass(eq=False)
class Replica:
    """An engine with its counters, ready at a time."""

    name: str
    ready: float
    batch: Batch = field(default_factory=lambda: Batch(TRUE))
    stats: ReplicaStats = field(default_factory=ReplicaStats)
    came: dict[int, tuple[float, float]] = field(default_factory=dict)
    draining: bool = False


@dataclass
class Run:
    """One pool under the load. `reports_steps`: whether replicas report the times of their steps."""

    given: BatchProfile
    reports_steps: bool
    seed: int
    replicas: list[Replica] = field(default_factory=list)
    queue: deque[tuple[float, Job]] = field(default_factory=deque)
    decisions: list[Decision] = field(default_factory=list)
    late: int = 0
    answered: int = 0
    late_warm: int = 0
    answered_warm: int = 0
    arrived: int = 0
    made: int = 0
    target: int = 1

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.settings = Settings(
            TARGET_S,
            service_s=self.given.service_time(SLOTS, INPUT, OUTPUT),
            slots=SLOTS,
            startup_s=STARTUP_S,
            profile=self.given,
            input_tokens=INPUT,
            output_tokens=OUTPUT,
        )
        self.state = State()
        self._start(0.0)

    def go(self) -> Run:
        """Run to the end of the load."""
        now, arrival, tick = 0.0, self._next_arrival(0.0), 0.5
        while now < SECONDS:
            due = [(one.batch.next_event(), one) for one in self.replicas if one.batch.jobs]
            soonest, busy = min(due, key=lambda pair: pair[0], default=(math.inf, None))
            now = min(arrival, tick, soonest)
            if now == soonest and busy is not None:
                self._answer(busy, now)
            elif now == arrival:
                self.arrived += 1
                i, o = (max(1, round(self.chance.gammavariate(4.0, m / 4.0))) for m in (INPUT, OUTPUT))
                self.queue.append((now, Job(i, o)))
                arrival = self._next_arrival(now)
            else:
                self._decide(now)
                tick += 0.5
            self._dispatch(now)
        return self

    def _next_arrival(self, now: float) -> float:
        """A Poisson stream, thinned."""
        most = MOST * SLOTS / FULL_S
        while True:
            now += self.chance.expovariate(most)
            share = 0.5 - 0.45 * math.cos(2.0 * math.pi * now / 300.0)
            if self.chance.random() < share:
                return now

    def _answer(self, replica: Replica, now: float) -> None:
        for progress in replica.batch.advance(now):
            if not progress.done:
                continue
            job = progress.job
            asked, began = replica.came.pop(id(job))
            timing = job.timing()
            usage = Usage(job.input_tokens, job.output_tokens, (timing,) if timing else ())
            replica.stats.completed(now - began, usage)
            late = now - asked > TARGET_S
            self.answered += 1
            self.late += late
            if asked > WARM_S:
                self.answered_warm += 1
                self.late_warm += late
        if replica.draining and not replica.batch.jobs:
            self.replicas.remove(replica)

    def _dispatch(self, now: float) -> None:
        while self.queue:
            free = [r for r in self.replicas if r.ready <= now and not r.draining and len(r.batch.jobs) < SLOTS]
            if not free:
                return
            asked, job = self.queue.popleft()
            one = min(free, key=lambda r: len(r.batch.jobs))
            one.stats.arrived(0.0)
            one.came[id(job)] = (asked, now)
            one.batch.join(job, now)

    def _decide(self, now: float) -> None:
        serving = [r for r in self.replicas if r.ready <= now and not r.draining]
        reports = {r.name: r.stats.report(running=len(r.batch.jobs), waiting=0, slots=SLOTS) for r in serving}
        samples = {
            name: ReplicaSample(
                now, r["arrivals_total"], r["completions_total"], r["service_seconds_total"],
                r["service_seconds_sq_total"], running=r["running"],
            )
            for name, r in reports.items()
        }  # fmt: skip
        steps = {name: StepCounts(*(r[f"{f}_total"] for f in StepCounts._fields)) for name, r in reports.items()}
        in_flight = float(sum(len(r.batch.jobs) for r in self.replicas))
        gateway = GatewaySample(now, self.arrived, len(self.queue), in_flight, self.answered, self.late, bypassed=0.0)
        obs = Observation(
            now, len(serving), self.target, 1, 100, samples, gateway, steps=steps if self.reports_steps else {}
        )
        decision, self.state = decide(obs, self.state, self.settings)
        self.decisions.append(decision)
        self.target = decision.replicas
        self._follow(now)

    def _follow(self, now: float) -> None:
        there = [r for r in self.replicas if not r.draining]
        for _ in range(self.target - len(there)):
            self._start(now + STARTUP_S)
        spare = sorted(there, key=lambda r: (r.ready <= now, len(r.batch.jobs)))
        for one in spare[: max(len(there) - self.target, 0)]:
            one.draining = True
            if not one.batch.jobs:
                self.replicas.remove(one)

    def _start(self, ready: float) -> None:
        self.made += 1
        self.replicas.append(Replica(f"r{self.made}", ready))


def mean_replicas(run: Run) -> float:
    seen = [d.replicas for d in run.decisions if d.t > WARM_S]
    return sum(seen) / len(seen)


def rows(seeds: int) -> list[tuple[str, str, float, float, float, str]]:
    """Return profile, calibration, mean replicas, % late in the first minute and after it, and the error of T(full)."""
    found = []
    for what, given in PROFILES.items():
        for reports_steps in (False, True):
            runs = [Run(given, reports_steps, seed).go() for seed in range(seeds)]
            first = sum(r.late - r.late_warm for r in runs) / sum(r.answered - r.answered_warm for r in runs)
            late = sum(r.late_warm for r in runs) / sum(r.answered_warm for r in runs)
            errors = [r.decisions[-1].calibration for r in runs]
            known = given.service_time(SLOTS, INPUT, OUTPUT) / FULL_S - 1.0
            ends = [(1.0 + known) / (1.0 + c.profile_error) - 1.0 for c in errors if c is not None and c.used]
            shown = f"{max(ends, key=abs):+.1%}" if ends else f"{known:+.1%}"
            replicas = sum(map(mean_replicas, runs)) / seeds
            found.append((what, "yes" if reports_steps else "no", replicas, 100 * first, 100 * late, shown))
    return found


def table(seeds: int) -> str:
    lines = [
        "| configured profile | calibrated | replicas, mean | late, first minute | late, after | final error of T(8) |",
        "|---|---|---|---|---|---|",
    ]
    for what, calibrated, replicas, first, late, error in rows(seeds):
        lines.append(f"| {what} | {calibrated} | {replicas:.2f} | {first:.1f}% | {late:.2f}% | {error} |")
    return "\n".join(lines)


def page(seeds: int) -> str:
    return f"""# A wrong profile, with and without calibration

Made by `python -m bench.autoscaling.calibration --write`, in virtual time: {seeds} runs of {SECONDS / 60:.0f} minutes
for each row, the same requests for all rows.

Replicas are the batches of the emulated engine: {SLOTS} slots, T({SLOTS}) = {FULL_S:.2f} s. The target is
{TARGET_S:.2f} s at 95%, a start-up takes {STARTUP_S:.0f} s. The load rises from that of one replica to that of
{0.95 * MOST:.0f} and falls again, every five minutes; requests have {INPUT:.0f} and {OUTPUT:.0f} tokens on average,
with a deviation of half the mean. "Not calibrated" is the same decision with replicas that do not report their steps.

{table(seeds)}

The policy plans with the service time of the profile in use, so without calibration an error of the configured one
counts in full. With it the measured profile is in use within the first minute.
"""


def main() -> None:
    """Print the page; write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/calibration.md")
    given = parser.parse_args()
    text = page(given.seeds)
    if given.write:
        PAGE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
