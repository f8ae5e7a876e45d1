"""Configuration file of the gateway agent (JSON), loaded at the start and at SIGHUP."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentPool(_Model):
    """One pool; names as in the rendered HAProxy file."""

    name: str
    tier: str
    slots: int = Field(1, ge=1, description="concurrent requests per replica")
    models: tuple[str, ...] = ()
    decisions_url: str | None = Field(None, description="GET returns {pool: decision}; None keeps the limit as it is")
    target_s: float | None = Field(None, gt=0, description="response-time objective in seconds")
    scale_to_zero: bool = Field(False, description="the pool may have no replica; requests then wait for one")


class AgentClass(_Model):
    """A traffic class and its allowed tiers in the order of preference."""

    name: str
    tiers: tuple[str, ...]


class AgentConfig(_Model):
    """Pools, classes, addresses and intervals (seconds) of the agent."""

    service: str
    listen: str = Field("127.0.0.1", description="bind address of the agent's HTTP endpoints; empty for all")
    port: int = Field(ge=0, le=65535)
    admin_socket: str
    log_address: str | None = Field(None, description="host:port (UDP) or absolute path (Unix datagram)")
    certificate: str | None = Field(None, description="PEM file of the gateway's certificate; None without TLS")
    pools: tuple[AgentPool, ...]
    classes: tuple[AgentClass, ...]
    gateways: int = Field(1, ge=1, description="gateways in front of the same pools: each admits its share")
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="maximum size of a request body")
    poll_interval_s: float = Field(0.25, gt=0)
    decisions_interval_s: float = Field(0.5, gt=0)
    window_s: float = Field(60.0, gt=0, description="window of the exact percentiles in /status")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [p.name for p in self.pools]
        if len(set(names)) != len(names):
            raise ValueError("pools: names must be unique")
        return self


def load_config(path: Path) -> AgentConfig:
    """Reads and validates the file; pydantic's ValidationError names the invalid field."""
    return AgentConfig.model_validate_json(path.read_bytes())
