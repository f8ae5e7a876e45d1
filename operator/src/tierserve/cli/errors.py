"""Errors a user can correct: what is wrong, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierserve.api.errors import Problem


class UserError(Exception):
    """Ends a command with a message and its hint instead of a traceback.

    Args:
        message: names the field, part or file and the value that is wrong.
        hint: the next step, as one sentence or one command.
        code: exit status of the command.
    """

    def __init__(self, message: str, hint: str = "", code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n    {self.hint}" if self.hint else self.message


def invalid(file: Path, problems: Iterable[Problem]) -> UserError:
    """All mistakes of a file as one error, each with its hint under it; exit status 1."""
    return UserError("\n".join(problem.format(str(file)) for problem in problems), code=1)


def run(app: Callable[[], object], name: str) -> None:
    """Run a command; a mistake of the user's ends in two lines, not in a traceback."""
    try:
        app()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.code)
