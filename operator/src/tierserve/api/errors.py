"""Validation error, as all checks report it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A validation error: field path, message, hint, value, and line from 1."""

    path: str
    message: str
    hint: str = ""
    value: object = None
    line: int | None = None

    @property
    def message_with_value(self) -> str:
        """The message with the value: ``must be at least min, 1 (got 0)``."""
        plain = isinstance(self.value, str | int | float) and not isinstance(self.value, bool)
        shown = repr(self.value) if self.value == "" else str(self.value)
        return f"{self.message} (got {shown})" if plain else self.message

    def format(self, file: str = "") -> str:
        """Two lines: file, line, field and message; then the hint."""
        where = f"{file}:{self.line}" if file and self.line else file
        head = ": ".join(part for part in (where, self.path, self.message_with_value) if part)
        return f"{head}\n    hint: {self.hint}" if self.hint else head


class ValidationFailed(ValueError):  # noqa: N818 - reads as a sentence where it is caught
    """A document is not a valid GenAIDeployment; `problems` lists all errors."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.path}: {problem.message_with_value}" for problem in problems))
