"""Ray Serve applications for the tests of the policy: one that reports its figures, one that does not."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from ray import serve

SLOTS = 4
SERVICE_S = 0.3


class _Slots:
    """Answers after `SERVICE_S`, in one of `SLOTS` slots, with its process id."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(SLOTS)
        self.arrivals = self.completions = self.running = self.waiting = 0
        self.service_s = self.service_sq_s2 = 0.0

    async def __call__(self, request: Any) -> str:
        self.arrivals += 1
        self.waiting += 1
        async with self.slots:
            self.waiting -= 1
            self.running += 1
            began = time.perf_counter()
            await asyncio.sleep(SERVICE_S)
            took = time.perf_counter() - began
            self.running -= 1
        self.completions += 1
        self.service_s += took
        self.service_sq_s2 += took * took
        return str(os.getpid())


@serve.deployment
class Plain(_Slots):
    """Knows nothing of the policy."""


@serve.deployment
class Reporting(_Slots):
    """Tells the policy what it counts."""

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {
            "arrivals_total": self.arrivals,
            "completions_total": self.completions,
            "service_seconds_total": self.service_s,
            "service_seconds_sq_total": self.service_sq_s2,
            "running": self.running,
            "waiting": self.waiting,
            "slots": SLOTS,
            "startup_seconds": 1.0,
        }


def scaled(deployment: Any, **policy: Any) -> Any:
    """Return an application of one to six replicas that the policy scales, with none of Ray's own delays."""
    kwargs = {"response_target_s": 0.5, "service_s": SERVICE_S, "slots": SLOTS, "stabilization_window_s": 4.0}
    return deployment.options(
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_wait_loop_s=0.2,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 6,
            "upscale_delay_s": 0,
            "downscale_delay_s": 0,
            "metrics_interval_s": 0.5,
            "look_back_period_s": 2.0,
            "policy": {
                "policy_function": "tierserve_serving.policy:ErlangPolicy",
                "policy_kwargs": kwargs | policy,
            },
        },
    ).bind()
