"""Settings of a scaling policy that may change while it runs, from the `user_config` of a deployment beside it.

Ray Serve (2.60) hashes `policy_kwargs` into the code version of the application: another value there replaces every
replica (`get_app_code_version`). The `user_config` of the replicas' own deployment replaces none, but each replica
leaves the load balancer while it takes the new one. So what only the policy reads is the `user_config` of a deployment
that never has a replica, and the policy asks Serve's controller for it in the background.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tierserve.autoscale.decide import Settings
from tierserve.queueing.batching.profile import BatchProfile

logger = logging.getLogger("ray.serve")
INTERVAL_S = 1.0
"""Between two reads: a change is in force within about a second; the controller answers from its memory."""
_TIMEOUT_S = 5.0  # of one read; the controller may be busy with a roll-out
_UNUSED_S = 30.0  # without a decision for so long the policy has been dropped, and its reader ends
SURGE = "surge"
"""The one value that is no setting of the decision: whether a new replica starts before the old one stops."""
_readers: dict[str, SettingsReader] = {}
_lock = threading.Lock()

UserConfig = Mapping[str, Any]
Read = Callable[[], UserConfig | None]


def settings(
    response_target_s: float,
    *,
    percentile: float = 95.0,
    service_s: float | None = None,
    slots: int = 1,
    startup_s: float | None = None,
    profile: Mapping[str, float] | None = None,
    **more: Any,
) -> Settings:
    """Return the settings of a decision from plain values; `ErlangPolicy` lists them.

    Raises:
        ValueError, TypeError: a value is out of range, or a name is unknown.
    """
    if startup_s is not None:
        more["startup_s"] = startup_s
    return Settings(
        target_s=response_target_s,
        percentile=percentile,
        service_s=service_s if service_s is not None else response_target_s / 2.0,
        slots=slots,
        profile=BatchProfile(**profile) if profile else None,
        **more,
    )


def serve_user_config(app: str, deployment: str) -> UserConfig | None:
    """Return the `user_config` of a deployment, None if it has none or is not there; called in Serve's controller."""
    import ray
    from ray.serve._private.common import DeploymentID
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    name = DeploymentID(name=deployment, app_name=app)
    config = ray.get(controller.get_deployment_config.remote(name), timeout=_TIMEOUT_S)
    return config.user_config if config is not None else None


class SettingsReader:
    """Reads the `user_config` of one pool's settings deployment once a second while decisions are made.

    A read that fails, and values that are not valid, leave the last good ones in force.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self.surge = False
        self._settings: Settings | None = None
        self._values: UserConfig | None = None
        self._used = 0.0
        self._thread: threading.Thread | None = None
        self._failed = False

    def latest(self, given: Mapping[str, Any], read: Read) -> Settings | None:
        """Return the settings in force; None before the first read.

        Args:
            given: values that are the same as long as the policy is; the `user_config` may replace them.
            read: returns the `user_config`.
        """
        self._used = time.monotonic()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._poll, args=(given, read), name="tierserve-settings", daemon=True
            )
            self._thread.start()
        return self._settings

    def _poll(self, given: Mapping[str, Any], read: Read) -> None:
        while time.monotonic() - self._used < _UNUSED_S:
            try:
                self._take(given, read())
                self._failed = False
            except Exception as error:  # Ray raises many kinds; none of them may end the reads
                if not self._failed:
                    logger.warning("tierserve: the settings of a policy cannot be read: %r", error)
                self._failed = True
            time.sleep(self.interval_s)

    def _take(self, given: Mapping[str, Any], values: UserConfig | None) -> None:
        if values is None or values == self._values:
            return
        chosen = {name: value for name, value in values.items() if name != SURGE}
        self._settings = settings(**{**given, **chosen})
        self.surge, self._values = bool(values.get(SURGE, False)), values


def reader(pool: str) -> SettingsReader:
    """Return the reader of a pool, one per process: a policy that is built anew has its settings at once."""
    with _lock:
        return _readers.setdefault(pool, SettingsReader())
