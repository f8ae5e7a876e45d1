"""Validation of the values in the HAProxy file: no value that a user writes may change the meaning of a line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tierserve.api.v1alpha1.base import MODEL_NAME_PATTERN
from tierserve.render.haproxy.model import ANY_ADDRESS

if TYPE_CHECKING:
    from tierserve.render.haproxy.model import GatewaySpec

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
_MODEL = re.compile(MODEL_NAME_PATTERN)
_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9_.:\[\]*-]+")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9.:\[\]_-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+-]+")
_FILE = re.compile(r"[A-Za-z0-9_./@:+-]+")


def check_spec(spec: GatewaySpec) -> None:
    """Raises ValueError at the first field with an invalid value; the message names field and value."""
    if not spec.pools:
        raise ValueError("pools: at least one pool is required")
    if not spec.classes:
        raise ValueError("classes: at least one class is required")
    _check_names(spec)
    _check_classes(spec)
    for field, path in (("admin_socket", spec.admin_socket), ("log_address", spec.log_address or "x")):
        _match(_FILE, field, [path])
    _match(_FILE, "tls_certificate", [spec.tls_certificate or "x"])
    _match(_FILE, "server_state_file", [spec.server_state_file or "x"])


def _check_names(spec: GatewaySpec) -> None:
    _match(_MODEL, "service", [spec.service])
    _match(_VERSION, "version", [spec.version])
    _match(_ORIGIN, "cors_origins", spec.cors_origins)
    _match(_NAME, "pools.name", [p.name for p in spec.pools])
    _match(_NAME, "pools.tier", [p.tier for p in spec.pools])
    _match(_MODEL, "pools.models", [m for p in spec.pools for m in p.models])
    _match(_PATH, "pools.path_prefix", [p.path_prefix for p in spec.pools])
    _match(_PATH, "pools.health_path", [p.health_path for p in spec.pools])
    _match(_HOST, "pools.host", [p.host for p in spec.pools])
    _match(_HOST, "bind", [address for address in (spec.bind, spec.metrics_bind) if address != ANY_ADDRESS])
    _match(_NAME, "classes.name", [c.name for c in spec.classes])
    _unique("pools.name", [p.name for p in spec.pools])
    _unique("classes.name", [c.name for c in spec.classes])
    for pool in spec.pools:
        if pool.max_in_flight < 0 or not 0 < pool.port < 65536:
            raise ValueError(f"pools[{pool.name}]: max_in_flight must be at least 0 and port between 1 and 65535")


def _check_classes(spec: GatewaySpec) -> None:
    if spec.default_class not in {c.name for c in spec.classes}:
        raise ValueError(f"default_class: must be one of the classes ({spec.default_class!r})")
    for cls in spec.classes:
        if not set(cls.tiers) & set(spec.tiers):
            raise ValueError(f"classes[{cls.name}].tiers: at least one tier must have a pool ({list(cls.tiers)})")


def _match(pattern: re.Pattern[str], field: str, values: Iterable[str]) -> None:
    for value in values:
        if not pattern.fullmatch(value):
            raise ValueError(f"{field}: has characters that are not allowed in an HAProxy file ({value!r})")


def _unique(field: str, values: list[str]) -> None:
    duplicates = {v for v in values if values.count(v) > 1}
    if duplicates:
        raise ValueError(f"{field}: must be unique ({min(duplicates)!r} occurs twice)")
