"""The operator's settings, from its environment; the chart sets them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tierserve.api.units import Duration
from tierserve.render.kubernetes.settings import PROMETHEUS, KubeSettings

PREFIX = "TIERSERVE_"


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator itself, and of what it renders.

    Attributes:
        resync_period: time between two reconciles of a service of which nothing has changed.
        liveness_stale_after: time without a successful reconcile after which the liveness probe fails.
        metrics_port: port of /metrics.
        log_format: json or text.
        kube: settings of the objects.
    """

    resync_period: Duration = field(default=Duration("10s"))
    liveness_stale_after: Duration = field(default=Duration("180s"))
    metrics_port: int = 9090
    log_format: str = "json"
    kube: KubeSettings = field(default_factory=KubeSettings)


def from_environment(environment: Mapping[str, str] | None = None) -> OperatorSettings:
    """Settings from variables such as TIERSERVE_SERVING_IMAGE and TIERSERVE_RESYNC_PERIOD.

    Durations are texts such as 10s and 2m30s, or plain seconds.

    Raises:
        ValueError: a variable that is not known, or whose value cannot be read; the message names it.
    """
    variables = os.environ if environment is None else environment
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}OPERATOR_")
    }
    # Set in every pod: the address of the API server's Service is of the family of pods' first addresses.
    if ":" in variables.get("KUBERNETES_SERVICE_HOST", ""):
        given.setdefault("ip_family", "IPv6")
    own = _read(OperatorSettings(), given, skip=("kube",))
    kube = _read(KubeSettings(), given)
    unknown = given.keys() - {f.name for f in (*fields(OperatorSettings), *fields(KubeSettings))}
    if unknown:
        names = ", ".join(f"{PREFIX}{name.upper()}" for name in sorted(unknown))
        raise ValueError(f"{names}: no such setting of the operator")
    return OperatorSettings(**own, kube=KubeSettings(**kube))


def _read(defaults: Any, given: Mapping[str, str], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    found = {}
    for one in fields(defaults):
        if one.name in given and one.name not in skip:
            found[one.name] = _value(one.name, given[one.name], getattr(defaults, one.name))
    return found


def _json(text: str, default: Any) -> Any:
    """An object of texts, or a list of objects."""
    value = json.loads(text)
    if isinstance(default, Mapping):
        good = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    else:
        good = isinstance(value, list) and all(isinstance(one, dict) for one in value)
    if not good:
        raise ValueError
    return value


def _value(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, Mapping) or default is PROMETHEUS:
            return _json(text, default)
        if isinstance(default, tuple):
            return tuple(part for part in text.split(",") if part)
        if isinstance(default, Duration) and re.fullmatch(r"[0-9.]+", text):
            return Duration(f"{text}s")
        return type(default)(text)
    except ValueError as error:
        kind = type(default).__name__
        raise ValueError(f"{PREFIX}{name.upper()}: {text!r} is not a {kind} such as {str(default)!r}") from error
