"""The options of `tierserve profile` as given, before they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Strings are not parsed yet; `command.profile` documents each option."""

    target: str
    model: str | None
    tier: str | None
    batch: int | None
    prompts: str
    output_tokens: int
    long_output_tokens: int
    rounds: int
    verify: bool
    verify_duration: str
    write: bool
    out: Path | None
    output: str
    timeout: str
    seed: int
    allow_remote: bool
    api_key: str | None
    headers: tuple[str, ...]
    cacert: Path | None
    insecure: bool

    @property
    def is_url(self) -> bool:
        """Whether the target is a server, not a file."""
        return self.target.startswith(("http://", "https://"))
