"""The scaling decision of one pool as a pure function: (Observation, State, Settings) -> (Decision, State).

Up at once, to the largest of three numbers (autoscale.demand): Erlang C for the forecast arrival rate, the replay of
the arrivals counted, the backlog. Down to the largest recommendation of the stabilization window
(autoscale.stabilization), which grows while responses are late (autoscale.budget) and when a removal is regretted; to
zero, where min_replicas is 0, only after an idle time as long as a restart takes (autoscale.scale_to_zero). Missing
data is not zero traffic: the last target is held, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from tierserve.autoscale.budget import ErrorBudget, Full, update_budget
from tierserve.autoscale.calibration import CalibrationState, apply_calibration, report, update_calibration
from tierserve.autoscale.demand import Inputs, Recommendation, max_wait_s, recommend, smooth
from tierserve.autoscale.history import History, extend
from tierserve.autoscale.load import Load, batch_factor, estimate
from tierserve.autoscale.rate import Rate, RateState, forecast, restarted
from tierserve.autoscale.replay import ReplayState, Service, Terms, least_replicas, replay
from tierserve.autoscale.replica_metrics import STARTUP, ReplicaMetrics
from tierserve.autoscale.scale_to_zero import IdleState, apply_scale_to_zero, watch
from tierserve.autoscale.stabilization import Stabilization, block_s, longest_s, stabilized, window_s
from tierserve.autoscale.types import Decision, GatewaySample, Observation, ReplicaSample, SetBy, Settings
from tierserve.queueing.sizing import Demand, response_quantile, wait_probability

__all__ = ["Decision", "GatewaySample", "Observation", "ReplicaMetrics", "ReplicaSample", "Settings", "State", "decide"]

LEARNED = 5
"""Start-up times kept; their median outlives one slow image pull."""
TRUST = 0.5
"""Share of the late requests allowed that the replay may have: it knows neither long prompts nor uneven batches."""
_BATCH_WINDOW_S = 10.0  # mean batch size for the prediction: long enough for some steps, short beside a change of load


@dataclass(frozen=True, slots=True)
class State:
    """State of a pool's autoscaler between decisions. Start with `State()`."""

    history: History = field(default_factory=History)
    load: Load | None = None
    stabilization: Stabilization = field(default_factory=Stabilization)
    raised: tuple[float, int] | None = None  # (t, target) of a scale-up in progress
    startups: tuple[float, ...] = ()
    backlog_since: float | None = None
    last: Decision | None = None
    first_t: float | None = None
    idle: IdleState | None = None  # of a pool with min_replicas 0
    steps: CalibrationState | None = None  # measured step times
    rate: RateState = field(default_factory=RateState)
    replay: ReplayState = field(default_factory=ReplayState)
    budget: ErrorBudget = field(default_factory=ErrorBudget)


