"""Runs the decision of one pool inside the Serve controller: its schedule, its state, the published decisions.

Ray Serve recreates the policy at every change of the deployment's configuration; the learned state of a pool is kept in
the process under the pool's name, and in Ray's GCS for the next process (policy_runtime.store).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tierserve.autoscale.decide import Decision, Settings, State, decide
from tierserve.autoscale.snapshot import merge_learned
from tierserve_serving.policy_runtime import context as policy_context
from tierserve_serving.policy_runtime import decisions as policy_decisions
from tierserve_serving.policy_runtime import demand as policy_demand
from tierserve_serving.policy_runtime import store as policy_memory

logger = logging.getLogger("ray.serve")
_OLD_S = 120.0  # age from which load estimates of a state are outdated
_COMPLAIN_EVERY_S = 30.0
_states: dict[str, State] = {}
_lock = threading.Lock()


def _remembered(pool: str, now: float) -> State:
    """Return the state of a pool; of one older than `_OLD_S` only the learned part."""
    with _lock:
        state = _states.get(pool, State())
    if state.last is not None and now - state.last.t > _OLD_S:
        return merge_learned(State(), state)
    return state


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of the demand and of the published decisions."""

    demand_url: str | None = None
    decisions_address: str | None = None


class PolicyRunner:
    """Decides at most every `interval_s`, at once when the number of running replicas changed; cheap in between."""

    def __init__(
        self,
        settings: Settings | None,
        endpoints: Endpoints,
        pool: str | None,
        interval_s: float,
        clock: Callable[[], float] = time.time,
        *,
        live: Callable[[], Settings | None] | None = None,
    ) -> None:
        """Make a runner.

        Args:
            settings: of the decision; None where only `live` has them, and the target is held until it does.
            outlets: where demand comes from and decisions go to.
            pool: name of the pool; None: APPLICATION-DEPLOYMENT.
            interval_s: least time between decisions.
            clock: Unix seconds.
            live: returns the settings in force, None while they are not known; None where they never change.
        """
        self.live = live
        self.settings, self.pool, self.interval_s, self.clock = settings, pool, interval_s, clock
        self.demand = policy_demand.poller(endpoints.demand_url) if endpoints.demand_url else None
        self.publisher = (
            policy_decisions.publisher(endpoints.decisions_address) if endpoints.decisions_address else None
        )
        self.last: Decision | None = None
        self.decided = float("-inf")
        self.complained = float("-inf")
        self.state: State | None = None
        self.reports = policy_context.ReplicaReports()

    def replicas(self, ctx: Any) -> int:
        """Return the desired replicas. It never raises: an exception would reach the Serve controller."""
        try:
            return self._replicas(ctx)
        except Exception:
            now = self.clock()
            if now - self.complained > _COMPLAIN_EVERY_S:
                self.complained = now
                logger.exception("tierserve: the decision failed; the target is held")
            return int(ctx.target_num_replicas)

    def _replicas(self, ctx: Any) -> int:
        now = self.clock()
        running = int(ctx.current_num_replicas)
        last = self.last
        if last and now - self.decided < self.interval_s and last.running == running:
            return self._bounded(last.replicas, ctx)
        settings = (self.live() if self.live else None) or self.settings
        if settings is None:
            return int(ctx.target_num_replicas)
        self.settings = settings
        pool = self.pool or f"{ctx.app_name}-{ctx.deployment_name}"
        state = self.state if self.state is not None else _remembered(pool, now)
        memory = policy_memory.memory(pool)
        state = memory.restore(state, settings, now)
        gateway = self.demand.latest() if self.demand else None
        downloading = self.publisher is not None and self.publisher.is_downloading(pool)
        obs = policy_context.observation(
            ctx, gateway, now, settings.stale_after_s, self.reports, downloading=downloading
        )
        decision, self.state = decide(obs, state, settings)
        self.decided = now
        with _lock:
            _states[pool] = self.state
        memory.save(self.state, settings, now)
        told = self.demand and gateway and now - gateway.t <= settings.stale_after_s
        requests = self.demand.requests if self.demand and told else {}
        self._tell(pool, decision, last, requests, _startup_parts(decision, ctx.raw_metrics or {}))
        if self.publisher:
            self.publisher.put_settings(pool, settings)
        self.last = decision
        return decision.replicas

    @staticmethod
    def _bounded(n: int, ctx: Any) -> int:
        low, high = int(ctx.capacity_adjusted_min_replicas), int(ctx.capacity_adjusted_max_replicas)
        return max(low, min(n, high))

    def _tell(
        self,
        pool: str,
        decision: Decision,
        last: Decision | None,
        requests: Mapping[str, float],
        startup: Mapping[str, float],
    ) -> None:
        if self.publisher:
            shown = policy_decisions.as_json(pool, decision) | {"gateways": dict(requests)}
            self.publisher.put(pool, shown | ({"startup": dict(startup)} if startup else {}))
        policy_decisions.set_gauges(pool, decision)
        if last is None or last.replicas != decision.replicas or last.stale != decision.stale:
            logger.info("tierserve: pool %s: %s", pool, decision.reason)


def _startup_parts(decision: Decision, raw: policy_context.Raw) -> dict[str, float]:
    """Return the parts of the start-up time in seconds; `pod_s` is what replicas do not measure: node, image, Ray."""
    parts = policy_context.startup_parts(raw)
    if not parts:
        return {}
    own = parts.get("load_s", 0.0) + parts.get("warmup_s", 0.0)
    return {"pod_s": max(decision.startup_s - own, 0.0), **parts}
