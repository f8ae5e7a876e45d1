"""Ray Serve's autoscaling by its own code: `replica_queue_length_autoscaling_policy`, its factors and its delays.

Rules: docs.ray.io, "Ray Serve Autoscaling", and the defaults of `AutoscalingConfig`: 2 ongoing requests per replica,
metrics of the last 30 s, up after 30 s and down after 600 s of wanting the same way, both factors 1.
"""

from __future__ import annotations

import importlib
from typing import Any

from tierserve.simulate.policies.windows import Window
from tierserve.simulate.types import Pool, Snapshot

_PUBLISHED_REQUESTS = 2.0


class RayServe:
    """Ray Serve's default policy on the clock of the simulation.

    Ray decides every 0.1 s; here every second. Since Ray measures its delays as times and not as counts of decisions,
    they stay 30 s and 600 s, to within that second. The reports of replicas and handles, up to 10 s old in Ray, are
    taken to be new. Needs Ray with its Serve extra: the package's extra `serving`.

    Args:
        pool: its slots and bounds.
        share: target of ongoing requests per replica, as a share of the slots; 0 for the published 2 requests.

    Raises:
        RuntimeError: Ray Serve is not installed, or it is one whose policy this module does not know.
    """

    interval_s = 1.0

    def __init__(self, pool: Pool, share: float) -> None:
        self._policy, config = _ray()
        self._config = config.AutoscalingConfig(
            min_replicas=pool.min_replicas,
            max_replicas=pool.max_replicas,
            target_ongoing_requests=share * pool.slots if share > 0.0 else _PUBLISHED_REQUESTS,
        )
        self._context = config.AutoscalingContext
        self._min_replicas, self._max_replicas = pool.min_replicas, pool.max_replicas
        self._window = Window(self._config.look_back_period_s, "in_system_s")
        self._state: dict[str, Any] = {}

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas, as Ray's controller puts its policy, factors and delays together."""
        self._window.add(seen)
        wanted, _ = self._policy.replica_queue_length_autoscaling_policy(self._seen_by_ray(seen))
        wanted = self._policy._apply_scaling_factors(wanted, seen.ready, self._config)
        if seen.ready == 0 and wanted > 0:  # the cold start: no factor and no delay
            return int(wanted)
        # the only way to tell Ray the time is the argument its own tests use; the wrapped policy reads the wall clock
        decided, self._state = self._policy._apply_delay_logic(
            max(0, wanted), seen.target, self._config, self._state, _now=seen.t
        )
        return min(max(int(decided), self._min_replicas), self._max_replicas)

    def _seen_by_ray(self, seen: Snapshot) -> Any:
        return self._context(
            deployment_id=None,
            deployment_name="pool",
            app_name="simulation",
            current_num_replicas=seen.ready,
            target_num_replicas=seen.target,
            running_replicas=[],
            total_num_requests=self._window.rate("in_system_s"),
            total_queued_requests=seen.queued,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self._min_replicas,
            capacity_adjusted_max_replicas=self._max_replicas,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=seen.t,
            config=self._config,
        )


def _ray() -> tuple[Any, Any]:
    """Ray's modules, looked for only now: nothing else of the simulator needs Ray, and importing it takes seconds."""
    try:
        policy = importlib.import_module("ray.serve.autoscaling_policy")
        config = importlib.import_module("ray.serve.config")
    except ImportError as error:
        raise RuntimeError(
            "the rule ray-serve runs Ray Serve's own policy, and Ray Serve is not installed: "
            "install tierserve[serving], or leave this rule out"
        ) from error
    for name in ("replica_queue_length_autoscaling_policy", "_apply_scaling_factors", "_apply_delay_logic"):
        if not hasattr(policy, name):
            raise RuntimeError(
                f"ray.serve.autoscaling_policy has no {name}: install the Ray that tierserve[serving] asks for"
            )
    return policy, config
