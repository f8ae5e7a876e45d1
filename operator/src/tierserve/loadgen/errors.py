"""What is wrong with a load, and a hint."""

from __future__ import annotations

from typing import ClassVar


class LoadError(ValueError):
    """A load that cannot be made: what is wrong, and the hint.

    Attributes:
        exit_code: exit status of a command that ends with it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LoadUsageError(LoadError):
    """A value that an option of the load cannot have, whatever the server and the files."""

    exit_code = 2
