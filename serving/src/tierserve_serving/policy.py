"""`ErlangPolicy`, a Ray Serve autoscaling policy: replicas by Erlang C for a response-time objective.

Ray pickles the module of a policy by value, so this one holds the class alone; all state lives in modules it imports.
"""

from __future__ import annotations

from typing import Any

from tierserve.autoscale.decide import Settings
from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.policy_runtime import decisions as policy_decisions
from tierserve_serving.policy_runtime import handover as policy_handover
from tierserve_serving.policy_runtime.runner import Outlets, PolicyRunner


class ErlangPolicy:
    """Scales a deployment so that `percentile` % of its requests are answered within `response_target_s`.

    Use it as `autoscaling_config.policy.policy_function: "tierserve_serving.policy:ErlangPolicy"`, with
    `upscale_delay_s: 0` and `downscale_delay_s: 0`: Ray puts its own delays (30 s, 600 s) on top of any policy's. See
    docs/erlang-policy.md.

    Args:
        response_target_s: the objective, seconds, without the network's share.
        percentile: share of requests, in %, that must meet it.
        service_s: prior of the mean service time of a request at a full batch; half the target if not given.
        slots: requests that one replica works on at once.
        startup_s: prior of the time from a raised target to a running replica; learned in operation.
        demand_url: gateway's demand (JSON with arrivals_total, queued, in_flight); optional.
        decisions_address: HOST:PORT on which decisions are shown (GET /decisions); not at all if not given.
        pool: the pool's name in decisions and metrics; default APPLICATION-DEPLOYMENT.
        interval_s: least time between decisions.
        profile: {alpha, beta, gamma} of the engine's batches; with the mean `input_tokens` and `output_tokens` observed
            service
            times are scaled to a full batch.
        only_version: what the pool's only replica is made from, in a word; with another word it is about to be replaced
            where it is, and gateways are told to leave the pool first. None: others serve meanwhile.
        settings: any other field of `tierserve.autoscale.decide.Settings`.

    Raises:
        ValueError, TypeError: a setting is out of range or unknown.
    """

    def __init__(
        self,
        response_target_s: float,
        *,
        percentile: float = 95.0,
        service_s: float | None = None,
        slots: int = 1,
        startup_s: float | None = None,
        demand_url: str | None = None,
        decisions_address: str | None = None,
        pool: str | None = None,
        interval_s: float = 0.5,
        profile: dict[str, float] | None = None,
        only_version: str | None = None,
        **settings: Any,
    ) -> None:
        if startup_s is not None:
            settings["startup_s"] = startup_s
        self.settings = Settings(
            target_s=response_target_s,
            percentile=percentile,
            service_s=service_s if service_s is not None else response_target_s / 2.0,
            slots=slots,
            profile=BatchProfile(**profile) if profile else None,
            **settings,
        )
        self.outlets = Outlets(demand_url, decisions_address)
        self.pool, self.interval_s = pool, interval_s
        self._runner: PolicyRunner | None = None
        if only_version and pool and decisions_address:
            policy_handover.leave(pool, only_version, policy_decisions.board(decisions_address))

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the replicas wanted and the policy state that Ray keeps (none: it is kept here)."""
        if self._runner is None:
            self._runner = PolicyRunner(self.settings, self.outlets, self.pool, self.interval_s)
        return self._runner.replicas(ctx), {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_runner": None}
