"""HAProxy's log lines, one JSON object each, as records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished request; times in seconds.

    Args:
        duration_s: from the first byte of the request to the last byte of the response (HAProxy's Ta).
        queue_s: time in the queue (Tw). first_byte_s: from the connection to the first byte of the response (Tr);
            both None if the request did not reach that phase.
        first_token_s: of a successful stream, from the first byte of the request to the first byte of the response.
        model: name in the request, ``*`` is the service's. path: one of the API's, ``-`` for any other.
        code: HTTP status. end: HAProxy's two-letter termination state, ``--`` is a normal end.
    """

    pool: str
    cls: str
    code: int
    duration_s: float
    queue_s: float | None
    first_byte_s: float | None
    size_bytes: int
    end: str
    retries: int
    request_id: str
    model: str
    path: str
    first_token_s: float | None = None

    @property
    def aborted(self) -> bool:
        """Whether the client disconnected before the response was complete."""
        return self.end.startswith("C")


def parse_line(line: bytes) -> RequestRecord:
    """Parses one line of the log-format of `tierserve.render.haproxy.config`; ValueError for anything else."""
    raw = json.loads(line)
    try:
        return RequestRecord(
            pool=_name(raw["pool"]),
            cls=_name(raw["class"]),
            code=_status(raw["code"]),
            duration_s=max(0, int(raw["Ta"])) / 1000,
            queue_s=_seconds(raw["Tw"]),
            first_byte_s=_seconds(raw["Tr"]),
            size_bytes=int(raw["bytes"]),
            end=str(raw["end"]),
            retries=int(str(raw["retries"]).lstrip("+")),
            request_id=str(raw["id"]),
            model=_name(raw["model"]),
            path=_name(raw["path"]),
            first_token_s=_first_token_s(raw),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a gateway log line: {error!r}") from error


def _name(value: object) -> str:
    return value if isinstance(value, str) and value else "-"


def _status(value: object) -> int:
    code = int(str(value))
    return code if 100 <= code <= 599 else 0


def _seconds(value: object) -> float | None:
    ms = int(str(value))
    return None if ms < 0 else ms / 1000


def _first_token_s(raw: Mapping[str, Any]) -> float | None:
    if raw["streamed"] != "1" or _status(raw["code"]) >= 400:
        return None
    phases = [int(str(raw[name])) for name in ("TR", "Tw", "Tc", "Tr")]
    return None if min(phases) < 0 else sum(phases) / 1000


class LogReceiver(asyncio.DatagramProtocol):
    """Receives log lines and passes the records to `take`; malformed lines are counted in `malformed` and dropped."""

    def __init__(self, take: Callable[[RequestRecord], None]) -> None:
        self._take = take
        self.received = 0
        self.malformed = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        """One datagram is one line."""
        del addr
        self.received += 1
        try:
            record = parse_line(data)
        except ValueError:
            self.malformed += 1
        else:
            self._take(record)
