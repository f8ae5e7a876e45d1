"""Client of Ray Serve's REST API on the dashboard port: read applications (GET), declare their configuration (PUT)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tierserve.observe.client import client

PATH = "/api/serve/applications/"


@dataclass(frozen=True, slots=True)
class AppObserved:
    """One Serve application.

    Attributes:
        name: the pool.
        status: NOT_STARTED | DEPLOYING | RUNNING | DEPLOY_FAILED | UNHEALTHY | DELETING.
        message: Serve's error message.
        target: Serve's target number of replicas.
        replicas: count per replica state (RUNNING, STARTING, STOPPING ...).
        previous: running replicas that were started before the last deployment, by Serve's own clock.
    """

    name: str
    status: str
    message: str
    target: int
    replicas: Mapping[str, int]
    previous: int = 0

    @property
    def running(self) -> int:
        """Running replicas."""
        return self.replicas.get("RUNNING", 0)


@dataclass(frozen=True, slots=True)
class ServeRest:
    """The REST API of one cluster.

    Attributes:
        base_url: of Ray's dashboard.
        token: Ray's authentication token, if the cluster requires one.
    """

    base_url: str
    token: str | None = None

    def is_up(self) -> bool:
        """Whether the dashboard answers with success; raises httpx.HTTPError if the port is closed."""
        return self._request("GET", "/api/version", timeout_s=2.0).is_success

    def applications(self, *, timeout_s: float = 10.0) -> dict[str, AppObserved]:
        """Return the applications by name.

        Raises:
            httpx.HTTPError: the head does not answer, or answers with an error.
        """
        response = self._request("GET", PATH, timeout_s=timeout_s)
        response.raise_for_status()
        return {name: _observed(name, app) for name, app in response.json().get("applications", {}).items()}

    def declare(self, config: Mapping[str, Any], *, timeout_s: float = 60.0) -> None:
        """Declare the applications that shall run; idempotent.

        Raises:
            httpx.HTTPError: the configuration is rejected; the message contains Serve's response.
        """
        response = self._request("PUT", PATH, timeout_s=timeout_s, json=dict(config))
        if response.is_error:
            message = f"Ray Serve rejected the configuration: {response.text[:500]}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)

    def _request(self, method: str, path: str, *, timeout_s: float, json: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return client().request(method, self.base_url + path, headers=headers, json=json, timeout=timeout_s)


def _observed(name: str, app: Mapping[str, Any]) -> AppObserved:
    deployments = app.get("deployments", {}).values()
    replicas = [replica for d in deployments for replica in d.get("replicas", ())]
    states = Counter(replica["state"] for replica in replicas)
    deployed_s = float(app.get("last_deployed_time_s") or 0.0)
    older = [r for r in replicas if r["state"] == "RUNNING" and float(r.get("start_time_s") or 0.0) < deployed_s]
    messages = [app.get("message") or "", *(d.get("message") or "" for d in deployments)]
    return AppObserved(
        name=name,
        status=app.get("status", "UNKNOWN"),
        message="\n".join(m for m in messages if m),
        target=sum(int(d.get("target_num_replicas") or 0) for d in deployments),
        replicas=dict(states),
        # A RUNNING application has only replicas of the last deployment: those started before it were reconfigured.
        previous=0 if app.get("status") == "RUNNING" else len(older),
    )
