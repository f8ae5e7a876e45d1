"""The agent's configuration file (JSON), read at its start and again at SIGHUP."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentPool(_Model):
    """One pool as the agent sees it; same names as in the gateway's rendered file."""

    name: str
    tier: str
    slots: int = Field(1, ge=1, description="requests one replica holds at once")
    models: tuple[str, ...] = ()
    decisions_url: str | None = Field(None, description="GET gives {pool: decision}; None leaves the limit alone")
    target_s: float | None = Field(None, gt=0, description="objective, for the share of requests within it")
    sleeps: bool = Field(False, description="it may have no replica, and requests wait for one")


class AgentClass(_Model):
    """A traffic class and its tiers in the order of overflow."""

    name: str
    tiers: tuple[str, ...]


class AgentConfig(_Model):
    """What the agent polls, where it listens, and how often."""

    service: str
    listen: str = Field("127.0.0.1", description="address of the agent's own HTTP endpoints; empty for all")
    port: int = Field(ge=0, le=65535)
    admin_socket: str
    log_address: str | None = Field(None, description="host:port (UDP) or absolute path (Unix datagram)")
    pools: tuple[AgentPool, ...]
    classes: tuple[AgentClass, ...]
    gateways: int = Field(1, ge=1, description="gateways in front of the same pools: each lets in its share")
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="largest body of a request")
    poll_interval_s: float = Field(0.25, gt=0)
    decisions_interval_s: float = Field(0.5, gt=0)
    window_s: float = Field(60.0, gt=0, description="the window of the exact percentiles in /status")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [p.name for p in self.pools]
        if len(set(names)) != len(names):
            raise ValueError("pools: a name is given twice")
        return self


def load_config(path: Path) -> AgentConfig:
    """Reads and checks the file; pydantic's ValidationError names the field that is wrong."""
    return AgentConfig.model_validate_json(path.read_bytes())
