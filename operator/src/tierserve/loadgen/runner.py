"""Load generator: one event loop that starts users and arrivals, and logs each request.

Open loops and traces send each request at its intended time, whether or not earlier ones were answered. A user of a
closed loop sends the next request after the response and the think time, so a stalled service receives fewer requests:
its latency is that of a closed population, and an open loop shows overload better.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from multidict import CIMultiDict

from tierserve.loadgen.http import (
    Answer,
    asked,
    chat_body,
    chat_url,
    client_session,
    exchange,
    filler,
    first_model,
    request_headers,
)
from tierserve.loadgen.preflight import allow_sockets, check_target
from tierserve.loadgen.samples import Outcome, RequestLog, Row
from tierserve.loadgen.scenario import ClosedLoop, LoadPlan, OpenLoop, Replay, Step, Traffic
from tierserve.loadgen.summary import LoadResult, Span, StepResult, quantile, summarise_step

PROGRESS_EVERY_S = 0.5
WINDOW_S = 5.0
SETTLE_POLL_S = 0.25
FAILED_PAUSE_S = 0.1
"""A closed-loop user whose request failed at once asks again no sooner: a refused connection must not spin."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; rates and percentiles are of the last `WINDOW_S` seconds.

    Attributes:
        step_start_s, steady_from_s: seconds since the run began; infinite while the step still warms up.
        duration_s: what the run takes in all, as far as it is known.
        rows: all requests that ended so far.
    """

    index: int
    steps: int
    step: Step
    step_start_s: float
    steady_from_s: float
    elapsed_s: float
    duration_s: float
    in_flight: int
    requests: int
    errors: int
    rate: float
    p95_s: float
    rows: list[Row]


OnProgress = Callable[[Progress], None]
OnText = Callable[[str, str, str], None]
Admit = Callable[[Step], bool]
Settled = Callable[[], bool]


async def run_load(
    plan: LoadPlan,
    on_progress: OnProgress | None = None,
    *,
    on_text: OnText | None = None,
    admit: Admit | None = None,
    settled: Settled | None = None,
    stop: asyncio.Event | None = None,
) -> LoadResult:
    """Run a plan and return what was measured.

    Args:
        on_progress: called about twice a second.
        on_text: called with the name of a traffic that keeps its text, a prompt and its answer.
        admit: asked before each step; False skips it.
        settled: asked in the warm-up of a step with `settle_s` whether its steady part may begin.
        stop: set it to end early with what was measured so far; requests under way are cancelled.

    Raises:
        LoadError: a target off this machine without leave, or too few open files allowed.
    """
    loopback = await check_target(plan.url, allow_remote=plan.allow_remote)
    room = allow_sockets(plan)
    async with client_session(loopback=loopback, cacert=plan.cacert, insecure=plan.insecure) as session:
        model = plan.model or await first_model(session, plan.url, headers=plan.headers)
        runner = _Runner(plan, session, model, room, on_progress, on_text, admit, settled)
        return await runner.run(stop or asyncio.Event())


@dataclass(slots=True, eq=False)
class _User:
    """One member of a closed population; `retired` ends it after its request under way."""

    traffic: str
    begin: float
    retired: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Runner:
    plan: LoadPlan
    session: aiohttp.ClientSession
    model: str
    room: int
    on_progress: OnProgress | None
    on_text: OnText | None
    admit: Admit | None
    settled: Settled | None
    rows: list[Row] = field(default_factory=list)
    recent: deque[Row] = field(default_factory=deque)
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    users: dict[str, list[_User]] = field(default_factory=dict)
    current: dict[str, Traffic] = field(default_factory=dict)
    prompts: dict[str, Iterator[bytes]] = field(default_factory=dict)
    headers: dict[str, CIMultiDict[str]] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    by_hand: bool = False
    index: int = 0
    sent: int = 0
    in_flight: int = 0
    errors: int = 0
    lag_s: float = 0.0
    why: str = ""
    t0: float = 0.0
    step_start: float = 0.0
    steady_from: float = math.inf
    extra_s: float = 0.0
    steps: list[tuple[int, Span, bool]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    # ---- the run ----

    async def run(self, stop: asyncio.Event) -> LoadResult:
        loop = asyncio.get_running_loop()
        self.t0, t0_unix = loop.time(), time.time()
        helpers = (loop.create_task(self._tick()), loop.create_task(self._watch(stop)))
        try:
            for index, step in enumerate(self.plan.steps):
                await self._step(index, step)
            self._retire_all()
            await self._drain()
        finally:
            for helper in helpers:
                helper.cancel()
            await self._cancel()
        return self._result(t0_unix)

    async def _step(self, index: int, step: Step) -> None:
        if self.ended.is_set() or (self.admit is not None and not self.admit(step)):
            self.skipped.append(step.name)
            return
        self.index, start = index, self._now()
        self.step_start, self.steady_from = start, math.inf
        self.current = {traffic.name: traffic for traffic in step.traffic}
        for traffic in step.traffic:
            self._begin(traffic, step, start)
        self._retire_absent(step)
        stopped = await self._until(start + step.warmup_s) or await self._settle(step)
        self.steady_from = min(self._now(), start + step.warmup_s + step.settle_s)
        end = self.steady_from + step.duration_s - step.warmup_s
        stopped = stopped or await self._until(end)
        self.steps.append((index, Span(start, self.steady_from, min(self._now(), end)), not stopped))

    async def _settle(self, step: Step) -> bool:
        """Draw the warm-up out until settled; True if stopped before."""
        began = self._now()
        while self.settled is not None and not self.settled() and self._now() < began + step.settle_s:
            if await self._until(self._now() + SETTLE_POLL_S):
                return True
        self.extra_s += self._now() - began
        return False

    def _begin(self, traffic: Traffic, step: Step, start: float) -> None:
        self.headers[traffic.name] = request_headers(traffic, self.plan.headers)
        bodies = [chat_body(self.model, traffic, prompt, traffic.max_tokens) for prompt in traffic.prompts]
        self.prompts[traffic.name] = itertools.cycle(bodies)
        if isinstance(traffic.loop, ClosedLoop):
            self._populate(traffic, traffic.loop, start)
            return
        self._populate(traffic, ClosedLoop(0), start)
        rng = np.random.default_rng([self.plan.seed, self.index])
        self._spawn(self._arrivals(self.index, traffic, self._schedule(traffic, step, start, rng)))

    def _schedule(
        self, traffic: Traffic, step: Step, start: float, rng: np.random.Generator
    ) -> Iterator[tuple[float, bytes]]:
        """Intended time and body of each request of an open loop."""
        if isinstance(traffic.loop, OpenLoop):
            bodies = self.prompts[traffic.name]
            yield from ((start + float(t), next(bodies)) for t in traffic.loop.times(step.duration_s, rng))
        elif isinstance(traffic.loop, Replay):
            trace = traffic.loop.trace
            for t, input_tokens, output_tokens in zip(
                trace.times_s, trace.input_tokens, trace.output_tokens, strict=True
            ):
                yield start + float(t), chat_body(self.model, traffic, filler(int(input_tokens)), int(output_tokens))

    # ---- closed loops ----

    def _populate(self, traffic: Traffic, loop: ClosedLoop, start: float) -> None:
        """Set the number of users of a traffic: new ones start spread over the ramp, the last ones are retired."""
        users = self.users.setdefault(traffic.name, [])
        for user in users[loop.connections :]:
            user.retired.set()
        del users[loop.connections :]
        missing = loop.connections - len(users)
        for i in range(missing):
            user = _User(traffic.name, start + loop.ramp_s * i / missing)
            users.append(user)
            self._spawn(self._user(user))

    async def _user(self, user: _User) -> None:
        intended = user.begin
        rng = np.random.default_rng([self.plan.seed, self.sent, len(self.tasks)])
        while not await self._pause(user, intended) and self._may_send():
            traffic = self.current[user.traffic]
            good = await self._send(self.index, traffic, intended, next(self.prompts[user.traffic]))
            if self.current.get(user.traffic) is None:
                return
            loop = self.current[user.traffic].loop
            think = _think(loop, rng) if isinstance(loop, ClosedLoop) else 0.0
            intended = max(self._now() + think, 0.0 if good else intended + FAILED_PAUSE_S)

    async def _pause(self, user: _User, until: float) -> bool:
        """Wait; True if the user was retired before its time."""
        wait = until - self._now()
        if wait > 0 and not user.retired.is_set():
            try:
                await asyncio.wait_for(user.retired.wait(), wait)
            except TimeoutError:
                return False
        return user.retired.is_set()

    def _retire_absent(self, step: Step) -> None:
        for name in self.users.keys() - {traffic.name for traffic in step.traffic}:
            self._retire(name)

    def _retire_all(self) -> None:
        for name in self.users:
            self._retire(name)

    def _retire(self, name: str) -> None:
        for user in self.users[name]:
            user.retired.set()
        self.users[name] = []

    # ---- open loops ----

    async def _arrivals(self, step: int, traffic: Traffic, schedule: Iterator[tuple[float, bytes]]) -> None:
        for intended, body in schedule:
            wait = intended - self._now()
            if wait > 0:
                await asyncio.sleep(wait)
            if not self._may_send():
                return
            self._spawn(self._send(step, traffic, intended, body))

    # ---- one request ----

    async def _send(self, step: int, traffic: Traffic, intended: float, body: bytes) -> bool:
        """Ask, write the row; True if answered well."""
        start = self._now()
        self.lag_s = max(self.lag_s, start - intended)
        answer = Answer(Outcome.UNFINISHED)
        self.sent += 1
        if self.in_flight >= self.room:
            answer.outcome = Outcome.NOT_SENT
            self._write(step, traffic, intended, start, answer)
            return False
        self.in_flight += 1
        try:
            left = self.plan.timeout_s - (start - intended)
            answer = await exchange(
                self.session, chat_url(self.plan.url), body, headers=self.headers[traffic.name], timeout_s=left,
                keep_text=traffic.keep_text,
            )  # fmt: skip
        finally:  # a cancelled one is written too, as unfinished
            self.in_flight -= 1
            self._write(step, traffic, intended, start, answer)
        if answer.text and self.on_text is not None:
            self.on_text(traffic.name, asked(body), answer.text)
        return answer.outcome is Outcome.OK

    def _write(self, step: int, traffic: Traffic, intended: float, start: float, answer: Answer) -> None:
        first = answer.first_token - self.t0
        row = Row(step, traffic.name, intended, start, first, self._now(), answer.status, answer.outcome, answer.pool,
                  answer.tokens)  # fmt: skip
        self.errors += answer.outcome is not Outcome.OK
        self.rows.append(row)
        self.recent.append(row)

    def _may_send(self) -> bool:
        if self.sent >= self.plan.max_requests and not self.ended.is_set():
            self.why = f"the bound of {self.plan.max_requests:,} requests was reached"
            self.ended.set()
        return not self.ended.is_set()

    # ---- time, progress, end ----

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self.t0

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.by_hand, self.why = True, self.why or "stopped by hand"
        self.ended.set()

    async def _until(self, end: float) -> bool:
        """Wait for the end of a step; True if stopped before."""
        try:
            await asyncio.wait_for(self.ended.wait(), end - self._now())
        except TimeoutError:
            return False
        return True

    async def _drain(self) -> None:
        """Let requests under way end by themselves; each has its own time-out."""
        while self.tasks and not self.by_hand:
            await asyncio.wait([*self.tasks], timeout=0.1)

    async def _cancel(self) -> None:
        for task in [*self.tasks]:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while self.on_progress is not None:
            self.on_progress(self._progress())
            await asyncio.sleep(PROGRESS_EVERY_S)

    def _progress(self) -> Progress:
        now = self._now()
        while self.recent and self.recent[0].end < now - WINDOW_S:
            self.recent.popleft()
        good = np.array([row.end - row.intended for row in self.recent if row.outcome is Outcome.OK])
        return Progress(
            index=self.index,
            steps=len(self.plan.steps),
            step=self.plan.steps[self.index],
            step_start_s=self.step_start,
            steady_from_s=self.steady_from,
            elapsed_s=now,
            duration_s=self.plan.duration_s + self.extra_s,
            in_flight=self.in_flight,
            requests=len(self.rows),
            errors=self.errors,
            rate=good.size / min(WINDOW_S, max(now, 0.1)),
            p95_s=quantile(good, 0.95),
            rows=self.rows,
        )

    def _result(self, t0_unix: float) -> LoadResult:
        samples = RequestLog.of(self.rows)
        steps: list[StepResult] = [
            summarise_step(index, self.plan.steps[index], samples, span=span, complete=complete, plan=self.plan)
            for index, span, complete in self.steps
        ]
        return LoadResult(self.plan, t0_unix, samples, tuple(steps), tuple(self.skipped), self.why, self.lag_s)


def _think(loop: ClosedLoop, rng: np.random.Generator) -> float:
    if loop.think == "exponential":
        return float(rng.exponential(loop.think_s))
    return loop.think_s if math.isfinite(loop.think_s) else 0.0
