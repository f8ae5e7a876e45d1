"""Gateways leave a pool before its only replica is stopped to be replaced by one of another version.

Ray Serve (2.60) stops such a replica as soon as the new version is built, and sends what comes then to a proxy of its
own, which holds it until the new replica runs. A gateway that reads half a second later that none runs has sent
requests there. The policy is recreated in Serve's controller between the two, and publishes it in time.
"""

from __future__ import annotations

import threading
import time

from tierserve_serving.policy_runtime.decisions import DecisionPublisher

LEAVE_S = 2.0
"""A gateway reads decisions and acts on them in 0.75 s; in 1.4 s where 2 cores had ten times their work."""
_versions: dict[str, str] = {}
_lock = threading.Lock()


def leave(pool: str, version: str, publisher: DecisionPublisher, *, surge: bool) -> None:
    """Where the version of a pool has changed, publish 0 running replicas, and wait until gateways have read it.

    Only where a single replica runs that stops before the new one starts (no `surge`): else others serve meanwhile.
    It holds up Serve's controller, on purpose: the next that it does is to stop the replica.
    """
    with _lock:
        before = _versions.get(pool, version)
        _versions[pool] = version
    if before != version and not surge and publisher.close(pool):
        time.sleep(LEAVE_S)
