"""The options of `tierserve load` as given, before they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Strings are not parsed yet; `command.load` documents each option."""

    url: str
    connections: str | None
    rate: str | None
    trace: str | None
    duration: str
    warmup: str | None
    think: str
    arrivals: str
    time_scale: float
    start: str
    length: str | None
    token_scale: float
    max_input: int
    max_tokens: int | None
    model: str | None
    klass: str | None
    prompt: str | None
    stream: bool
    also: tuple[str, ...]
    slo: str | None
    timeout: str
    max_requests: int
    max_in_flight: int
    seed: int
    samples: Path | None
    output: str
    allow_remote: bool
    api_key: str | None
    headers: tuple[str, ...]
    cacert: Path | None
    insecure: bool
