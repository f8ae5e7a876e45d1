"""Errors of a command that its user can correct: a message and a hint."""

from __future__ import annotations

import re
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
        return f"{self.message}\n    hint: {self.hint}" if self.hint else self.message


def invalid(file: Path, problems: Iterable[Problem]) -> UserError:
    """Return all problems of a file as one error, each with its hint below it; exit status 1."""
    return UserError("\n".join(problem.format(str(file)) for problem in problems), code=1)


def run(app: Callable[[], object], name: str) -> None:
    """Run a command; a UserError is printed as message and hint, without a traceback.

    Exit status: 0 success; 1 invalid input or failure; 2 wrong usage.
    """
    try:
        app()
    except UserError as error:
        _end(name, error)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        _end(name, UserError(f"{error.name} is not installed", f'pip install "tierserve[{extra}]"', code=1))


def _end(name: str, error: UserError) -> None:
    print(f"{name}: {error}", file=sys.stderr)
    sys.exit(error.code)


def extra_of(module: str) -> str | None:
    """Return the extra of this package that installs `module`; None if there is none (a bug of ours)."""
    from importlib.metadata import requires

    top = module.partition(".")[0]
    extras = []
    for requirement in requires("tierserve") or ():
        distribution = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        if extra and distribution.lower().replace("-", "_") == top.lower():
            extras.append(extra[1])
    # Of several extras: the one for local serving, before those of the operator and of development.
    return min(extras, key=lambda extra: extra != "serving", default=None)
