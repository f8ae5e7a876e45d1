"""State of a local service that outlives its supervisor: ports, and the process of each component."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tierserve.runtime.local.ports import free_ports, free_span
from tierserve.runtime.local.processes import ProcessRef
from tierserve.runtime.local.ray_cluster import RayPorts

# One port per replica, draining ones included, and spare ones for the time that Ray quarantines a released port.
REPLICA_PORTS = 1000


@dataclass(slots=True)
class LocalState:
    """Ports and processes of one service.

    Attributes:
        file: the service file that is followed.
        gateway_port: port of the endpoint.
        agent_port, metrics_port, decisions_port: the gateway's agent, HAProxy's exporter, autoscaling decisions.
        log_port: UDP port on which the agent receives HAProxy's log.
        ray: ports of the Ray cluster.
        processes: process per component: supervisor, head, node-<pool>, gateway, agent.
    """

    file: str
    gateway_port: int
    agent_port: int
    metrics_port: int
    decisions_port: int
    log_port: int
    ray: RayPorts
    processes: dict[str, ProcessRef] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """Base URL for clients."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def agent_url(self) -> str:
        """Base URL of the gateway's agent."""
        return f"http://127.0.0.1:{self.agent_port}"

    @classmethod
    def new(cls, file: Path, gateway_port: int) -> LocalState:
        """A new state with ports that are free now."""
        first, *rest = free_ports(12)
        gcs, dashboard, client, http, metrics, stats, spare_http, spare_grpc, agent, own_metrics, decisions = rest
        ray = RayPorts(gcs, dashboard, client, http, metrics, stats, spare_http, spare_grpc, free_span(REPLICA_PORTS))
        return cls(str(file), gateway_port, agent, own_metrics, decisions, first, ray)

    def save(self, path: Path) -> None:
        """Write the state atomically, so that a reader never sees an incomplete file."""
        write_atomic(path, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, path: Path) -> LocalState | None:
        """The saved state; None if there is none or it cannot be parsed."""
        try:
            raw = orjson.loads(path.read_bytes())
            return cls._from(raw)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def _from(cls, raw: dict[str, Any]) -> LocalState:
        ray = RayPorts(**{**raw["ray"], "replicas": tuple(raw["ray"]["replicas"])})
        processes = {part: ProcessRef(**reference) for part, reference in raw["processes"].items()}
        return cls(**{**raw, "ray": ray, "processes": processes})


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    temporary.replace(path)
