"""Continuous batching in virtual time: each request makes the steps of the others in the batch slower.

`tierserve.queueing.batching.profile` has the times of n equal requests. Here requests differ, and each adds its own
share to the steps of the others: with (i_k, o_k) the tokens of request k, the steps of request j take

    it_j = alpha + sum_{k != j} [beta (i_k + o_k) / (o_k + 1) + gamma (i_k + o_k / 2)]

and the time for its own tokens: one prefill step of it_j + (beta + gamma) i_j and o_j decode steps of it_j + beta +
gamma (i_j + o_j / 2). If all requests are equal, the sum is T(n). The first token comes with the prefill, as in real
engines, the k-th with the k-th step; the last step is that of the end-of-sequence token, which is not sent. Between two
changes of the batch every `it_j` is constant, so progress is integrated exactly from change to change, also if the
caller is late: a late timer delays the output of a request, but not the progress of the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.engines.base import Timing


@dataclass(slots=True, eq=False)
class Job:
    """One request in the batch.

    Attributes:
        input_tokens, output_tokens: its size; output tokens are numbered 1 ... output_tokens.
        streamed: whether every token is an event, or only the end.
        share: seconds that it adds to every step of the other requests.
        prefill_own, decode_own: seconds that it adds to its own prefill step and to each of its decode steps.
        steps: number of its 1 + output_tokens steps that are done, a real number; the first is the prefill.
        reported: tokens already reported to the caller.
        entered, prefilled, left: times of its arrival, of the end of its prefill and of its end, each with the
            request-seconds of the batch up to then.
    """

    input_tokens: int
    output_tokens: int
    streamed: bool = False
    share: float = 0.0
    prefill_own: float = 0.0
    decode_own: float = 0.0
    steps: float = 0.0
    reported: int = 0
    entered: tuple[float, float] | None = None
    prefilled: tuple[float, float] | None = None
    left: tuple[float, float] | None = None

    def timing(self) -> Timing | None:
        """Return its prefill and decode times, None before it is done."""
        if self.entered is None or self.prefilled is None or self.left is None:
            return None
        (t0, area0), (t1, area1), (t2, area2) = self.entered, self.prefilled, self.left
        if not t0 < t1 < t2:
            return None
        prefill_batch, decode_batch = (area1 - area0) / (t1 - t0), (area2 - area1) / (t2 - t1)
        return Timing(t1 - t0, max(prefill_batch, 1.0), t2 - t1, self.output_tokens, max(decode_batch, 1.0))

    @property
    def last_step(self) -> float:
        """Number of steps at its end."""
        return 1.0 + self.output_tokens

    def next_step(self) -> float:
        """Number of steps at its next event: a token, or after the last one its end."""
        return 1.0 + self.reported if self.streamed else self.last_step


@dataclass(frozen=True, slots=True)
class Progress:
    """Event: at the time `at`, `job` had `tokens` output tokens; `done` if it had ended."""

    at: float
    job: Job
    tokens: int
    done: bool


_EDGE = 1e-9  # steps; rounding errors in sums of durations must not delay a token that is due


@dataclass(slots=True)
class Batch:
    """The requests in the engine, and the virtual clock up to which their progress is known."""

    profile: BatchProfile
    now: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    _shares: float = 0.0
    _area: float = 0.0  # integral of the requests in the batch over virtual time

    def join(self, job: Job, now: float) -> list[Progress]:
        """Add a request at `now`; return the events up to then."""
        past = self.advance(now)
        self._set_times(job)
        job.entered = (self.now, self._area)
        self.jobs.append(job)
        self._sum_shares()
        return past

    def change_profile(self, profile: BatchProfile, now: float) -> list[Progress]:
        """Change the step times at `now`; return the events up to then."""
        past = self.advance(now)
        self.profile = profile
        for job in self.jobs:
            self._set_times(job)
        self._sum_shares()
        return past

    def _set_times(self, job: Job) -> None:
        p, i, o = self.profile, job.input_tokens, job.output_tokens
        job.share = p.beta * (i + o) / (o + 1.0) + p.gamma * (i + o / 2.0)
        job.prefill_own = (p.beta + p.gamma) * i
        job.decode_own = p.beta + p.gamma * (i + o / 2.0)

    def leave(self, job: Job, now: float) -> list[Progress]:
        """Remove a cancelled request at `now`; return the events up to then."""
        past = self.advance(now)
        if job in self.jobs:
            self._remove(job)
        return past

    def next_event(self) -> float:
        """Return the time of the next event, a token of a streamed request or an end; `inf` if there is none."""
        return min((self._due(job) for job in self.jobs), default=math.inf)

    def advance(self, now: float) -> list[Progress]:
        """Integrate up to `now`; return the events up to then, in the order of their times."""
        events: list[Progress] = []
        while self.jobs:
            due, job = min(((self._due(job), job) for job in self.jobs), key=lambda pair: pair[0])
            if due > now:
                break
            self._run_to(due)
            events.append(self._report(job))
        self._run_to(now)
        return events

    def _due(self, job: Job) -> float:
        target, it = job.next_step(), self._shared_step_s(job)
        if job.steps >= 1.0:
            return self.now + max(0.0, target - job.steps) * (it + job.decode_own)
        return self.now + (1.0 - job.steps) * (it + job.prefill_own) + (target - 1.0) * (it + job.decode_own)

    def _run_to(self, moment: float) -> None:
        span = moment - self.now
        if span <= 0.0:
            return
        for job in self.jobs:
            self._progress(job, span)
        self._area += span * len(self.jobs)
        self.now = moment

    def _progress(self, job: Job, span: float) -> None:
        it = self._shared_step_s(job)
        if job.steps < 1.0:
            prefill = it + job.prefill_own
            left = (1.0 - job.steps) * prefill
            if span < left:
                job.steps += span / prefill
                return
            job.steps = 1.0
            job.prefilled = (self.now + left, self._area + left * len(self.jobs))
            span -= left
        decode = it + job.decode_own
        job.steps = min(job.last_step, job.steps + span / decode) if decode > 0.0 else job.last_step

    def _report(self, job: Job) -> Progress:
        job.steps = max(job.steps, job.next_step())  # rounding may have left it slightly below
        if job.prefilled is None:  # for the same reason
            job.prefilled = (self.now, self._area)
        job.reported = min(job.output_tokens, int(job.steps + _EDGE))
        done = job.steps >= job.last_step - _EDGE
        if done:
            job.left = (self.now, self._area)
            self._remove(job)
        return Progress(self.now, job, job.reported, done)

    def _remove(self, job: Job) -> None:
        self.jobs.remove(job)
        self._sum_shares()

    def _sum_shares(self) -> None:
        # Computed again at every change: adding and subtracting would accumulate rounding errors.
        self._shares = sum(job.share for job in self.jobs)

    def _shared_step_s(self, job: Job) -> float:
        """Duration in seconds of a step of `job` without the share of its own tokens (`it_j`)."""
        return self.profile.alpha + (self._shares - job.share)
