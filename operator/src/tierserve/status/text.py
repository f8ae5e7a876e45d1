"""Strings and figures of the status: cut to the limits of the CRD, rounded to avoid needless writes (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tierserve.api.schema.crd import schema

_FREE_TEXT = 1024
"""Limit of a string for which the CRD has none; the whole object must stay below etcd's 1.5 MiB."""
_LONGEST_CAUSE = 400
_DIGITS = 3
"""Significant digits of a figure: more would change in every reconcile, and each change is a write."""
_COUNTERS = frozenset({"total", "count", "errors", "aborted"})
_ERROR = re.compile(
    r"^\s*(?:\x1b\[[0-9;]*m)?((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Failure|NotFound|Failed)\w*)"
    r"(?:: ?(.*))?$"
)


def bounded(status: Mapping[str, Any]) -> Any:
    """The status with every string and list cut to the limits of the CRD."""
    return _fit(status, schema()["properties"]["status"])


def _fit(value: Any, node: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        longest = int(node.get("maxLength", _FREE_TEXT))
        return value if len(value) <= longest else value[: longest - 1] + "…"
    if isinstance(value, Mapping):
        properties, others = node.get("properties") or {}, node.get("additionalProperties")
        others = others if isinstance(others, Mapping) else {}
        return {name: _fit(child, properties.get(name, others)) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_fit(child, node.get("items") or {}) for child in value[: node.get("maxItems", len(value))]]
    return value


def figures(values: Mapping[str, Any], drop: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Figures as the status shows them: rounded, without counters, which are in the metrics."""
    gone = drop | _COUNTERS
    return {n: _rounded(v) for n, v in values.items() if n not in gone and not n.endswith("_total")}


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(child) for name, child in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def cause(message: str) -> str:
    """First line of the exception that a replica ended with, from Serve's message with its traceback; empty if none.

    The last exception of a traceback is the one that was not handled; those before it are its causes.
    """
    error = ""
    for line in message.splitlines():
        match = _ERROR.match(line)
        if match and not (match[2] or "").startswith("Traceback"):
            error = line.strip() if match[2] else match[1]
    if not error:  # an actor that died has no traceback: Ray reports how it ended in a sentence
        error = next(iter(message.partition("Error:\n")[2].strip().splitlines()), "")
    return error[:_LONGEST_CAUSE]
