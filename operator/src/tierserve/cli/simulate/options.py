"""The options of `tierserve simulate` as given, before they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Strings are not parsed yet; `command.simulate` documents each option."""

    file: Path
    pool: str | None
    trace: str | None
    rate: str | None
    duration: str
    copies: int
    policies: tuple[str, ...]
    startup: str | None
    startup_spread: float
    ttft: str | None
    initial: int | None
    router: str
    failures: tuple[str, ...]
    answer_cache: str | None
    prompts: int | None
    prefixes: str | None
    prefix_cache: int | None
    zipf: float
    seed: int
    out: Path | None
    output: str
