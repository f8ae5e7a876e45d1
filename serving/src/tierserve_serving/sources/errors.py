"""Errors of model sources: what is wrong, a reason in CamelCase, and a hint."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "InvalidSource", "NotSupported", "FileNotFound", "PackageNotFound", "AmbiguousFile", "TokenRequired",
    "AccessDenied", "RepositoryNotFound", "RevisionNotFound", "Unreachable", "Truncated", "ChecksumMismatch",
    "DiskFull", "CacheTooSmall", "CacheNotWritable", "NotCached",
]  # fmt: skip


class SourceError(ValueError):
    """The source cannot be used; the message starts with the field and ends with the hint."""

    def __init__(self, message: str, reason: Reason, hint: str) -> None:
        super().__init__(f"source: {message} ({reason}); hint: {hint}")
        self.message, self.reason, self.hint = message, reason, hint

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, Reason, str]]:
        """Ray passes it from the replica to its controller."""
        return type(self), (self.message, self.reason, self.hint)


class TransferError(Exception):
    """A transfer failed and may succeed if it is tried again."""