def _startup(state: State, seen: ReplicaMetrics, settings: Settings) -> float:
    """Return the start-up time, seconds: of the measured scale-ups, before one the prior.

    Replicas report at least a part of it: from the start of their process on, so that is the least it is.
    """
    reported = seen.columns[STARTUP]
    reported = np.sort(reported[(reported > 0.0) & (reported < math.inf)])
    known = [median(state.startups) if state.startups else settings.startup_s]
    if reported.size:  # its median
        known.append(float(reported[(reported.size - 1) // 2] + reported[reported.size // 2]) / 2.0)
    return max(known)


def _bounded(n: int, obs: Observation, settings: Settings) -> int:
    most = max(math.ceil(max(obs.running, 1) * settings.scale_up_factor), obs.target)
    return max(obs.min_replicas, min(n, most, max(obs.max_replicas, obs.min_replicas)))


def _target(
    recommendation: Recommendation, highest: int, obs: Observation, settings: Settings
) -> tuple[int, SetBy, str]:
    """Return the target, what set it, and the reason.

    Up to the recommendation, down to the largest one of the window, else unchanged.
    """
    wanted = recommendation.replicas
    desired = wanted if wanted > obs.target else min(obs.target, max(highest, wanted))
    n = _bounded(desired, obs, settings)
    replicas = f"{n} replica{'' if n == 1 else 's'}"
    why = recommendation.reason
    if n > desired:
        return n, "min_replicas", f"{replicas}: minimum, {desired} required ({why})"
    if n < desired:
        if n == max(obs.max_replicas, obs.min_replicas):
            return n, "max_replicas", f"{replicas}: maximum, {desired} required ({why})"
        limit = f"limited to {settings.scale_up_factor:g} x the running replicas"
        return n, "scale_up_factor", f"{replicas}: {limit}, {desired} required ({why})"
    if wanted < n:
        return n, "stabilization", f"{replicas}: stabilization window, {wanted} required now ({why})"
    return n, recommendation.set_by, f"{replicas}: {why}"


def _seen(v: Inputs, servers: int) -> Demand:
    """Return the demand at the batch sizes measured; no load if every connection has a slot (no waits)."""
    factor = batch_factor(v.history, v.obs.t - _BATCH_WINDOW_S, v.settings) if v.history.marks else 1.0
    connections, demand = v.connections(), v.demand
    load = 0.0 if connections is not None and servers >= connections else demand.load * factor
    return Demand(load, demand.service_s * factor, demand.service_sd_s * factor, demand.peakedness)


def _carried(v: Inputs, seen: Demand, servers: int) -> float:
    """Return the mean number of busy servers: the load in the batches seen, at most one for each connection."""
    connections = v.connections()
    load = v.demand.load * seen.service_s / v.demand.service_s
    return min(load, float(servers), math.inf if connections is None else float(connections))


def _decision(n: int, set_by: SetBy, reason: str, v: Inputs) -> Decision:
    obs, load, settings, servers = v.obs, v.load, v.settings, n * v.settings.slots
    demand = v.demand
    seen = _seen(v, servers)
    p95 = response_quantile(servers, seen, settings.percentile) if servers else math.inf
    return Decision(
        t=obs.t,
        replicas=n,
        target=n,
        running=obs.running,
        pending=max(n - obs.running, 0),
        slots=settings.slots,
        servers=servers,
        arrival_rate=v.rate.mean,
        service_rate=1.0 / load.service_s,
        service_s=load.service_s,
        service_sd_s=load.service_sd_s,
        offered_load=demand.load,
        in_system=v.history.in_system,
        backlog=max(v.history.in_system - v.slots_running, 0.0),
        peakedness=load.peakedness,
        rho=_carried(v, seen, servers) / servers if servers else 0.0,
        offered_load_ratio=demand.load / servers if servers else 0.0,
        p_wait=wait_probability(servers, seen) if servers else float(demand.load > 0),
        predicted_p95_s=p95 if math.isfinite(p95) else None,
        percentile=settings.percentile,
        target_s=settings.target_s,
        startup_s=v.startup_s,
        set_by=set_by,
        reason=reason,
        rate_error=v.rate.error,
    )


_NO_RATE = Rate(0.0, 0.0, 0.0, "mean")


def _held(obs: Observation, state: State, settings: Settings) -> tuple[Decision, State]:
    """Hold the target: without metrics the load is unknown, not zero."""
    n = max(obs.min_replicas, min(obs.target, max(obs.max_replicas, obs.min_replicas)))
    first = state.first_t if state.first_t is not None else obs.t
    if state.last is None:
        load = state.load or Load(obs.t, settings.service_s)
        reason = f"held at {n}: no metrics yet"
        decision = _decision(
            n, "held", reason, Inputs(state.history, load, obs, settings, settings.startup_s, _NO_RATE)
        )
        return replace(decision, stale=True), replace(state, first_t=first)
    decision = replace(
        state.last,
        t=obs.t,
        replicas=n,
        target=n,
        running=obs.running,
        pending=max(n - obs.running, 0),
        servers=n * settings.slots,
        set_by="held",
        reason=f"held at {n}: no metrics for {obs.t - state.last.t:.0f} s",
        stale=True,
    )
    return decision, state


def _learn_startup(state: State, n: int, obs: Observation) -> tuple[tuple[float, int] | None, tuple[float, ...]]:
    """Return the scale-up in progress and the start-up times measured: of a node that has the model in its cache.

    The time of a download is left out, since the next replica on that node does not need it.
    """
    raised, startups = state.raised, state.startups
    if raised is not None and obs.downloading and state.last is not None:
        raised = (raised[0] + max(obs.t - state.last.t, 0.0), raised[1])
    if raised is not None and obs.running >= raised[1]:
        if obs.t > raised[0]:  # at the same clock time nothing was measured
            startups = (*startups, obs.t - raised[0])[-LEARNED:]
        raised = None
    elif raised is not None and n < raised[1]:
        raised = None
    if raised is None and n > max(obs.target, obs.running):
        raised = (obs.t, n)
    return raised, startups


def _backlog_since(h: History, obs: Observation, state: State, settings: Settings) -> float | None:
    if smooth(h) - obs.running * settings.slots < 1.0:
        return None
    return state.backlog_since if state.backlog_since is not None else obs.t


def _service(load: Load, settings: Settings) -> Service:
    profile, i, o = settings.profile, settings.input_tokens, settings.output_tokens
    alone_s = profile.service_time(1.0, i, o) if profile and o > 0 else load.service_s
    return Service(settings.slots, min(alone_s, load.service_s), load.service_s)


def _forecast(state: State, h: History, startup_s: float, horizon_s: float) -> tuple[Rate, RateState]:
    """Return the rate one start-up time from now; what came in a gap of the data was not seen."""
    known = state.rate if h.resumed == state.history.resumed else restarted(state.rate, h.now, h.marks[-1].arrivals)
    return forecast(known, h.now, h.marks[-1].arrivals, max(startup_s, 1.0), horizon_s)


def _replayed(state: State, v: Inputs, horizon_s: float) -> ReplayState:
    before, h, settings = state.history.marks, v.history, v.settings
    if not before or h.resumed != state.history.resumed:
        return state.replay
    a, b = before[-1], h.marks[-1]
    if b.t <= a.t:
        return state.replay
    service, block = _service(v.load, settings), block_s(horizon_s, settings)
    terms = Terms(service, v.max_wait_s, v.startup_s, block, longest_s(horizon_s, settings))
    return replay(state.replay, (b.t, b.t - a.t, b.arrivals - a.arrivals), terms)


def decide(obs: Observation, state: State, settings: Settings) -> tuple[Decision, State]:
    """Return the desired replicas of the pool, and the state for the next call.

    Call it about every half second; it takes some tenths of a millisecond at any load.

    Args:
        obs: metrics at this time; `obs.target` is the target in force.
        state: result of the previous call, `State()` at first.
        settings: the settings of the pool; they may change between calls.
    """
    prior = state.load or Load(obs.t, settings.service_s)
    seen = ReplicaMetrics.of(obs.replicas, state.history.replicas)
    history = extend(state.history, seen, obs, settings, prior.service_s)
    if history is None:
        return _held(obs, state, settings)
    steps = update_calibration(state.steps, obs, settings)
    settings = apply_calibration(settings, steps)
    load = estimate(history, prior, obs, settings)
    since = _backlog_since(history, obs, state, settings)
    estimated, load = load, replace(load, service_s=settings.service_s) if settings.profile else load
    startup_s = _startup(state, seen, settings)
    horizon_s = max(startup_s + max_wait_s(load, settings) + load.service_s, 1.0)
    rate, rates = _forecast(state, history, startup_s, horizon_s)
    may_miss, block = settings.objective.may_miss, block_s(horizon_s, settings)
    answers = history.gateway if history.exact else None  # while the gateway is silent, what is late is unknown
    waiting = Full(obs.t, obs.running, obs.running * settings.slots / load.service_s, load.service_s)
    budget = update_budget(state.budget, answers, obs.t, block, may_miss, full=waiting if since is not None else None)
    age_s = obs.t - since if since is not None else 0.0
    view = Inputs(history, load, obs, settings, startup_s, rate, age_s, budget.margin)
    shadow = _replayed(state, view, horizon_s)
    hold_s = window_s(horizon_s, settings, budget.caution, state.stabilization)
    may_wait = TRUST * may_miss / budget.caution
    replay_s = window_s(horizon_s, settings, budget.caution, Stabilization())
    replayed = least_replicas(shadow, obs.t - replay_s, may_wait)
    recommendation = recommend(view, replayed, may_wait)
    idle = watch(state.idle, state.history, view) if obs.min_replicas == 0 else None
    if idle is not None:
        recommendation = apply_scale_to_zero(recommendation, idle, view)
    at_once = obs.min_replicas == 0 and recommendation.replicas == 0
    held = state.stabilization
    if history.resumed != state.history.resumed:  # after a gap the target in force is what is known, as at first
        held = held._replace(recommendations=())
    highest, stabilization = stabilized(held, obs, recommendation.replicas, 0.0 if at_once else hold_s)
    n, set_by, reason = _target(recommendation, highest, obs, settings)
    decision = replace(
        _decision(n, set_by, reason, view),
        calibration=report(steps, settings),
        late_share=budget.late / budget.answered if budget.answered > 0.0 else None,
        caution=budget.caution,
        margin=budget.margin,
        stabilization_window_s=hold_s,
    )
    stabilization = stabilization.after(obs, n, hold_s, block)
    raised, startups = _learn_startup(state, n, obs)
    first_t = state.first_t if state.first_t is not None else obs.t
    return decision, State(
        history,
        estimated,
        stabilization,
        raised,
        startups,
        since,
        decision,
        first_t,
        idle,
        steps,
        rates,
        shadow,
        budget,
    )
