"""Durations and lists as people type them."""

from __future__ import annotations

import re

from tierserve.loadgen.errors import LoadError, LoadUsageError
from tierserve.loadgen.scenario import OpenLoop

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def seconds(text: str) -> float:
    """Seconds of a duration: `1500ms`, `20s`, `1m30s`, `5m`; a bare number is seconds.

    Raises:
        LoadUsageError: it is none of these.
    """
    stripped = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    parts = _PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise LoadUsageError(f"duration: is not valid ({text!r})", "for example 1500ms, 20s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers: `8`, `1,2,4,8`, or `1..128`, which doubles from the first to the last.

    Raises:
        LoadUsageError: it is none of these.
    """
    try:
        if ".." in text:
            return _doubling(*(int(part) for part in text.split("..")))
        return tuple(int(part) for part in text.split(","))
    except (ValueError, TypeError) as error:
        raise LoadUsageError(f"connections: is not valid ({text!r})", "for example 1,2,4,8 or 1..128") from error


def _doubling(first: int, last: int) -> tuple[int, ...]:
    if not 0 < first <= last:
        raise ValueError(first)
    steps = [first]
    while steps[-1] < last:
        steps.append(min(2 * steps[-1], last))
    return tuple(steps)


def rates(text: str, process: str) -> tuple[OpenLoop, ...]:
    """Open loops: `5` per second, steps `5,10,20`, or a ramp `1..50` within one step.

    Raises:
        LoadUsageError: it is none of these.
    """
    if process not in ("poisson", "constant"):
        raise LoadUsageError(f"arrivals: is unknown ({process!r})", "choose poisson or constant")
    kind = "poisson" if process == "poisson" else "constant"
    try:
        if ".." in text:
            first, last = (float(part) for part in text.split(".."))
            return (OpenLoop(first, last, kind),)  # type: ignore[arg-type]
        return tuple(OpenLoop(float(part), None, kind) for part in text.split(","))  # type: ignore[arg-type]
    except ValueError as error:
        if isinstance(error, LoadError):
            raise
        raise LoadUsageError(f"rate: is not valid ({text!r})", "for example 5, 5,10,20 or 1..50") from error


def traffic_fields(text: str) -> dict[str, str]:
    """`class=personal,connections=1,think=2s` as a mapping.

    Raises:
        LoadUsageError: a part without `=`, an unknown name, or max-tokens that is no number.
    """
    known = {"name", "class", "connections", "think", "rate", "max-tokens", "prompt", "slo", "stream"}
    fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if len(fields) != len(text.split(",")) or not fields.keys() <= known:
        raise LoadUsageError(f"must be name=value pairs ({text!r})", f"use the names {', '.join(sorted(known))}")
    tokens = fields.get("max-tokens", "1")
    if not tokens.isdecimal() or int(tokens) < 1:
        raise LoadUsageError(f"max-tokens: is not valid ({tokens!r})", "for example max-tokens=64")
    return fields


def header(text: str) -> tuple[str, str]:
    """Name and value of `Name: value`.

    Raises:
        LoadUsageError: it is no HTTP header.
    """
    name, colon, value = (part.strip() for part in text.partition(":"))
    if (
        not colon
        or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        or not re.fullmatch(r"[\t\x20-\x7e]*", value)
    ):
        raise LoadUsageError(f"header: is not valid ({name!r})", "use 'Name: value' in ASCII, without line breaks")
    return name, value
