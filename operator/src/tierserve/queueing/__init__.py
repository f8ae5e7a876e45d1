"""Queueing mathematics: Erlang B and C, waits, staffing, batching, closed populations. Pure functions, no I/O.

The names below are looked up on first use: a replica needs `BatchProfile` alone, and scipy would double its start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierserve.queueing.batching.birth_death import BatchQueue, LossQueue, batch_queue, loss_queue
    from tierserve.queueing.batching.bursts import BurstResponse, Bursts, burst_response, bursts_of
    from tierserve.queueing.batching.prefill_stalls import PromptResponse, prompt_response
    from tierserve.queueing.batching.profile import BatchProfile
    from tierserve.queueing.batching.replay import replay_response
    from tierserve.queueing.batching.response import BatchResponse, BatchWork, batch_response, lognormal_points
    from tierserve.queueing.batching.steps import StepNoise, sizes_of, step_noise
    from tierserve.queueing.closed import closed_rate, fixed_point
    from tierserve.queueing.erlang import erlang_b, erlang_c, hayward_c, log_erlang_c
    from tierserve.queueing.mgc import mean_wait_general, peakedness, wait_ratio
    from tierserve.queueing.mmc import (
        mean_response,
        mean_wait,
        response_quantile,
        response_survival,
        wait_quantile,
    )
    from tierserve.queueing.routers import Routed, power_of_choices
    from tierserve.queueing.staffing import halfin_whitt, servers_for

__all__ = [
    "BatchProfile",
    "BatchQueue",
    "BatchResponse",
    "BatchWork",
    "BurstResponse",
    "Bursts",
    "LossQueue",
    "PromptResponse",
    "Routed",
    "StepNoise",
    "batch_queue",
    "batch_response",
    "burst_response",
    "bursts_of",
    "closed_rate",
    "erlang_b",
    "erlang_c",
    "fixed_point",
    "halfin_whitt",
    "hayward_c",
    "log_erlang_c",
    "lognormal_points",
    "loss_queue",
    "mean_response",
    "mean_wait",
    "mean_wait_general",
    "peakedness",
    "power_of_choices",
    "prompt_response",
    "replay_response",
    "response_quantile",
    "response_survival",
    "servers_for",
    "sizes_of",
    "step_noise",
    "wait_quantile",
    "wait_ratio",
]
_MODULES = {
    "BurstResponse": "batching.bursts",
    "Bursts": "batching.bursts",
    "burst_response": "batching.bursts",
    "bursts_of": "batching.bursts",
    "PromptResponse": "batching.prefill_stalls",
    "prompt_response": "batching.prefill_stalls",
    "replay_response": "batching.replay",
    "StepNoise": "batching.steps",
    "sizes_of": "batching.steps",
    "step_noise": "batching.steps",
    "BatchProfile": "batching.profile",
    "BatchQueue": "batching.birth_death",
    "BatchResponse": "batching.response",
    "BatchWork": "batching.response",
    "batch_response": "batching.response",
    "lognormal_points": "batching.response",
    "LossQueue": "batching.birth_death",
    "batch_queue": "batching.birth_death",
    "loss_queue": "batching.birth_death",
    "closed_rate": "closed",
    "fixed_point": "closed",
    "erlang_b": "erlang",
    "erlang_c": "erlang",
    "hayward_c": "erlang",
    "log_erlang_c": "erlang",
    "mean_wait_general": "mgc",
    "peakedness": "mgc",
    "wait_ratio": "mgc",
    "Routed": "routers",
    "power_of_choices": "routers",
    "halfin_whitt": "staffing",
    "servers_for": "staffing",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'mmc')}"), name)
