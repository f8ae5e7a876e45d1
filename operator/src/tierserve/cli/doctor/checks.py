"""One check as a value, and all checks of a run as text or data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

State = Literal["ok", "warning", "missing"]
_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "missing": "bold red"}
_NAME = 22  # characters of the column of names
_STATE = 9


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: what was checked.
        state: `missing` is something required that is not there; `warning` something that only some services need, or
            that could not be checked.
        message: what was found, with its value.
        hint: what to do; empty if the state is `ok`.
    """

    name: str
    state: State
    message: str
    hint: str = ""


def ok(name: str, message: str) -> Check:
    """Return a check that passed."""
    return Check(name, "ok", message)


def warning(name: str, message: str, hint: str) -> Check:
    """Return a check whose result only some services are affected by."""
    return Check(name, "warning", message, hint)


def missing(name: str, message: str, hint: str) -> Check:
    """Return a check that failed: no service can run without it."""
    return Check(name, "missing", message, hint)


def is_complete(checks: Sequence[Check]) -> bool:
    """Whether nothing that is required is missing."""
    return all(check.state != "missing" for check in checks)


def as_data(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks as plain values: `ok`, and a list."""
    return {"ok": is_complete(checks), "checks": [asdict(check) for check in checks]}


def show(console: Console, checks: Sequence[Check], width: int) -> None:
    """Print one line per check, its hint below it, and the counts; lines have at most `width` characters."""
    for check in checks:
        room = max(width - _STATE - _NAME, 20)
        message = textwrap.wrap(check.message, room) or [""]
        head = Text(f"{check.state:<{_STATE}}", style=_STYLES[check.state])
        # A name that is longer than its column has a line of its own.
        name, rest = f"{check.name:<{_NAME}}", message
        if len(check.name) >= _NAME:
            console.print(head + Text(check.name))
            head, name = Text(" " * _STATE), " " * _NAME
        console.print(head + Text(name + rest[0]), soft_wrap=True)
        for line in rest[1:]:
            console.print(Text(" " * (_STATE + _NAME) + line), soft_wrap=True)
        if check.hint:
            hint = textwrap.wrap(f"hint: {check.hint}", room, break_long_words=False, break_on_hyphens=False)
            for line in hint:
                console.print(Text(" " * (_STATE + _NAME) + line, style="dim"), soft_wrap=True)
    console.print(_summary(checks))


def _summary(checks: Sequence[Check]) -> Text:
    counts = {state: sum(check.state == state for check in checks) for state in _STYLES}
    words = [f"{counts['ok']} ok"]
    words += [f"{counts['warning']} warning{'s' * (counts['warning'] > 1)}"] if counts["warning"] else []
    words += [f"{counts['missing']} missing"] if counts["missing"] else []
    return Text(", ".join(words), style="bold green" if is_complete(checks) else "bold red")
