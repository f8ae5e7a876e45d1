"""`ErlangPolicy`, a Ray Serve autoscaling policy: replicas by Erlang C for a response-time objective.

Ray pickles the module of a policy by value, so this one holds the class alone; all state lives in modules it imports.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tierserve.autoscale.decide import Settings
from tierserve_serving.policy_runtime import decisions as policy_decisions
from tierserve_serving.policy_runtime import handover as policy_handover
from tierserve_serving.policy_runtime import settings as policy_settings
from tierserve_serving.policy_runtime.runner import Endpoints, PolicyRunner


class ErlangPolicy:
    """Scales a deployment so that `percentile` % of its requests are answered within `response_target_s`.

    Use it as `autoscaling_config.policy.policy_function: "tierserve_serving.policy:ErlangPolicy"`, with
    `upscale_delay_s: 0` and `downscale_delay_s: 0`: Ray puts its own delays (30 s, 600 s) on top of any policy's. See
    docs/erlang-policy.md.

    Args:
        response_target_s: the objective, seconds, without the network's share; may be left out where
            `settings_deployment` gives it.
        demand_url: gateway's demand (JSON with arrivals_total, queued, in_flight); optional.
        decisions_address: HOST:PORT on which decisions are published (GET /decisions); None: not published.
        pool: the pool's name in decisions and metrics; default APPLICATION-DEPLOYMENT.
        interval_s: least time between decisions.
        settings_deployment: name of a deployment of the same application whose `user_config` holds settings. They may
            change while replicas run; a change of any other argument makes Ray Serve replace them all. Needs `pool`.
        process_version: version of the replicas; when it changes, a pool's only replica is about to be replaced in
            place, and gateways are made to leave the pool first. None: other replicas serve meanwhile.
        settings: percentile: share of requests, in %, that must meet the objective (95).
            service_s: prior of the mean service time of a request at a full batch; half the target if not given.
            slots: requests that one replica works on at once (1).
            startup_s: prior of the time from a raised target to a running replica; learned in operation.
            profile: {alpha, beta, gamma} of the engine's batches; with the mean `input_tokens` and `output_tokens`
            observed service times are scaled to a full batch.
            And any other field of `tierserve.autoscale.decide.Settings`.

    Raises:
        ValueError, TypeError: a setting is out of range, missing or unknown.
    """

    def __init__(
        self,
        response_target_s: float | None = None,
        *,
        demand_url: str | None = None,
        decisions_address: str | None = None,
        pool: str | None = None,
        interval_s: float = 0.5,
        settings_deployment: str | None = None,
        process_version: str | None = None,
        **settings: Any,
    ) -> None:
        if settings_deployment is not None and pool is None:
            raise ValueError("pool is required with settings_deployment")
        self.given = settings if response_target_s is None else {"response_target_s": response_target_s, **settings}
        later = settings_deployment is not None and response_target_s is None
        self.settings = None if later else policy_settings.settings(**self.given)
        self.settings_deployment = settings_deployment
        self.endpoints = Endpoints(demand_url, decisions_address)
        self.pool, self.interval_s = pool, interval_s
        self._runner: PolicyRunner | None = None
        if process_version and pool and decisions_address:
            surge = policy_settings.reader(pool).surge
            policy_handover.leave(pool, process_version, policy_decisions.publisher(decisions_address), surge=surge)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the desired replicas and the policy state for Ray (none: it is kept in this process)."""
        if self._runner is None:
            self._runner = PolicyRunner(
                self.settings, self.endpoints, self.pool, self.interval_s, live=self._live(str(ctx.app_name))
            )
        return self._runner.replicas(ctx), {}

    def _live(self, app: str) -> Callable[[], Settings | None] | None:
        """Return where to find the settings in force; None where they never change."""
        if self.settings_deployment is None or self.pool is None:
            return None
        read = partial(policy_settings.serve_user_config, app, self.settings_deployment)
        return partial(policy_settings.reader(self.pool).latest, self.given, read)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_runner": None}
