"""Ray Serve application of one pool: `import_path: tierserve_serving.app:build` with the pool's arguments."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import check_arguments, make_engine, warm_up
from tierserve_serving.openai.app import Ingress
from tierserve_serving.replica import download
from tierserve_serving.replica.metrics import RayMetrics
from tierserve_serving.replica.stats import ReplicaStats
from tierserve_serving.replica.worker import Worker
from tierserve_serving.sources import cache_is_of_the_pod, download_seconds, report_to

# Above slots and queue, so that the replica's own limit is reached first: its 503 is an OpenAI error and is counted.
_HEADROOM = 64


@serve.deployment(name="replica", logging_config={"enable_access_log": False})
@serve.ingress()
class Replica:
    """One replica: ingress and engine in one process.

    Serve calls `reconfigure`, `check_health` and `record_autoscaling_stats`.

    Args:
        config: the fields of `PoolConfig`.
        _settings: the handle that makes `AutoscalingSettings` part of the application; never called.
    """

    # Serve awaits a constructor that is a coroutine, in the event loop of the engine.
    async def __init__(self, config: dict[str, Any], _settings: Any = None) -> None:  # type: ignore[misc]
        begin = time.perf_counter()
        self._config = PoolConfig.model_validate(config)
        node = ray.get_runtime_context().get_node_id()
        report_to(download.reporter(self._config.pool, node, shared=not cache_is_of_the_pod()))
        self._engine = make_engine(self._config)
        await self._engine.load()
        loaded, download_s = time.perf_counter(), download_seconds()
        await warm_up(self._engine, self._config)
        stats = ReplicaStats(metrics=RayMetrics(self._config.pool))
        self._worker = Worker(self._config, self._engine, stats)
        warmup_s, load_s = time.perf_counter() - loaded, loaded - begin - download_s
        stats.started(download_s, load_s, warmup_s, every_replica_downloads=cache_is_of_the_pod())
        logging.getLogger("ray.serve").info(
            "%s: engine %s ready: download %.3f s, load %.3f s, warm-up %.3f s",
            self._config.pool, self._config.engine, download_s, load_s, warmup_s,
        )  # fmt: skip

    def __serve_build_asgi_app__(self) -> Ingress:
        """Return the ASGI application; called by Serve after the constructor."""
        behind_haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
        return Ingress(self._worker, sends_request_id=False, keep_alive=not behind_haproxy)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply the `user_config` (`UserConfig`), at the start and at each change; requests in the engine continue.

        A coroutine, so that Serve runs it in the event loop of the engine.
        """
        self._worker.reconfigure(self._config.with_user_config(user_config))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return counters and gauges for the autoscaling policy; names in `stats.ReplicaStats`."""
        return self._worker.report()

    def check_health(self) -> None:
        """Raise if the engine is unhealthy; Serve then replaces the replica."""
        self._engine.check_health()

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()


@serve.deployment(name="autoscaling", autoscaling_config={"min_replicas": 0, "max_replicas": 1})
class AutoscalingSettings:
    """Deployment without replicas whose `user_config` holds the policy's settings (policy_runtime/settings.py)."""

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Do nothing: Serve requires this method of a deployment with a `user_config`."""


def build(args: dict[str, Any]) -> serve.Application:
    """Return the application of one pool.

    Args:
        args: the fields of `PoolConfig`.

    Raises:
        ValueError: a field is missing, unknown or invalid, or the engine refuses its arguments; the message names
            each one. So it is refused before a replica takes an accelerator.
    """
    config = validated(args)
    check_arguments(config)
    limit = config.slots + config.max_queue + _HEADROOM
    deployment: Any = Replica  # the decorator turns the class into a Deployment
    settings: Any = AutoscalingSettings
    application: serve.Application = deployment.options(max_ongoing_requests=limit).bind(
        config.model_dump(mode="json"), settings.bind()
    )
    return application


def validated(args: dict[str, Any]) -> PoolConfig:
    """Return the pool's configuration. Raises `ValueError` with one line per invalid field."""
    try:
        return PoolConfig.model_validate(args)
    except ValidationError as error:
        lines = [_line(detail["loc"], detail["msg"]) for detail in error.errors(include_url=False)]
        raise ValueError("invalid arguments of the pool:\n" + "\n".join(lines)) from None


def _line(location: tuple[int | str, ...], message: str) -> str:
    field = ".".join(map(str, location))
    return f"  {field}: {message}" if field else "  " + message.removeprefix("Value error, ")
