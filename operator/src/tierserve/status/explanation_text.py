"""An explanation as lines of text for a terminal or a page (pure)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from tierserve.plan.hardware import MOST_SLOTS
from tierserve.status.explanation import Alternative, Explanation, ScaleDown

WIDTH = 80
_LABEL = 21  # characters; the longest label is "would scale down to"
_NAMES = {
    "memory": "memory",
    "responseTime": "the response-time target",
    "firstToken": "the first-token target",
    "perToken": "the time per token",
    "engine": "maxConcurrency of the engine",
}


def lines(service: str, found: Explanation, *, width: int = WIDTH) -> list[str]:
    """Return the explanation as lines of at most `width` characters: a headline, then a label and its text each.

    Args:
        service: name of the service.
        found: the arithmetic of one decision of it.
        width: of the lines, at least 40 characters.
    """
    held = " (held)" if found.stale else ""
    head = f"{service} / {label_of(found.pool)}: {_replicas(found.replicas)}{held}, because"
    rows = [_row(label, text, width) for label, text in _parts(found)]
    return [*textwrap.wrap(head, width), *(line for row in rows for line in row)]


def label_of(pool: str) -> str:
    """Return the name of a pool without the site that a tier has by default."""
    return pool.removesuffix("-default")


def seconds(value: float) -> str:
    """Return a time as `410 ms`, `0.91 s` or `96 s`."""
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def _row(label: str, text: str, width: int) -> Sequence[str]:
    room = max(width - 2 - _LABEL, 16)
    first, *more = textwrap.wrap(text, room) or [""]
    return [f"  {label:<{_LABEL}}{first}".rstrip(), *(f"  {'':<{_LABEL}}{line}" for line in more)]


def _parts(found: Explanation) -> Iterator[tuple[str, str]]:
    yield "decision", found.reason
    yield "arrivals", _arrivals(found)
    yield "one replica", _one_replica(found)
    yield "burstiness", f"z = {found.peakedness:.3g} ({_kind_of(found.peakedness)})"
    if found.set_by == "connections":
        yield from _connections(found)
    else:
        yield from _erlang_c(found)
    if (observed := _observed(found)) is not None:
        yield "since then", observed
    yield "would scale down to", _down(found)


def _replicas(count: int) -> str:
    return f"{count} replica{'' if count == 1 else 's'}"


def _arrivals(found: Explanation) -> str:
    text = f"{found.arrival_rate:.3g}/s expected in {seconds(found.startup_s)}, which a replica takes to start"
    if found.rate_error > 0.0:
        text += f", and {found.rate_error:.2g}/s more, the mean error of such forecasts"
    if found.answered_rate is not None and found.window_s is not None:
        text = f"{found.answered_rate:.3g}/s answered in the last {seconds(found.window_s)}; {text}"
    return text


def _one_replica(found: Explanation) -> str:
    slots = f"{found.slots} slot{'' if found.slots == 1 else 's'}"
    text = f"{slots}, {found.full_rate:.3g} requests/s when full ({seconds(found.service_s)} each)"
    real = {name: slots for name, slots in found.bounds.items() if slots < MOST_SLOTS}
    limits = sorted(real.items(), key=lambda item: (item[0] != found.bound, item[1]))
    if limits:
        text += "; " + ", ".join(f"{_NAMES.get(name, name)} allows {slots:,}" for name, slots in limits)
    return text


def _kind_of(peakedness: float) -> str:
    if peakedness < 0.2:  # the limit of autoscale.load
        return "a constant number of connections"
    return "as random arrivals" if 0.7 <= peakedness <= 1.4 else "more even" if peakedness < 0.7 else "in clumps"


def _connections(found: Explanation) -> Iterator[tuple[str, str]]:
    inside = "" if found.in_system is None else f"; {found.in_system:.0f} requests are in the pool"
    for count in (found.replicas - 1, found.replicas):
        if count > 0:
            yield _replicas(count), f"{count * found.slots} slots" + (inside if count == found.replicas else "")


def _erlang_c(found: Explanation) -> Iterator[tuple[str, str]]:
    if found.load is None or found.wait_allowed_s is None:
        yield "Erlang C", "unknown: the spec of the service cannot be read"
        return
    extra = f" with {found.headroom:.0%} headroom" if found.headroom else ""
    extra += f", times {found.margin:.2f} by the responses of full slots" if found.margin > 1.005 else ""
    late = f"{100.0 - found.percentile:.3g}%"
    objective = f"at most {late} may be late, wait more than {seconds(found.wait_allowed_s)}"
    yield "load", f"{found.load:.3g} erlangs{extra}; {objective} (target {seconds(found.target_s)})"
    for one in found.alternatives:
        yield _replicas(one.replicas), _alternative(one, found)
    if found.required is not None and found.replicas < found.required and found.set_by == "erlang_c":
        inside = "those in the pool" if found.in_system is None else f"the {found.in_system:.0f} in the pool"
        yield "", f"fewer than {found.required} are enough: their number is constant, and {inside} have a slot each"


def _alternative(one: Alternative, found: Explanation) -> str:
    if one.p95_s is None:
        return f"{one.servers} slots cannot carry {found.load:.3g} erlangs"
    text = f"P(wait) {one.p_wait:.2g}, {_share(one.late)} late, p{found.percentile:g} {seconds(one.p95_s)}: "
    over_s = one.p95_s - found.target_s
    if one.meets:
        return text + "meets it"
    return text + ("misses by " + seconds(over_s) if over_s > 0.0 else "misses, too many are late")


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.001 else "<0.1%"


def _observed(found: Explanation) -> str | None:
    parts = []
    if found.observed_p95_s is not None:
        parts.append(f"observed p95 {seconds(found.observed_p95_s)}")
    if found.predicted_p95_s is not None:
        parts.append(f"predicted p{found.percentile:g} {seconds(found.predicted_p95_s)}")
    if found.model_error is not None:
        parts.append(f"the model is off by {round(100.0 * found.model_error):+d}%")
    return ", ".join(parts) or None


def _down(found: Explanation) -> str:
    if found.replicas == found.min_replicas:
        return f"no fewer: {found.replicas} is the minimum"
    down = found.scale_down
    if down is None:
        return "unknown" if found.set_by != "max_replicas" else "fewer when fewer than the maximum are required"
    return f"{down.replicas} {_when(down, found)}"


def _when(down: ScaleDown, found: Explanation) -> str:
    if down.replicas == 0:
        return f"after {seconds(down.for_s)} without a request"
    if down.arrivals_below is None:
        needs = "a slot for each connection needs" if found.set_by == "connections" else "the load needs"
        return f"when {needs} no more for {seconds(down.for_s)}"
    return f"when the forecast stays under {down.arrivals_below:.3g}/s for {seconds(down.for_s)}"
