"""Settings of the operator, from environment variables, which the chart sets."""

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
_DURATIONS = frozenset({"resync_period", "liveness_stale_after"})
_CHOICES = {
    "ip_family": ("IPv4", "IPv6"),
    "log_format": ("json", "text"),
    "image_pull_policy": ("Always", "IfNotPresent", "Never"),
}
_MAY_BE_ZERO = frozenset({"metrics_port", "idle_timeout_s"})
_LARGEST_PORT = 65535
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
"""Variables that Kubernetes sets for each Service of the namespace: TIERSERVE_X_PORT and more for `tierserve-x`."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator itself, and of what it renders.

    Attributes:
        resync_period: seconds after which a resource is reconciled again without an event.
        liveness_stale_after: seconds without a completed reconcile after which the liveness probe fails.
        metrics_port: port of /metrics; 0 switches it off.
        log_format: json or text.
        kube: settings of the objects.
    """

    resync_period: float = 10.0
    liveness_stale_after: float = 180.0
    metrics_port: int = 9090
    log_format: str = "json"
    kube: KubeSettings = field(default_factory=KubeSettings)


def from_environment(environment: Mapping[str, str] | None = None) -> OperatorSettings:
    """Settings from variables such as TIERSERVE_SERVING_IMAGE and TIERSERVE_RESYNC_PERIOD.

    Raises:
        ValueError: unknown variables or invalid values; the message names each of them.
    """
    variables = os.environ if environment is None else environment
    given = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if name.startswith(PREFIX)}
    # Set in every pod: the address of the API server's Service has the IP family of the pods' first addresses.
    if ":" in variables.get("KUBERNETES_SERVICE_HOST", ""):
        given.setdefault("ip_family", "IPv6")
    errors: list[str] = []
    own = _read(OperatorSettings(), given, errors, skip=("kube",))
    kube = _read(KubeSettings(), given, errors)
    settings = (*fields(OperatorSettings), *fields(KubeSettings))
    unknown = given.keys() - {f.name for f in settings if f.name != "kube"}
    errors += [
        f"{PREFIX}{name.upper()}: is not a setting of the operator"
        for name in sorted(unknown)
        if not _SERVICE_LINK.search(name.upper())
    ]
    if errors:
        raise ValueError("; ".join(errors))
    return OperatorSettings(**own, kube=KubeSettings(**kube))


def _read(defaults: Any, given: Mapping[str, str], errors: list[str], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {}
    for setting in fields(defaults):
        if setting.name not in given or setting.name in skip:
            continue
        text, default = given[setting.name], getattr(defaults, setting.name)
        try:
            values[setting.name] = _value(setting.name, text.strip(), default)
        except ValueError as error:
            errors.append(f"{PREFIX}{setting.name.upper()}: must be {error} (such as {default!r}), got {text!r}")
    return values


def _json(text: str, default: Any) -> Any:
    """An object of texts, or a list of objects."""
    is_object = isinstance(default, Mapping)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if is_object and isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return value
    if not is_object and isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return value
    raise ValueError("a JSON object of texts" if is_object else "a JSON list of objects")


def _value(name: str, text: str, default: Any) -> Any:
    """Parse one value.

    Raises:
        ValueError: the message says what the value must be.
    """
    if isinstance(default, Mapping) or default is PROMETHEUS:
        return _json(text, default)
    if isinstance(default, tuple):
        return tuple(part for item in text.split(",") if (part := item.strip()))
    if name in _DURATIONS:
        return _seconds(text)
    if isinstance(default, int):
        return _whole(name, text)
    if name in _CHOICES and text not in _CHOICES[name]:
        raise ValueError(f"one of {', '.join(_CHOICES[name])}")
    return text


def _seconds(text: str) -> float:
    """Seconds from plain seconds or a duration such as 10s."""
    try:
        value = float(text) if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit() else None
        value = Duration(text).value if value is None else value
    except ValueError:
        value = 0.0
    if not value > 0.0:
        raise ValueError("a time above 0, in seconds or as a duration such as 10s")
    return value


def _whole(name: str, text: str) -> int:
    lowest = 0 if name in _MAY_BE_ZERO else 1
    highest = _LARGEST_PORT if name.endswith("_port") else None
    bounds = f"an integer of at least {lowest}" + (f" and at most {highest}" if highest else "")
    if not (text.isascii() and text.isdigit()) or int(text) < lowest or (highest is not None and int(text) > highest):
        raise ValueError(bounds)
    return int(text)
